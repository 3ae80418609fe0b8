//! A mount that is there before its volume: mongod starts on it, sees what a start looks at, and is
//! held at its [`Door`] until an overlay takes the template's place.
//!
//! Invariants: a mount shows the template, then one overlay, never a second; what mongod has seen of
//! the template is true of that overlay too, or it is not let in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::runtime::Handle;

use super::Source;
use super::door::Door;
use super::fetch::Fetcher;
use super::fs::Served;
use super::live::LazyMount;
use super::names::{Kind, MET_FIRST, ROOT};
use super::overlay::Overlay;
use super::session::{Access, Mounted, Tuning};
use super::start::Durable;
use crate::base::ids::VersionId;
use crate::mount::{DirectoryEntry, FileEntry, MountError, Tree, VolumePath};

const LOCK: &str = "mongod.lock";
const STORAGE: &str = "storage.bson";
const JOURNAL: &str = "journal";
/// Where this is, mongod ends: an earlier repair was cut off.
const REPAIR: &str = "_repair_incomplete";
/// The file that names the storage engine and its options; a hundred bytes.
const STORAGE_BYTES_MAX: u64 = 64 * 1024;

/// What a dbpath shows to a mongod that has not opened its storage: an empty lock file, the storage
/// engine's description, an empty journal.
#[derive(Clone, Debug)]
pub struct Template {
    version: VersionId,
    storage: Bytes,
    tree: Arc<Tree>,
}

/// Why a volume cannot be put before a mongod that was started ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Its last mongod was killed: the next one must know that when it starts.
    #[error("its last mongod was not stopped cleanly")]
    NotStoppedCleanly,
    /// Never started, or by something else than this mongod.
    #[error("it does not begin as this mongod's volumes do")]
    Differs,
    /// The process is not where it should be, or has written something.
    #[error("no mongod waits for it")]
    NobodyWaits,
}

impl Template {
    /// The template of the mongod that made a volume, read from it.
    ///
    /// # Errors
    /// It cannot be read, or has no such file.
    pub async fn of(source: &dyn Source) -> io::Result<Self> {
        let storage = storage_of(source).await?;
        let path = |text| VolumePath::new(text).map_err(io::Error::other);
        let file =
            |text, bytes| Ok::<_, io::Error>(FileEntry { path: path(text)?, mode: 0o600, bytes });
        let files = vec![file(LOCK, 0)?, file(STORAGE, storage.len() as u64)?];
        let journal = DirectoryEntry { path: path(JOURNAL)?, mode: 0o700 };
        let tree = Tree::new(vec![journal], files).map_err(io::Error::other)?;
        Ok(Self { version: source.version(), storage, tree: tree.into() })
    }

    /// Whether what is in this template is in a volume as well. Reads one block of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn suits(&self, source: &dyn Source) -> io::Result<bool> {
        let tree = source.tree();
        let has_lock = tree.files().iter().any(|entry| entry.path.as_str() == LOCK);
        let has_journal = tree.directories().iter().any(|entry| entry.path.as_str() == JOURNAL);
        let repairs = tree.files().iter().any(|entry| entry.path.as_str() == REPAIR);
        let alike = has_lock && has_journal && !repairs;
        Ok(alike && storage_of(source).await? == self.storage)
    }
}

async fn storage_of(source: &dyn Source) -> io::Result<Bytes> {
    let files = source.tree().files();
    let file = files.iter().position(|entry| entry.path.as_str() == STORAGE);
    let file = file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, STORAGE))?;
    match files[file].bytes {
        1..=STORAGE_BYTES_MAX => match source.at_hand(file, 0) {
            Some(bytes) => Ok(bytes),
            None => source.block(file, 0).await,
        },
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, STORAGE)),
    }
}

#[async_trait]
impl Source for Template {
    fn version(&self) -> VersionId {
        self.version
    }

    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn at_hand(&self, file: usize, index: u64) -> Option<Bytes> {
        let is_storage = self.tree.files().get(file)?.path.as_str() == STORAGE;
        (is_storage && index == 0).then(|| self.storage.clone())
    }

    async fn block(&self, file: usize, index: u64) -> io::Result<Bytes> {
        self.at_hand(file, index).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A mount that shows a [`Template`]. Dropping it turns away who waits, and unmounts.
#[derive(Debug)]
pub struct HeldMount {
    template: Template,
    tuning: Tuning,
    overlay: Arc<Overlay>,
    door: Arc<Door>,
    mounted: Mutex<Option<Arc<Mounted>>>,
    mountpoint: PathBuf,
}

impl HeldMount {
    /// Mounts a template for `access`. `scratch` is a directory that is empty or not there yet. Blocks; call it on
    /// a runtime or on one of its blocking threads.
    pub fn create(
        access: Access,
        template: &Template,
        scratch: &Path,
        mountpoint: &Path,
    ) -> Result<Self, MountError> {
        let overlay =
            Arc::new(Overlay::create(Arc::new(template.clone()), scratch, Durable::AfterStart)?);
        let (door, tuning) = (Arc::new(Door::new(access)), Tuning::of(access));
        let fetcher = Fetcher::new(overlay.clone(), Handle::current());
        let served = Served::new(fetcher, Some(door.clone()), tuning);
        let mounted = Mounted::new(served, mountpoint, tuning)?;
        let mountpoint = mounted.mountpoint().to_owned();
        let mounted = Mutex::new(Some(Arc::new(mounted)));
        Ok(Self { template: template.clone(), tuning, overlay, door, mounted, mountpoint })
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// What it shows.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Returns when a mongod waits at the door.
    pub async fn knocked(&self) {
        self.door.knocked().await;
    }

    /// Turns away who waits at the door: the process, which nothing else can end, goes on to its own
    /// end.
    pub fn turn_away(&self) {
        self.door.turn_away();
    }

    /// Whether an overlay can take the template's place: all that mongod saw of the one is so in the
    /// other, by the same numbers.
    pub(super) fn check(&self, overlay: &Overlay) -> Result<(), Unfit> {
        let is_there = self.door.is_waited_at() && self.overlay.open_paths() == [LOCK];
        if !is_there || self.overlay.is_changed() {
            return Err(Unfit::NobodyWaits);
        }
        let names = overlay.names();
        for (name, number) in MET_FIRST {
            if names.lookup(ROOT, name).ok() != Some(number) {
                return Err(Unfit::Differs);
            }
        }
        let node = |number| names.node(number).map_err(|_| Unfit::Differs);
        let bytes_of = |name: &str| {
            let number = MET_FIRST.iter().find(|(known, _)| *known == name);
            number.and_then(|(_, number)| names.node(*number).ok()).and_then(|node| node.bytes())
        };
        if bytes_of(LOCK) != Some(0) {
            return Err(Unfit::NotStoppedCleanly);
        }
        let storage = node(MET_FIRST[1].1)?;
        let is_own = storage.read().is_ok_and(|state| state.has_data);
        let journal = names.entry(MET_FIRST[2].1).map(|entry| entry.kind());
        if is_own
            || bytes_of(STORAGE) != Some(self.template.storage.len() as u64)
            || journal.ok() != Some(Kind::Directory)
            || names.lookup(ROOT, REPAIR).is_ok()
        {
            return Err(Unfit::Differs);
        }
        Ok(())
    }

    /// Puts an overlay, checked, in the template's place, and lets mongod in. The mount is the
    /// caller's from then on.
    pub(super) fn admit(&self, overlay: &Arc<Overlay>) -> Result<Arc<Mounted>, MountError> {
        let numbers = || MET_FIRST.iter().map(|(_, number)| *number).chain([ROOT]);
        let failed = MountError::io("put a volume behind", &self.mountpoint);
        let opened = || {
            let mounted = self.take().ok_or(io::ErrorKind::NotConnected)?;
            for number in numbers() {
                let (new, old) =
                    (overlay.names().node(number)?, self.overlay.names().node(number)?);
                new.stand_in_for(&old);
            }
            // It was read before it was this one's, and belongs to what a start reads.
            overlay.boot.saw(MET_FIRST[1].1, 0, self.template.storage.len());
            let fetcher = Fetcher::new(overlay.clone(), Handle::current());
            // What the kernel knows of the template is forgotten before mongod can ask for it.
            self.door
                .open(fetcher, || numbers().try_for_each(|number| mounted.invalidate(number)))?;
            Ok::<_, io::Error>(mounted)
        };
        opened().map_err(failed)
    }

    fn take(&self) -> Option<Arc<Mounted>> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for HeldMount {
    fn drop(&mut self) {
        self.turn_away();
        if let Some(mounted) = self.take()
            && let Err(error) = mounted.unmount(&[])
        {
            tracing::warn!(%error, "a mount that nobody needed stays");
        }
    }
}

impl LazyMount {
    /// As [`Self::create_for_start`], on a mount that is there and before which a mongod waits, which is let in.
    /// Where the volume is unfit for that, it is mounted at `otherwise` as ever, and `held` is as it
    /// was.
    pub fn create_behind(
        held: &HeldMount,
        source: Arc<dyn Source>,
        overlay: &Path,
        otherwise: &Path,
    ) -> Result<(Self, Result<(), Unfit>), MountError> {
        let overlay = Overlay::create(source, overlay, Durable::AfterStart)?;
        if let Err(unfit) = held.check(&overlay) {
            return Ok((Self::mount(overlay, otherwise, held.tuning)?, Err(unfit)));
        }
        let overlay = Arc::new(overlay);
        let mounted = held.admit(&overlay)?;
        Ok((Self::over(overlay, mounted), Ok(())))
    }

    /// Moves to a mount before which a mongod waits, which is let in. Nobody uses the volume so far:
    /// its last mongod has ended. Where it is unfit for that, everything is as it was. After an error
    /// it is mounted nowhere. Blocks.
    pub fn move_behind(&self, held: &HeldMount) -> Result<Result<(), Unfit>, MountError> {
        let _stays = self.site.stay();
        if let Err(unfit) = held.check(&self.overlay) {
            return Ok(Err(unfit));
        }
        if let Some(mounted) = self.site.take() {
            mounted.unmount(&self.overlay.open_paths())?;
        }
        self.overlay.leave_kernel();
        self.site.set(held.admit(&self.overlay)?);
        Ok(Ok(()))
    }
}
