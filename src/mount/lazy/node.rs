//! A file or directory of a mount, and what is known of a file's pages.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use fuser::BackingId;

use super::Source;
use super::aside::Aside;
use super::boot::LastWritten;
use super::direct::Seen;
use super::pages::{PAGE_BYTES, PageMap};

/// A file or directory, with or without a name.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    content: Option<Content>,
    /// How often the kernel learnt of it and did not forget it.
    lookups: AtomicU64,
    /// How often it is open.
    opens: AtomicU64,
    /// What the kernel reads and writes by itself, where it does. Held while it is opened and closed.
    pub(super) backing: Mutex<Option<Arc<BackingId>>>,
    times: Mutex<Times>,
    /// What of it the next start reads, most likely.
    pub(super) last: LastWritten,
}

/// In memory only: no version holds them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) accessed: SystemTime,
    pub(super) modified: SystemTime,
    pub(super) changed: SystemTime,
}

#[derive(Debug)]
struct Content {
    /// The data file.
    path: PathBuf,
    state: RwLock<State>,
}

/// The file of the version below that a file goes back to.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) source: Arc<dyn Source>,
    pub(super) file: usize,
}

/// What is known of a file's content.
///
/// A page is *local* when its content is in the data file: it is `present`, or lies behind what of
/// the source still counts. Any other page is the source's up to `source_bytes`, and zero from there
/// on; the data file has a hole there.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) bytes: u64,
    pub(super) origin: Option<Origin>,
    /// How much of the origin still counts. Never more than `bytes`.
    pub(super) source_bytes: u64,
    pub(super) present: PageMap,
    /// Differs from the version below; since a seal, from what was sealed.
    pub(super) changed: PageMap,
    /// Present, and the log does not say so yet.
    pub(super) unlogged: PageMap,
    /// The size or a page differs, as above.
    pub(super) touched: bool,
    /// What the log says that the data file has at least; none: it says nothing of it.
    pub(super) floor: Option<u64>,
    /// The size that the file was cut to, where it was cut below what the source or the log has.
    pub(super) cut: Option<u64>,
    /// How often that happened.
    pub(super) cuts: u64,
    pub(super) guard: Option<Guard>,
    /// The data file is there, as long as the file.
    pub(super) has_data: bool,
    data: Option<Arc<File>>,
    /// The kernel reads and writes the data file by itself: how it was when it was last looked at.
    pub(super) direct: Option<Seen>,
    /// The kernel keeps what may be older than the data file.
    pub(super) is_unknown_to_cache: bool,
    /// The data file has no name any more: once closed it is lost.
    unnamed: bool,
}

/// What a seal needs of a file that goes on being written.
#[derive(Debug)]
pub(super) struct Guard {
    /// Sealed pages that are still only in the data file.
    pub(super) pages: PageMap,
    pub(super) aside: Arc<Aside>,
    /// The smallest size that the file was cut to since.
    pub(super) shrunk: u64,
}

impl Node {
    pub(super) fn directory(number: u64) -> Self {
        Self::new(number, None)
    }

    pub(super) fn file(number: u64, path: PathBuf, state: State) -> Self {
        Self::new(number, Some(Content { path, state: state.into() }))
    }

    fn new(number: u64, content: Option<Content>) -> Self {
        let now = SystemTime::now();
        let times = Times { accessed: now, modified: now, changed: now };
        let (lookups, opens) = (AtomicU64::new(0), AtomicU64::new(0));
        let (backing, last) = Default::default();
        Self { number, content, lookups, opens, backing, times: times.into(), last }
    }

    pub(super) fn is_file(&self) -> bool {
        self.content.is_some()
    }

    fn content(&self) -> io::Result<&Content> {
        self.content.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))
    }

    pub(super) fn read(&self) -> io::Result<RwLockReadGuard<'_, State>> {
        let state = self.content()?.state.read().unwrap_or_else(PoisonError::into_inner);
        if state.direct.is_none() {
            return Ok(state);
        }
        drop(state);
        self.write().map(RwLockWriteGuard::downgrade)
    }

    pub(super) fn write(&self) -> io::Result<RwLockWriteGuard<'_, State>> {
        let mut state = self.content()?.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.learn()? {
            self.modified_now();
        }
        Ok(state)
    }

    /// Whether the kernel writes it by itself.
    pub(super) fn is_direct(&self) -> bool {
        self.content().is_ok_and(|content| {
            content.state.read().unwrap_or_else(PoisonError::into_inner).direct.is_some()
        })
    }

    /// A file's size; of a directory none.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.read().ok().map(|state| state.bytes)
    }

    pub(super) fn has_origin(&self) -> bool {
        self.read().is_ok_and(|state| state.source_bytes > 0)
    }

    pub(super) fn origin(&self) -> Option<Origin> {
        self.read().ok().and_then(|state| state.origin.clone())
    }

    /// The state, with the data file open where there is one.
    pub(super) fn opened(&self) -> io::Result<RwLockReadGuard<'_, State>> {
        loop {
            let state = self.read()?;
            if state.data.is_some() || !state.has_data {
                return Ok(state);
            }
            drop(state);
            self.data(&mut *self.write()?)?;
        }
    }

    /// The data file, made where it is not there yet, as long as the file is.
    pub(super) fn data(&self, state: &mut State) -> io::Result<Arc<File>> {
        if let Some(data) = &state.data {
            return Ok(data.clone());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(!state.has_data).mode(0o600);
        let data = Arc::new(options.open(&self.content()?.path)?);
        if !state.has_data {
            data.set_len(state.bytes)?;
            state.has_data = true;
        }
        state.data = Some(data.clone());
        Ok(data)
    }

    pub(super) fn data_path(&self) -> io::Result<&PathBuf> {
        Ok(&self.content()?.path)
    }

    /// The data file is about to lose its name: keeps it open where a seal needs it.
    pub(super) fn lose_name(&self) -> io::Result<()> {
        let mut state = self.write()?;
        if state.guard.is_some() && state.has_data {
            self.data(&mut state)?;
        }
        state.unnamed = true;
        Ok(())
    }

    /// Closes the data file; it is opened again when it is needed.
    pub(super) fn close(&self) {
        if let Ok(mut state) = self.write()
            && !state.unnamed
        {
            state.data = None;
        }
    }

    pub(super) fn opened_once_more(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens.load(Ordering::Relaxed) > 0
    }

    /// One that had it open has not any more; whether nobody has.
    pub(super) fn is_closed_by_all(&self) -> bool {
        self.opens.fetch_sub(1, Ordering::Relaxed) == 1
    }

    pub(super) fn looked_up(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the kernel knows it no more.
    pub(super) fn forgotten(&self, times: u64) -> bool {
        self.lookups.fetch_sub(times, Ordering::Relaxed) == times
    }

    pub(super) fn is_known(&self) -> bool {
        self.lookups.load(Ordering::Relaxed) > 0
    }

    /// The kernel knows and has open by this node what it knew and had open by another: its mount
    /// shows this one now.
    pub(super) fn stand_in_for(&self, other: &Node) {
        self.lookups.store(other.lookups.load(Ordering::Relaxed), Ordering::Relaxed);
        self.opens.store(other.opens.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// No kernel knows of it, and nobody has it open: its mount is gone.
    pub(super) fn leave_kernel(&self) {
        self.leave_direct();
        self.lookups.store(0, Ordering::Relaxed);
        self.opens.store(0, Ordering::Relaxed);
    }

    pub(super) fn times(&self) -> Times {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_times(&self, set: impl FnOnce(&mut Times)) {
        set(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn modified_now(&self) {
        let now = SystemTime::now();
        self.set_times(|times| (times.modified, times.changed) = (now, now));
    }
}

impl State {
    /// A file as it is in the version below.
    pub(super) fn of_source(source: Arc<dyn Source>, file: usize, bytes: u64) -> Self {
        let origin = Some(Origin { source, file });
        Self { bytes, origin, source_bytes: bytes, ..Self::default() }
    }

    /// Takes in what the kernel wrote by itself; whether it did.
    fn learn(&mut self) -> io::Result<bool> {
        let Some(known) = self.direct else { return Ok(false) };
        let seen = Seen::of(self.open_data()?)?;
        self.direct = Some(seen);
        if seen.is_same(&known) {
            return Ok(false);
        }
        self.bytes = seen.bytes;
        self.changed.insert_range(0, seen.bytes.div_ceil(PAGE_BYTES));
        self.touched = true;
        Ok(true)
    }

    /// The data file has something that the log does not say.
    pub(super) fn is_unsaid(&self) -> bool {
        self.has_data && (self.floor.is_none() || !self.unlogged.is_empty())
    }

    pub(super) fn is_local(&self, page: u64) -> bool {
        page * PAGE_BYTES >= self.source_bytes || self.present.has(page)
    }

    /// The data file, where it is open.
    pub(super) fn open_data(&self) -> io::Result<&Arc<File>> {
        let missing = || io::Error::other("a page is local and its data file is not open");
        self.data.as_ref().ok_or_else(missing)
    }

    /// The first page behind what of the source still counts.
    pub(super) fn source_end(&self) -> u64 {
        self.source_bytes.div_ceil(PAGE_BYTES)
    }
}
