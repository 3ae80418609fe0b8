//! The store of a server: opened, and tried before anything relies on it.

use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tracing::warn;

use crate::base::clock::Timestamp;
use crate::branch::Writers;
use crate::store::probe::{Breach, Conditions, ProbeError, probe};
use crate::store::{LocalStore, S3Settings, S3Store, SingleWriter, Store, StoreError};

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum OpenStoreError {
    /// It is not there, or does not say where it is.
    #[error("open the store")]
    Open(#[source] StoreError),
    /// It does not do what a store must.
    #[error("the store {store} does not work")]
    Probe {
        /// Which.
        store: String,
        /// What failed.
        source: ProbeError,
    },
    /// It does not keep the conditions of writes.
    #[error("the store {store} cannot be shared by servers: {breach}")]
    Careless {
        /// Which.
        store: String,
        /// What it did.
        breach: Breach,
    },
}

impl OpenStoreError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open(StoreError::Io { .. }) => {
                Some("set AWS_DEFAULT_REGION, or --s3-endpoint for a server of your own".into())
            }
            Self::Open(error) => error.hint().map(Into::into),
            Self::Probe { source, .. } => source.hint().map(Into::into),
            Self::Careless { .. } => Some(
                "if no other server uses this store, promise that with --single-writer; \
                 docs/s3.md says which servers keep conditions"
                    .into(),
            ),
        }
    }
}

/// Opens the bucket, or the directory where there is none, and tries it.
pub(super) async fn open(
    bucket: Option<&S3Settings>,
    directory: &Path,
    writers: Writers,
    now: Timestamp,
) -> Result<Arc<dyn Store>, OpenStoreError> {
    let Some(bucket) = bucket else {
        // Ours, and proven by its own tests.
        let local = LocalStore::open(directory).map_err(OpenStoreError::Open)?;
        return Ok(Arc::new(local));
    };
    let store = S3Store::open(bucket.clone()).await.map_err(OpenStoreError::Open)?;
    let store: Arc<dyn Store> = Arc::new(store);
    let failed = |source| OpenStoreError::Probe { store: store.describe(), source };
    match (probe(&store, now).await.map_err(failed)?, writers) {
        (Conditions::Kept, _) => Ok(store),
        (Conditions::Broken(breach), Writers::Several { .. }) => {
            Err(OpenStoreError::Careless { store: store.describe(), breach })
        }
        (Conditions::Broken(breach), Writers::One) => {
            warn!(
                store = store.describe(),
                "{breach}: this server relies on being the only one, as --single-writer promises"
            );
            Ok(Arc::new(SingleWriter::new(store)))
        }
    }
}
