//! Where things lie on this machine's disk.
//!
//! ```text
//! DATA/work/BRANCH/db/          the dbpath, while the branch runs or has unsaved writes: a plain
//!                               directory, or where its lazy mount is
//! DATA/work/BRANCH/overlay/     what was written on a lazy mount
//! DATA/work/BRANCH/restoring/   a dbpath that is being made; worthless after a crash
//! DATA/work/BRANCH/mongod.log   mongod's log of the present or last life
//! DATA/work/parked/parked-N/    the same of a mongod that was started ahead, and then of the branch
//!                               that got it: its mount is there as long as the branch has it
//! RUN/BRANCH/, RUN/parked-N/    the directory of mongod's Unix socket
//! DATA/sockets/P.B.sock         the Unix socket that branch B of project P has on request
//! DATA/kept/BRANCH/             a dbpath that was put aside when the catalog was rebuilt; for people
//! DATA/seed/ID/                 the same, for the volumes that branches start from
//! ```

use std::fmt::Display;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::BranchError;
use crate::base::blocking::blocking;
use crate::base::ids::BranchId;
use crate::mount::lazy;

/// A Unix socket's path ends at 107 bytes (unix(7)); the directory of a branch and mongod's name
/// for its socket take this many of them.
const SOCKET_TAIL_BYTES: usize = "/01arz3ndektsv4rrffq69g5fav/mongodb-65535.sock".len();
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The directories of a server.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    data: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// Sockets lie in the data directory; where its path is too long for that, in a directory of
    /// the same machine's temporary folder, named after the server.
    pub(super) fn new(data: &Path, server: impl Display) -> Result<Self, BranchError> {
        let inside = data.join("run");
        let fits = inside.as_os_str().len() + SOCKET_TAIL_BYTES <= SOCKET_PATH_BYTES_MAX;
        let run = if fits { inside } else { std::env::temp_dir().join(format!("argon-{server}")) };
        let layout = Self { data: data.to_owned(), run };
        for dir in [&layout.data.join("work"), &layout.data.join("tmp"), &layout.run] {
            make_private(dir)?;
        }
        // Mounts of an earlier server that was killed answer nobody.
        for mounts in ["work", "seed"] {
            lazy::unmount_stale(&layout.data.join(mounts))?;
        }
        // Sockets of an earlier server, and volumes that it did not finish, are of no use.
        empty(&layout.run)?;
        empty(&layout.data.join("tmp"))?;
        // And mongods that it started ahead died with it.
        empty(&layout.parked())?;
        remove(&layout.data.join("seed"))?;
        make_private(&layout.data.join("seed"))?;
        Ok(layout)
    }

    /// Where mongods that are started ahead have their mounts.
    pub(super) fn parked(&self) -> PathBuf {
        self.data.join("work").join("parked")
    }

    /// The directory in which each mongod has one for its socket.
    pub(super) fn sockets(&self) -> &Path {
        &self.run
    }

    pub(super) fn branch(&self, id: impl Display) -> Workspace {
        let id = id.to_string();
        Workspace { dir: self.data.join("work").join(&id), run: self.run.join(&id) }
    }

    pub(super) fn seed(&self, id: impl Display) -> Workspace {
        let id = id.to_string();
        Workspace { dir: self.data.join("seed").join(&id), run: self.run.join(&id) }
    }

    /// What was written and not saved that is here, of whichever branches.
    pub(super) fn unsaved(&self) -> Result<Vec<Unsaved>, BranchError> {
        let work = self.data.join("work");
        let failed = |source| BranchError::local("list", &work, source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&work).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let branch = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let overlay = entry.path().join("overlay");
            let place = if overlay.is_dir() { overlay } else { entry.path().join("db") };
            if let Some(branch) = branch
                && place.is_dir()
            {
                found.push(Unsaved { branch, place });
            }
        }
        found.sort_by_key(|unsaved| unsaved.branch);
        Ok(found)
    }

    /// Moves it to where no branch uses it and nothing removes it; gives the place.
    pub(super) fn put_aside(&self, unsaved: &Unsaved) -> Result<PathBuf, BranchError> {
        let kept = self.data.join("kept");
        make_private(&kept)?;
        let place = (0_u32..)
            .map(|number| match number {
                0 => kept.join(unsaved.branch.to_string()),
                more => kept.join(format!("{}-{more}", unsaved.branch)),
            })
            .find(|place| !place.exists())
            .expect("there are fewer of them than numbers");
        fs::rename(&unsaved.place, &place)
            .map_err(|source| BranchError::local("put aside", &unsaved.place, source))?;
        Ok(place)
    }

    /// A file for something on its way in or out; removed at the next start at the latest.
    pub(super) fn temporary(&self, name: impl Display) -> PathBuf {
        self.data.join("tmp").join(name.to_string())
    }
}

/// A dbpath or overlay on this machine, of a branch that the catalog may not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsaved {
    pub(super) branch: BranchId,
    pub(super) place: PathBuf,
}

/// The directories of one volume's life on this machine.
#[derive(Clone, Debug)]
pub(super) struct Workspace {
    dir: PathBuf,
    run: PathBuf,
}

impl Workspace {
    pub(super) fn db(&self) -> PathBuf {
        self.dir.join("db")
    }

    pub(super) fn overlay(&self) -> PathBuf {
        self.dir.join("overlay")
    }

    /// Whether there is something that was written on a lazy mount.
    pub(super) fn has_overlay(&self) -> bool {
        self.overlay().is_dir()
    }

    /// Whether there is a plain directory with something in it: where a lazy mount was, an empty one
    /// stays.
    pub(super) fn has_directory(&self) -> bool {
        fs::read_dir(self.db()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Where the branch's writes are, whichever way it is mounted.
    pub(super) fn kept(&self) -> PathBuf {
        if self.has_overlay() { self.overlay() } else { self.db() }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("mongod.log")
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.run
    }

    /// Fresh directories to restore into; returns where.
    pub(super) fn prepare(&self) -> Result<PathBuf, BranchError> {
        self.discard_data()?;
        let restoring = self.dir.join("restoring");
        make_private(&restoring)?;
        Ok(restoring)
    }

    /// Fresh directories for a lazy mount.
    pub(super) fn prepare_mount(&self) -> Result<(), BranchError> {
        self.discard_data()?;
        [self.db(), self.overlay()].iter().try_for_each(|dir| make_private(dir))
    }

    /// Makes what was restored the dbpath.
    pub(super) fn adopt(&self, restoring: &Path) -> Result<(), BranchError> {
        fs::rename(restoring, self.db())
            .map_err(|source| BranchError::local("put in place", self.db(), source))
    }

    /// Returns when all of the dbpath is on the disk: one commit of its file system, where a file
    /// at a time would be one each.
    pub(super) async fn sync(&self) -> Result<(), BranchError> {
        let db = self.db();
        let synced = blocking(move || {
            let dir = File::open(&db)?;
            // SAFETY: syncfs takes a descriptor, which `dir` keeps open.
            match unsafe { libc::syncfs(dir.as_raw_fd()) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        synced.await.map_err(|source| BranchError::local("bring to the disk", self.db(), source))
    }

    pub(super) fn make_socket_dir(&self) -> Result<(), BranchError> {
        make_private(&self.run)
    }

    /// Removes the data and the socket; the log stays for whoever asks what happened.
    pub(super) fn discard_data(&self) -> Result<(), BranchError> {
        remove(&self.dir.join("restoring"))?;
        remove(&self.overlay())?;
        remove(&self.db())?;
        remove(&self.run)
    }

    /// Removes everything.
    pub(super) fn discard(&self) -> Result<(), BranchError> {
        remove(&self.dir)?;
        remove(&self.run)
    }
}

pub(super) fn make_private(dir: &Path) -> Result<(), BranchError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| BranchError::local("create the directory", dir, source))
}

fn remove(dir: &Path) -> Result<(), BranchError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(BranchError::local("remove the directory", dir, source))
        }
        _ => Ok(()),
    }
}

fn empty(dir: &Path) -> Result<(), BranchError> {
    remove(dir)?;
    make_private(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_data_directory_keeps_its_sockets_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let short = Layout::new(dir.path(), "short").unwrap();
        assert!(short.branch("b").socket_dir().starts_with(dir.path()));
        let deep = dir.path().join("d".repeat(90));
        let long = Layout::new(&deep, "test-of-long-paths").unwrap();
        let sockets = long.branch("b").socket_dir().to_owned();
        assert!(!sockets.starts_with(&deep));
        remove(sockets.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_lies_here_is_found_and_can_be_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), "test").unwrap();
        assert_eq!(layout.unsaved().unwrap(), []);
        let branch = BranchId::from_bytes([1; 16]);
        fs::create_dir_all(dir.path().join("work/other/db")).unwrap();
        for number in 0..3 {
            let workspace = layout.branch(branch);
            assert_eq!(layout.unsaved().unwrap(), [], "half restored is nothing");
            let restoring = workspace.prepare().unwrap();
            fs::write(restoring.join("number"), number.to_string()).unwrap();
            workspace.adopt(&restoring).unwrap();
            let found = layout.unsaved().unwrap();
            assert_eq!(found, [Unsaved { branch, place: workspace.db() }]);
            let place = layout.put_aside(&found[0]).unwrap();
            assert_eq!(fs::read_to_string(place.join("number")).unwrap(), number.to_string());
        }
        assert_eq!(fs::read_dir(dir.path().join("kept")).unwrap().count(), 3);
    }

    #[test]
    fn what_was_half_restored_is_never_the_dbpath() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Layout::new(dir.path(), "test").unwrap().branch("b");
        let restoring = workspace.prepare().unwrap();
        fs::write(restoring.join("half"), "x").unwrap();
        assert!(!workspace.db().exists());
        let restoring = workspace.prepare().unwrap();
        assert!(!restoring.join("half").exists());
        workspace.adopt(&restoring).unwrap();
        assert!(workspace.db().is_dir());
        workspace.discard().unwrap();
        assert!(!workspace.db().exists());
    }
}
