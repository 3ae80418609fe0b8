//! `argon repair`: what can only be mended while no server runs.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::config::Config;
use super::data_dir::{DataDir, DataDirError};
use super::open_store::OpenStoreError;
use super::serve::{open_catalog, open_store};
use crate::base::clock::SystemClock;
use crate::branch::{self, BranchError, Damage, Rebuilt};
use crate::catalog::CatalogError;

/// Why a catalog was not rebuilt. It is as it was.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the variants are named for the rooms they come from")]
pub enum RepairError {
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("open the catalog")]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error("rebuild the catalog")]
    Branches(#[from] BranchError),
}

impl RepairError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DataDir(DataDirError::InUse { .. }) => {
                Some("stop that server first; while it runs, it knows its branches".into())
            }
            Self::DataDir(error) => Some(error.hint().to_owned()),
            Self::Catalog(CatalogError::NotACatalog { .. }) => {
                Some("move that file away, and try again".into())
            }
            Self::Branches(error) => error.hint(),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// Fills an empty catalog from the store.
///
/// # Errors
/// A server runs on the data directory, its catalog is not empty, or the store cannot be read.
pub fn repair(config: &Config, damage: Damage) -> Result<Rebuilt, RepairError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(RepairError::Runtime)?;
    runtime.block_on(async {
        let data_dir = DataDir::take(&config.data_dir)?;
        let path = data_dir.path();
        let clock = Arc::new(SystemClock::default());
        let store = open_store(config, path, &*clock).await?;
        let catalog = open_catalog(path)?;
        Ok(branch::rebuild(&catalog, store, path, clock, damage).await?)
    })
}
