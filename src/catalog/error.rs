//! What can go wrong with a catalog.

use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

use crate::base::ids::BranchId;

/// What can go wrong with a catalog. Only [`CatalogError::NameTaken`], [`CatalogError::NotEmpty`]
/// and [`CatalogError::NoSuchBranch`] are answers to the caller; the rest is about the machine or
/// the file, and trying again helps only once somebody has repaired that.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// A later Argon wrote it.
    #[error(
        "open catalog {path}: its schema is version {found}, and this Argon knows versions up to \
         {known}"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// It is another program's database or no database.
    #[error("open catalog {path}: the file is not a catalog of Argon's")]
    NotACatalog {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("open catalog {path}: another process has it open")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder may not be written or does not exist.
    #[error("open catalog {path}: it cannot be written")]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Something else failed at opening.
    #[error("open catalog {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A project, or a live branch of the project, has this name.
    #[error("the name {name} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The project has live branches.
    #[error("delete a project from the catalog: it has live branches")]
    NotEmpty,
    /// The row that was to be changed is gone.
    #[error("no branch {branch} in the catalog")]
    NoSuchBranch {
        /// The branch.
        branch: BranchId,
    },
    /// The disk is full.
    #[error("{doing} in the catalog: the disk is full")]
    Full {
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A row does not read as what it should be.
    #[error("{doing} in the catalog: a row is damaged")]
    Damaged {
        /// What was being done.
        doing: &'static str,
        /// What does not read.
        source: rusqlite::Error,
    },
    /// Anything else, a row that refers to a missing one included.
    #[error("{doing} in the catalog")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

impl CatalogError {
    /// Sorts a failure of [`super::Catalog::open`].
    pub(super) fn opening(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotACatalog { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::NotWritable { path, source }
            }
            _ => Self::Open { path, source },
        }
    }

    /// Sorts a failure of a statement; for `map_err`.
    pub(super) fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| match source {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..) => Self::Damaged { doing, source },
            _ if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Self::Full { doing, source }
            }
            _ => Self::Failed { doing, source },
        }
    }

    /// As [`Self::failed`], where a unique index guards `name`.
    pub(super) fn failed_to_name(
        doing: &'static str,
        name: &impl ToString,
    ) -> impl Fn(rusqlite::Error) -> Self {
        let name = name.to_string();
        move |source| match source.sqlite_error() {
            Some(ffi::Error { extended_code: ffi::SQLITE_CONSTRAINT_UNIQUE, .. }) => {
                Self::NameTaken { name: name.clone() }
            }
            _ => Self::failed(doing)(source),
        }
    }
}
