//! Which blocks were read while mongod started.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::limits::BLOCK_BYTES;

/// Most blocks of a boot set: 1 GiB, far above what a start reads.
const BLOCKS_MAX: usize = 16 * 1024;

/// The record of a mount's reads up to the end of the start.
#[derive(Debug)]
pub(super) struct Boot {
    recording: AtomicBool,
    /// None where the mount saw no start of its own.
    read: Option<Mutex<BTreeSet<(u64, u64)>>>,
}

impl Boot {
    pub(super) fn recording() -> Self {
        Self { recording: true.into(), read: Some(Mutex::default()) }
    }

    pub(super) fn unseen() -> Self {
        Self { recording: false.into(), read: None }
    }

    pub(super) fn done(&self) {
        self.recording.store(false, Ordering::Relaxed);
    }

    /// A node was read.
    pub(super) fn saw(&self, node: u64, offset: u64, length: usize) {
        if length == 0 || !self.recording.load(Ordering::Relaxed) {
            return;
        }
        let Some(read) = &self.read else { return };
        let (block, last) = (BLOCK_BYTES as u64, offset + length as u64 - 1);
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        read.extend((offset / block..=last / block).map(|index| (node, index)));
        if read.len() > BLOCKS_MAX {
            self.done();
        }
    }

    /// Node and block, ascending.
    pub(super) fn blocks(&self) -> Option<Vec<(u64, u64)>> {
        let read = self.read.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(read.iter().copied().collect())
    }
}
