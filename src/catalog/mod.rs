//! The catalog: what this server knows of projects, branches and versions, in one SQLite file.
//!
//! Job: keep rows, durably, under a versioned schema. Not its job: what is allowed when (room
//! `branch`), nor the bytes of versions (room `volume`), whose store stays the truth a catalog
//! can be checked against.
//! Invariant: a method that returned `Ok` has been synced to disk, whole.
//!
//! Calls block for well under a millisecond but for the sync of a write, so async code calls them
//! directly. One process at a time has a catalog open: SQLite's exclusive lock sees to it.

mod branches;
mod error;
mod fill;
mod projects;
mod rows;
mod schema;
mod versions;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

pub use branches::Deleted;
pub use error::CatalogError;
pub use fill::Contents;
pub use rows::{BranchRow, LocalData, ProjectRow, VersionRow};

/// An open catalog.
pub struct Catalog {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Catalog {
    /// Opens the catalog in the file `path`, makes it where there is none, and brings its schema
    /// up to date.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let failed = |source| CatalogError::opening(path, source);
        let mut connection = Connection::open(path).map_err(failed)?;
        // A second server on the same folder is to be refused at once, not to wait.
        connection.busy_timeout(std::time::Duration::ZERO).map_err(failed)?;
        // Before anything is read, so that write-ahead logging works without shared memory and the
        // lock is kept until the end.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
        schema::check_kind(&connection, path)?;
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        schema::migrate(&mut connection, path)?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// A statement that panicked was rolled back by its own guard, so the connection is good.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod testing;
