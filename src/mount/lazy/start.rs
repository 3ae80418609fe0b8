//! From when on an overlay is durable.
//!
//! While mongod starts on a fresh mount, whatever it syncs is nobody's yet: no client has written, and
//! the version below is the whole state. So nothing of it is brought to the disk (a start has some
//! thirty syncs) before the first client may write. From then on every sync first does what was left
//! undone. A log that says that a start began, and not that it ended, is found as a fresh overlay.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::node::Node;
use super::overlay::Overlay;
use super::record::Record;

/// From when on an overlay keeps what it is told to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// From its beginning.
    AtOnce,
    /// From the end of its mongod's start.
    AfterStart,
}

/// mongod starts: a sync does nothing.
const STARTING: u8 = 0;
/// Clients may write: the next sync does all that was left undone.
const OWING: u8 = 1;
/// A sync does what it says.
const SETTLED: u8 = 2;

/// How far an overlay is: it only goes on.
#[derive(Debug)]
pub(super) struct Start {
    phase: AtomicU8,
    /// Held by whoever does what was left undone.
    settling: Mutex<()>,
}

impl Start {
    pub(super) fn new(durable: Durable) -> Self {
        let phase = match durable {
            Durable::AtOnce => SETTLED,
            Durable::AfterStart => STARTING,
        };
        Self { phase: phase.into(), settling: Mutex::default() }
    }

    /// Whether a sync does what it says.
    pub(super) fn is_settled(&self) -> bool {
        self.phase.load(Ordering::Acquire) == SETTLED
    }

    /// Whether a sync has nothing to do.
    pub(super) fn is_starting(&self) -> bool {
        self.phase.load(Ordering::Acquire) == STARTING
    }

    /// From now on there is something to keep.
    pub(super) fn is_over(&self) {
        let (starting, owing) = (STARTING, OWING);
        // Where it is over already, it stays what it is.
        let _ = self.phase.compare_exchange(starting, owing, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Overlay {
    /// Ends the start: puts on the disk what it did not. Every sync from now on waits for that, and
    /// tries again where it failed.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.start.is_over();
        if self.start.is_settled() {
            return Ok(());
        }
        let _one = self.start.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.start.is_settled() {
            return Ok(());
        }
        // Most of it while writes go on.
        self.sync_unsaid()?;
        // Who changes something knows by the gate whether it is to be synced.
        let _closed = self.close_gate();
        self.sync_unsaid()?;
        self.log.append(Record::Started)?;
        self.persist()?;
        self.start.phase.store(SETTLED, Ordering::Release);
        Ok(())
    }

    /// Puts on the disk what the log does not say to be there.
    pub(super) fn sync_unsaid(&self) -> io::Result<()> {
        let nodes: Vec<Arc<Node>> = self.names().nodes().cloned().collect();
        let unsaid = |node: &&Arc<Node>| node.read().is_ok_and(|state| state.is_unsaid());
        let unsaid: Vec<&Node> = nodes.iter().filter(unsaid).map(|node| &**node).collect();
        self.sync_content(&unsaid)
    }
}
