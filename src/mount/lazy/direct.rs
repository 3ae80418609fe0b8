//! Files that the kernel reads and writes by itself (FUSE passthrough): mongod's open journal, which
//! takes every write and is synced for each that must be durable. The server is still asked for
//! everything else: names, sizes that are set, syncs.
//!
//! Such a write passes by the gate and the page maps. So of a direct file all pages count as changed
//! when it changed at all, a seal copies it whole while the gate is closed, and the log says `Dirty` as
//! long as it is open. What a seal gets of it may be younger than what it gets of other files, as after
//! any crash: a journal is written before what it describes, and ends at its first hole.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{BackingId, OpenAccMode, OpenFlags};

use super::names::{Names, ROOT};
use super::node::Node;
use super::overlay::Overlay;

/// Where mongod's journal is, and how its files begin. They are appended to, and small: what is copied
/// of one for a seal is 2 MB as a rule (`compute::launch`).
const FOLDER: &str = "journal";
const PREFIX: &str = "WiredTigerLog.";
/// Of a file that was written so short a time ago the next write may leave the same time: kernels count
/// by ticks of up to 10 ms.
const RECENT: Duration = Duration::from_millis(20);

/// By what is known whether a file changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) bytes: u64,
    /// Seconds and nanoseconds; none where that says nothing.
    modified: Option<(i64, i64)>,
}

impl Seen {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let facts = file.metadata()?;
        let (seconds, nanoseconds) = (facts.mtime(), facts.mtime_nsec());
        let age = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| {
            now.checked_sub(Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?))
        });
        let is_old = age.is_some_and(|age| age > RECENT);
        let modified = is_old.then_some((seconds, nanoseconds));
        Ok(Self { bytes: facts.len(), modified })
    }

    /// Whether nothing was written between two looks.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.modified.is_some() && self.modified == other.modified
    }
}

/// How a file is opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// The kernel reads and writes this by itself.
    Direct(Arc<BackingId>),
    /// It asks for what it does not keep.
    AsKept,
    /// It forgets what it keeps, and asks.
    Anew,
}

/// Whether a file may be opened directly at all.
fn is_journal(names: &Names, node: u64) -> bool {
    let is_file_of_it = |node| {
        let entry = names.entry(node).ok()?;
        let folder = names.entry(entry.parent).ok()?;
        let is_in_it = folder.parent == ROOT && folder.name == FOLDER && entry.linked;
        Some(is_in_it && entry.name.starts_with(PREFIX))
    };
    is_file_of_it(node).unwrap_or(false)
}

impl Overlay {
    /// Says how a file is opened. `register` makes a file known to the kernel, where that can be.
    pub(super) fn open_file(
        &self,
        node: &Node,
        flags: OpenFlags,
        register: Option<impl FnOnce(&File) -> io::Result<BackingId>>,
    ) -> io::Result<Opened> {
        let _gate = self.gate();
        let may_be_direct =
            flags.acc_mode() != OpenAccMode::O_RDONLY && is_journal(&self.names(), node.number);
        let mut backing = node.backing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(register) = register
            && may_be_direct
            && backing.is_none()
            && !node.is_open()
        {
            self.touch()?;
            let mut state = node.write()?;
            // What was sealed, or is another's in part, is written by the page.
            if state.guard.is_none() && state.source_bytes == 0 {
                let data = node.data(&mut state)?;
                match register(&data) {
                    Ok(registered) => {
                        state.direct = Some(Seen::of(&data)?);
                        *backing = Some(Arc::new(registered));
                    }
                    // It goes without.
                    Err(error) => tracing::debug!(%error, "open a journal directly"),
                }
            }
        }
        node.opened_once_more();
        if let Some(backing) = &*backing {
            return Ok(Opened::Direct(backing.clone()));
        }
        let is_old = node.read().is_ok_and(|state| state.is_unknown_to_cache);
        if !is_old {
            return Ok(Opened::AsKept);
        }
        node.write()?.is_unknown_to_cache = false;
        Ok(Opened::Anew)
    }

    /// Whether something may be written that nothing here is told of. Call it with the gate closed:
    /// then that stays so.
    pub(super) fn has_direct(&self) -> bool {
        let is_direct = |node: &Arc<Node>| node.is_direct();
        self.names().nodes().any(is_direct)
    }
}

impl Node {
    /// One that had it open has closed it. With the last one its data file is closed, and is no longer
    /// direct.
    pub(super) fn closed_once(&self) {
        let mut backing = self.backing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed_by_all() {
            self.end_direct();
            *backing = None;
            self.close();
        }
    }

    /// Takes stock of what was written, for the last time.
    fn end_direct(&self) {
        if let Ok(mut state) = self.write()
            && state.direct.take().is_some()
        {
            state.is_unknown_to_cache = true;
        }
    }

    /// Nobody has it open any more, and there is no kernel to say so.
    pub(super) fn leave_direct(&self) {
        let mut backing = self.backing.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_direct();
        *backing = None;
    }
}
