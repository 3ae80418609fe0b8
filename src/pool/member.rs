//! One parked mongod: its process, its mount, its directories.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Settings;
use crate::base::blocking::blocking;
use crate::compute::{Cell, Choice, Owner, Parked};
use crate::mount::lazy::HeldMount;

/// A mongod that waits before its mount's door. Dropping it ends the process and takes the mount away.
#[derive(Debug)]
pub struct ParkedMongod {
    // In the order in which they are to go.
    mount: HeldMount,
    process: Arc<dyn Parked>,
    place: Place,
}

impl ParkedMongod {
    pub(super) fn new(mount: HeldMount, process: Arc<dyn Parked>, place: Place) -> Self {
        Self { mount, process, place }
    }

    /// Its mount, to put a volume behind.
    pub fn mount(&self) -> &HeldMount {
        &self.mount
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.place.log()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.process.is_sound()
    }

    pub(super) fn process(&self) -> &Arc<dyn Parked> {
        &self.process
    }

    /// The process, and the directories that must stay as long as the mount does, once a volume is
    /// behind it.
    pub fn admitted(self) -> (Arc<dyn Parked>, Place) {
        (self.process, self.place)
    }

    /// Ends the process, then takes mount and directories away.
    pub(super) async fn end(self) {
        // As long as it waits for an answer, no signal ends it.
        self.mount.turn_away();
        self.process.kill().await;
        blocking(move || drop(self)).await;
    }
}

/// The directories of one parked mongod, and of the branch that gets it. Dropping it removes them;
/// where the mount is still there, they stay for the next server to tidy up.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    sockets: PathBuf,
}

impl Place {
    /// Makes fresh directories.
    pub(super) fn make(settings: &Settings, number: u64) -> io::Result<Self> {
        let name = format!("parked-{number}");
        let place = Self {
            directory: settings.directory.join(&name),
            sockets: settings.sockets.join(&name),
        };
        for directory in [&place.directory, &place.sockets, &place.mountpoint()] {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(place)
    }

    pub(super) fn mountpoint(&self) -> PathBuf {
        self.directory.join("db")
    }

    /// For what the mount keeps before it has a volume.
    pub(super) fn scratch(&self) -> PathBuf {
        self.directory.join("scratch")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("mongod.log")
    }

    pub(super) fn cell(&self, settings: &Settings, dbpath: &Path) -> Cell {
        Cell {
            dbpath: dbpath.to_owned(),
            socket_dir: self.sockets.clone(),
            log: self.log(),
            cache_gb: settings.terms.cache_gb,
            oplog_mb: settings.terms.oplog_mb,
            owner: Owner::default(),
            mongod: Choice::Server,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // First of all, and only if it is an empty directory: below a mount are a branch's files.
        let unmounted = match fs::remove_dir(self.mountpoint()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::remove_dir_all(&self.directory),
        };
        let removed = unmounted.and_then(|()| fs::remove_dir_all(&self.sockets));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, directory = %self.directory.display(),
                           "the directories of a mongod that was started ahead stay");
        }
    }
}
