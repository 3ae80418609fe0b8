//! The data directory: made, checked, and held by one server at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another server works on it.
    #[error("the data directory {} is in use by another server (pid {pid})", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// That server's process, as it wrote it down.
        pid: String,
    },
    /// The host refuses something.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

impl DataDirError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "stop that server, replace it with --take-over, or give this one another --data-dir"
            }
            Self::Io { .. } => "give a directory that this user may write: --data-dir DIR",
        }
    }
}

/// Whether somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The server was, or is gone.
    Yes,
    /// Nobody knows which process it is.
    No,
}

/// Asks the server that has the data directory to end. Its number is good as long as it holds the
/// lock that it wrote the number into.
pub(super) fn tell_to_end(pid: &str) -> Result<Told, DataDirError> {
    let failed = |source| DataDirError::Io {
        doing: "tell the old server to end: process",
        path: pid.into(),
        source,
    };
    // A server that has just taken the lock may not have written its number yet: to be asked again.
    let Some(number) = pid.parse().ok().filter(|number| *number > 1) else { return Ok(Told::No) };
    // SAFETY: kill takes plain numbers.
    match unsafe { libc::kill(number, libc::SIGTERM) } {
        0 => Ok(Told::Yes),
        _ => match io::Error::last_os_error() {
            // It has ended meanwhile.
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(Told::Yes),
            error => Err(failed(error)),
        },
    }
}

/// A data directory that nobody else may use while this lives. The kernel drops the lock when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and takes it.
    ///
    /// # Errors
    /// It cannot be written, or another server has it.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { doing, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("create the data directory", path))?;
        let path = path.canonicalize().map_err(failed("find the data directory", path))?;
        let name = path.join("argon.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(failed("write to the data directory: open", &name))?;
        // SAFETY: flock takes a descriptor, which `lock` keeps open.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let source = io::Error::last_os_error();
            if source.kind() != io::ErrorKind::WouldBlock {
                return Err(failed("lock", &name)(source));
            }
            let mut pid = String::new();
            // The number is for people; without it the error is still right.
            let _ = lock.read_to_string(&mut pid);
            let pid = if pid.is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(DataDirError::InUse { path, pid });
        }
        lock.set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()))
            .map_err(failed("write to", &name))?;
        Ok(Self { path, _lock: lock })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::take(&path).unwrap();
        match DataDir::take(&path) {
            Err(DataDirError::InUse { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(first);
        DataDir::take(&path).unwrap();
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::take(&file.path().join("x")).unwrap_err();
        assert!(error.to_string().starts_with("create the data directory"), "{error}");
    }
}
