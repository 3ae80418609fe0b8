//! Runs mongod.
//!
//! Job: find or fetch a mongod, start one on a dbpath, tell when it is a writable primary, stop
//! it, and tell when it died and why. Not its job: which branch it serves, and what is in its
//! dbpath.
//! Invariant: no mongod outlives the server that started it; one in a container is removed by the
//! next server on the same data directory at the latest.

mod cgroup;
pub mod docker;
mod error;
mod fetch;
mod isolate;
mod jail;
mod launch;
mod limits;
pub mod mongod;
mod parked;
mod process;
mod ready;
mod spawner;
#[cfg(test)]
mod suite;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::Document;

pub use docker::{DockerCompute, PullProgress};
pub use error::{ComputeError, Exit};
pub use limits::Limits;
pub use parked::Parked;
pub use process::ProcessCompute;

use error::log_tail;

/// What one mongod is started with. Its directories exist, and nobody else uses them.
#[derive(Clone, Debug)]
pub struct Cell {
    /// mongod's data.
    pub dbpath: PathBuf,
    /// Where its Unix socket appears; mode 0700, since the socket asks nobody for a password.
    pub socket_dir: PathBuf,
    /// Where its log goes; written anew at each start.
    pub log: PathBuf,
    /// WiredTiger's cache, GB (at least 0.25, mongod's own minimum).
    pub cache_gb: f64,
    /// Size of the oplog of a new volume, MB.
    pub oplog_mb: u32,
    /// Whose it is, for people: containers are labelled with it.
    pub owner: Owner,
    /// Which mongod is to run.
    pub mongod: Choice,
}

/// Which mongod runs on a dbpath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The server's own: nothing was written yet, or by the same.
    Server,
    /// What last wrote the dbpath, where that is at hand; else the server's own.
    WroteIt(Build),
    /// That of this image, whatever wrote the dbpath.
    Image(String),
}

/// Told how far a pull is.
pub type OnPull<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

/// A mongod that wrote a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its version, for example "6.0.5".
    pub version: String,
    /// The image that it came from; none for a process.
    pub image: Option<String>,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.image {
            Some(image) => write!(f, "{} ({image})", self.version),
            None => f.write_str(&self.version),
        }
    }
}

/// Whom a mongod works for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The project's name; empty for a volume that belongs to no branch.
    pub project: String,
    /// The branch's name; empty for a volume that belongs to no branch.
    pub branch: String,
    /// The number of the branch's life.
    pub epoch: u64,
}

/// Whom a mongod runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number on this machine.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// What a real mongod says of itself, once it is a writable primary.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    /// Its reply to `hello`.
    pub hello: Document,
    /// Its reply to `buildInfo`.
    pub build_info: Document,
    /// The feature compatibility version of its data, for example "6.0".
    pub fcv: String,
}

/// How long the two steps of a start took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartPhases {
    /// From the start of the process until it listened.
    pub listening: Duration,
    /// From then until it was a writable primary.
    pub primary: Duration,
}

/// Something that can run mongods.
#[async_trait]
pub trait Compute: Send + Sync + fmt::Debug {
    /// In a few words, for people.
    fn describe(&self) -> String;

    /// Whom its mongods run as, where they are not the server's own processes: then what they are
    /// given must let in that user, and whoever starts them.
    fn user(&self) -> Option<User> {
        None
    }

    /// Has a mongod read a file as its configuration, one on a mount that is made just as a dbpath
    /// will be. Where mongods are the server's processes, they see what it sees.
    async fn look_at(&self, _file: &Path) -> Result<(), ComputeError> {
        Ok(())
    }

    /// The version of the mongods that it starts, for example "6.0.5".
    fn mongod_version(&self) -> &str;

    /// The image that its mongods come from, where nothing asks for another; none for processes.
    fn image(&self) -> Option<&str> {
        None
    }

    /// Which mongod an image has, and by what name that image is recorded. It is brought here where it is
    /// missing, which takes as long as that takes.
    ///
    /// # Errors
    /// There is no such image, it has no mongod that runs, or [`ComputeError::NoImages`].
    async fn fetch(&self, _image: &str, _progress: OnPull<'_>) -> Result<Build, ComputeError> {
        Err(ComputeError::NoImages)
    }

    /// Whether it has a mongod that opens what this one wrote. Only the same series does that: a newer
    /// one would change it for good, an older one fails.
    async fn opens(&self, written_by: &Build) -> Result<bool, ComputeError> {
        Ok(series(&written_by.version) == series(self.mongod_version()))
    }

    /// Whether a mongod that it starts ahead goes on with what this one wrote: only one that is the
    /// very same does.
    fn parks_for(&self, written_by: &Build) -> bool {
        let is_other = |image: &str| self.image().is_some_and(|own| own != image);
        written_by.version == self.mongod_version()
            && !written_by.image.as_deref().is_some_and(is_other)
    }

    /// Starts a mongod, that which wrote the dbpath where it is at hand, and returns when it is a
    /// writable primary. On an error, or when the future is dropped, nothing keeps running.
    async fn start(&self, cell: Cell) -> Result<Arc<dyn Instance>, ComputeError>;

    /// Whether mongods can be started before their volume is there.
    fn can_park(&self) -> bool {
        false
    }

    /// Starts a mongod whose dbpath does not answer until its volume is there. Returns at once: when
    /// it has come to where it must wait, its dbpath knows.
    ///
    /// # Errors
    /// It cannot be started, or [`ComputeError::CannotPark`].
    async fn park(&self, _cell: Cell) -> Result<Arc<dyn Parked>, ComputeError> {
        Err(ComputeError::CannotPark)
    }
}

/// One running mongod. Dropping the last handle kills it.
#[async_trait]
pub trait Instance: Send + Sync + fmt::Debug {
    /// Its Unix socket.
    fn socket(&self) -> &Path;

    /// What it said of itself when it became ready.
    fn facts(&self) -> &ServerFacts;

    /// The image that it came from; none for a process.
    fn image(&self) -> Option<&str> {
        None
    }

    /// How long its start took, where that is known.
    fn start_phases(&self) -> StartPhases {
        StartPhases::default()
    }

    /// Returns when the process has ended, whoever ended it.
    async fn wait(&self) -> Exit;

    /// Stops it cleanly, by force where that takes too long; then all is on disk that it
    /// acknowledged, in its journal at least.
    async fn stop(&self) -> Exit;

    /// Ends it at once.
    async fn kill(&self);

    /// Stops its threads where they stand, and gives back what memory the host lets it; whether that
    /// can be done. It keeps its connections.
    fn freeze(&self) -> bool {
        false
    }

    /// Lets its threads go on.
    fn thaw(&self) {}
}

/// "6.0" of "6.0.5".
fn series(version: &str) -> Vec<&str> {
    version.split('.').take(2).collect()
}

/// Whether the mongod that last used this dbpath checkpointed everything before it ended: it
/// empties its lock file as its last deed.
pub fn was_stopped_cleanly(dbpath: &Path) -> bool {
    match std::fs::metadata(dbpath.join("mongod.lock")) {
        Ok(lock) => lock.len() == 0,
        // No mongod ever ran on it.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_first_two_numbers() {
        assert_eq!(series("6.0.5"), series("6.0.19-rc1"));
        assert_ne!(series("6.0.5"), series("6.1.0"));
        assert_ne!(series("6.0.5"), series("16.0.5"));
    }
}
