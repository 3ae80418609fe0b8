//! Which blocks were read while mongod started, and which it is to read when it starts next.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::limits::BLOCK_BYTES;

/// Most blocks of a boot set: 1 GiB, far above what a start reads.
const BLOCKS_MAX: usize = 16 * 1024;

/// So many blocks of a file that were written last are known: the root of a checkpoint and the lists beside
/// it are about as many writes.
const LAST_BLOCKS: usize = 4;

/// The blocks of a file that were written last before it was synced last. WiredTiger writes the root of a
/// table's checkpoint last, then syncs the file; a start reads that first, and nothing tells where it is.
#[derive(Debug, Default)]
pub(super) struct LastWritten(Mutex<[Blocks; 2]>);

/// Ended by the newest.
type Blocks = [Option<u64>; LAST_BLOCKS];

impl LastWritten {
    pub(super) fn wrote(&self, start: u64, end: u64) {
        let [written, _] = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for block in start / BLOCK_BYTES as u64..end.div_ceil(BLOCK_BYTES as u64) {
            let known = written.iter().position(|known| *known == Some(block));
            written[known.unwrap_or(0)..].rotate_left(1);
            written[LAST_BLOCKS - 1] = Some(block);
        }
    }

    pub(super) fn synced(&self) {
        let [written, synced] = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *synced = *written;
    }

    /// In no order; some may lie behind the end by now.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        let [_, synced] = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        synced.into_iter().flatten()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_blocks_before_the_last_sync_are_known() {
        let last = LastWritten::default();
        let known = || {
            let mut blocks: Vec<_> = last.blocks().collect();
            blocks.sort_unstable();
            blocks
        };
        let block = BLOCK_BYTES as u64;
        last.wrote(3 * block, 3 * block + 1);
        assert_eq!(known(), [0; 0], "not synced");
        last.synced();
        assert_eq!(known(), [3]);
        (5..9).for_each(|index| last.wrote(index * block, index * block + 10));
        assert_eq!(known(), [3], "a table is written to before its next checkpoint, too");
        last.wrote(5 * block + 10, 6 * block + 20);
        last.wrote(10 * block - 1, 10 * block + 1);
        last.synced();
        assert_eq!(known(), [5, 6, 9, 10]);
    }
}
