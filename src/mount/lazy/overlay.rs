//! What was written to a mount: names, files, their pages, and the log on disk that says so.
//!
//! Invariant: whoever changes anything holds the gate, says `Dirty` in the log first, and logs a
//! change of names or a cut before it is made in memory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Source;
use super::boot::Boot;
use super::log::Log;
use super::names::{Kind, Names, ROOT, Replace};
use super::node::{Node, State};
use super::record::Record;
use super::snapshot;
use super::start::{Durable, Start};
use crate::mount::MountError;

/// Permission bits of the root: mongod runs as the user that the server runs as.
const ROOT_MODE: u32 = 0o700;
/// The bits of a mode that are kept.
pub(super) const MODE_BITS: u32 = 0o777;

/// The overlay of one mount.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) directory: PathBuf,
    gate: RwLock<()>,
    names: RwLock<Names>,
    pub(super) log: Log,
    /// The log says `Dirty`.
    dirty: AtomicBool,
    touching: Mutex<()>,
    /// Held while the log is written anew.
    pub(super) rewriting: Mutex<()>,
    pub(super) below: RwLock<Arc<dyn Source>>,
    pub(super) sealed: Mutex<Seal>,
    pub(super) boot: Boot,
    /// Data files of nodes that are gone; they go when the log says on disk that those are.
    doomed: Mutex<Vec<PathBuf>>,
    closed: AtomicBool,
    pub(super) start: Start,
}

/// Whether a seal is held, and whether it holds changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    None,
    Held { changed: bool, pages: u64 },
}

/// What an overlay takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What its files take of the disk, bytes.
    pub bytes: u64,
    /// Pages of 4 KiB that differ from the version below; what is sealed and written again counts
    /// twice.
    pub pages_changed: u64,
}

/// The folder of the data files.
pub(super) fn files_in(overlay: &Path) -> PathBuf {
    overlay.join("files")
}

pub(super) fn data_path(overlay: &Path, node: u64) -> PathBuf {
    files_in(overlay).join(node.to_string())
}

impl Overlay {
    /// A fresh overlay on a source; durable [`Durable::AtOnce`], it is on the disk when this returns.
    /// Blocks.
    pub(super) fn create(
        source: Arc<dyn Source>,
        directory: &Path,
        durable: Durable,
    ) -> Result<Self, MountError> {
        fs::create_dir_all(directory).map_err(MountError::io("create", directory))?;
        let mut entries = fs::read_dir(directory).map_err(MountError::io("list", directory))?;
        if entries.next().is_some() {
            return Err(MountError::NotEmpty { path: directory.to_owned() });
        }
        let (names, mut records) = begin(&source, directory)?;
        let log = match durable {
            Durable::AtOnce => Log::create(directory, &records)?,
            Durable::AfterStart => {
                // Behind the one that must be the first.
                records.insert(1, Record::Starting);
                Log::begin(directory, &records)?
            }
        };
        let mut overlay = Self::over(directory, source, names, log, false, Boot::recording());
        overlay.start = Start::new(durable);
        Ok(overlay)
    }

    /// The same where there is one already, of which nothing counts.
    pub(super) fn create_anew(
        source: Arc<dyn Source>,
        directory: &Path,
    ) -> Result<Self, MountError> {
        let files = files_in(directory);
        match fs::remove_dir_all(&files) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(MountError::io("remove", &files)(error));
            }
            _ => {}
        }
        let (names, records) = begin(&source, directory)?;
        let log = Log::create(directory, &records)?;
        Ok(Self::over(directory, source, names, log, false, Boot::unseen()))
    }

    pub(super) fn over(
        directory: &Path,
        source: Arc<dyn Source>,
        names: Names,
        log: Log,
        dirty: bool,
        boot: Boot,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            gate: RwLock::default(),
            names: names.into(),
            log,
            dirty: dirty.into(),
            touching: Mutex::default(),
            rewriting: Mutex::default(),
            below: source.into(),
            sealed: Seal::None.into(),
            boot,
            doomed: Mutex::default(),
            closed: false.into(),
            start: Start::new(Durable::AtOnce),
        }
    }

    /// To be held while something is changed.
    pub(super) fn gate(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing changes while this is held.
    pub(super) fn close_gate(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names_mut(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sealed(&self) -> MutexGuard<'_, Seal> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says on the disk that something may change, once. Call it with the gate.
    pub(super) fn touch(&self) -> io::Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        if self.dirty.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.touching.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.dirty.load(Ordering::Acquire) {
            self.log.append(Record::Dirty)?;
            self.sync_first()?;
            self.dirty.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Nothing differs from the version below. Call it with the gate closed.
    pub(super) fn is_clean_again(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    /// Puts the log on the disk, then removes the data files that it needs no more.
    pub(super) fn sync_log(&self) -> io::Result<()> {
        let doomed = std::mem::take(&mut *self.doomed());
        if let Err(error) = self.log.sync() {
            self.doomed().extend(doomed);
            return Err(error);
        }
        for path in doomed {
            // One that stays is removed at the next start.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// Puts the log on the disk before something is done to a file, unless nothing of the overlay
    /// counts yet. To be called with the gate: then that stays so.
    pub(super) fn sync_first(&self) -> io::Result<()> {
        if self.start.is_settled() { self.sync_log() } else { Ok(()) }
    }

    /// Whether data files wait for [`Self::sync_log`].
    pub(super) fn has_doomed(&self) -> bool {
        self.start.is_settled() && !self.doomed().is_empty()
    }

    /// Puts it on the disk that there is an overlay, and its log.
    pub(super) fn persist(&self) -> io::Result<()> {
        self.sync_log()?;
        File::open(&self.directory)?.sync_all()
    }

    fn doomed(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the names of the data files on the disk.
    pub(super) fn sync_files(&self) -> io::Result<()> {
        File::open(files_in(&self.directory))?.sync_all()
    }

    pub(super) fn create_node(
        &self,
        parent: u64,
        name: &str,
        mode: u32,
        kind: Kind,
    ) -> io::Result<Arc<Node>> {
        let _gate = self.gate();
        self.touch()?;
        let mode = mode & MODE_BITS;
        let mut names = self.names_mut();
        names.may_create(parent, name)?;
        let (node, text) = (names.next(), name.to_owned());
        let (record, made) = match kind {
            Kind::File => {
                let path = data_path(&self.directory, node);
                let record = Record::File { node, parent, mode, origin: None, name: text };
                (record, Node::file(node, path, State::default()))
            }
            Kind::Directory => {
                (Record::Directory { node, parent, mode, name: text }, Node::directory(node))
            }
        };
        self.log.append(record)?;
        let made = Arc::new(made);
        names.add(made.clone(), parent, name, mode);
        names.changed = true;
        names.node(parent)?.modified_now();
        Ok(made)
    }

    pub(super) fn remove(&self, parent: u64, name: &str, kind: Kind) -> io::Result<()> {
        let _gate = self.gate();
        self.touch()?;
        let mut names = self.names_mut();
        let node = names.may_remove(parent, name, kind)?;
        self.log.append(Record::Remove { node })?;
        names.remove(node);
        names.changed = true;
        names.node(parent)?.modified_now();
        self.forget_orphan(&mut names, node);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        replace: Replace,
    ) -> io::Result<()> {
        let _gate = self.gate();
        self.touch()?;
        let mut names = self.names_mut();
        let (node, target) = names.may_rename(from, to, replace)?;
        self.log.append(Record::Rename { node, parent: to.0, name: to.1.to_owned() })?;
        if let Some(target) = target {
            names.remove(target);
        }
        names.rename(node, to.0, to.1);
        names.changed = true;
        for parent in [from.0, to.0] {
            names.node(parent)?.modified_now();
        }
        if let Some(target) = target {
            self.forget_orphan(&mut names, target);
        }
        Ok(())
    }

    pub(super) fn set_mode(&self, node: u64, mode: u32) -> io::Result<()> {
        let _gate = self.gate();
        self.touch()?;
        let mode = mode & MODE_BITS;
        let mut names = self.names_mut();
        if names.entry(node)?.mode != mode {
            // The root is in no version.
            if node != ROOT {
                self.log.append(Record::Mode { node, mode })?;
                names.changed = true;
            }
            names.set_mode(node, mode);
        }
        Ok(())
    }

    /// The kernel forgot a node.
    pub(super) fn forget(&self, node: u64, times: u64) {
        let mut names = self.names_mut();
        if names.node(node).is_ok_and(|node| node.forgotten(times)) {
            self.forget_orphan(&mut names, node);
        }
    }

    /// Lets go of a node that has no name and that nobody knows.
    fn forget_orphan(&self, names: &mut Names, node: u64) {
        if names.node(node).is_ok_and(|node| node.is_known()) {
            return;
        }
        let Some(node) = names.forget(node) else { return };
        // Where it cannot be kept open for a seal, that seal fails to read it.
        if node.lose_name().is_ok()
            && let Ok(path) = node.data_path()
        {
            self.doomed().push(path.clone());
        }
    }

    /// Its mount is gone: no kernel knows of any node, and who has no name is nobody's.
    pub(super) fn leave_kernel(&self) {
        let mut names = self.names_mut();
        names.nodes().for_each(|node| node.leave_kernel());
        for orphan in names.orphans() {
            self.forget_orphan(&mut names, orphan);
        }
    }

    /// The files that somebody has open.
    pub(super) fn open_paths(&self) -> Vec<String> {
        let names = self.names();
        let open = names.walk().into_iter().filter(|(_, entry)| entry.node.is_open());
        open.map(|(path, _)| path).collect()
    }

    /// Whether anything differs from the version below.
    pub(super) fn is_changed(&self) -> bool {
        matches!(*self.sealed(), Seal::Held { changed: true, .. }) || self.is_changed_since_seal()
    }

    /// The same, where a seal is held from what it holds.
    pub(super) fn is_changed_since_seal(&self) -> bool {
        let names = self.names();
        names.changed
            || names
                .walk_volume()
                .iter()
                .any(|(_, entry)| entry.node.read().is_ok_and(|state| state.touched))
    }

    pub(super) fn usage(&self) -> Result<Usage, MountError> {
        let mut usage = Usage::default();
        let files = files_in(&self.directory);
        let log = fs::metadata(self.directory.join("log"));
        usage.bytes += log.map_or(0, |facts| facts.blocks() * 512);
        for entry in fs::read_dir(&files).map_err(MountError::io("list", &files))? {
            // One that was removed meanwhile takes nothing.
            let facts = entry.and_then(|entry| entry.metadata());
            usage.bytes += facts.map_or(0, |facts| facts.blocks() * 512);
        }
        let changed = |node: &Arc<Node>| node.read().map_or(0, |state| state.changed.count());
        usage.pages_changed = self.names().nodes().map(changed).sum();
        if let Seal::Held { pages, .. } = *self.sealed() {
            usage.pages_changed += pages;
        }
        Ok(usage)
    }

    /// Ends the overlay: changes are refused, what was written is put on the disk, and its files are
    /// closed.
    pub(super) fn close(&self) -> Result<(), MountError> {
        let gate = self.close_gate();
        self.closed.store(true, Ordering::Release);
        drop(gate);
        let synced = self.settle().and_then(|()| self.sync_unsaid()).and_then(|()| self.sync_log());
        self.names().nodes().for_each(|node| {
            node.leave_direct();
            node.close();
        });
        synced.map_err(MountError::io("put on the disk", &self.directory))
    }
}

/// Makes the folder of a fresh overlay's data files; gives the names, and the records that its log is to
/// begin with.
fn begin(source: &Arc<dyn Source>, directory: &Path) -> Result<(Names, Vec<Record>), MountError> {
    let files = files_in(directory);
    DirBuilder::new().mode(0o700).create(&files).map_err(MountError::io("create", &files))?;
    let names = names_of(source, directory);
    let records = snapshot::records(&names, source.version(), snapshot::Dirty::No, None);
    Ok((names, records))
}

/// The names of a source's tree.
fn names_of(source: &Arc<dyn Source>, directory: &Path) -> Names {
    let tree = source.tree();
    let mut names = Names::new(ROOT_MODE);
    let mut parents = std::collections::HashMap::from([("", ROOT)]);
    for entry in tree.directories() {
        let (parent, name) =
            entry.path.as_str().rsplit_once('/').unwrap_or(("", entry.path.as_str()));
        let number = names.number_for(entry.path.as_str());
        parents.insert(entry.path.as_str(), number);
        names.add(Arc::new(Node::directory(number)), parents[parent], name, entry.mode);
    }
    for (index, entry) in tree.files().iter().enumerate() {
        let (parent, name) =
            entry.path.as_str().rsplit_once('/').unwrap_or(("", entry.path.as_str()));
        let number = names.number_for(entry.path.as_str());
        let state = State::of_source(source.clone(), index, entry.bytes);
        let node = Node::file(number, data_path(directory, number), state);
        names.add(Arc::new(node), parents[parent], name, entry.mode);
    }
    names
}

/// The root's mode, for a recovered overlay.
pub(super) fn empty_names() -> Names {
    Names::new(ROOT_MODE)
}
