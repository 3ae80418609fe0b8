//! The blocks that were read last, in memory: mongod asks for a block in pieces.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most bytes of blocks that are kept, for all branches together.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Verified blocks by their hashes. The one that was not used for the longest time goes first.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    blocks: HashMap<blake3::Hash, (Bytes, Used)>,
    /// In the order in which they are looked at when room is needed.
    queue: VecDeque<blake3::Hash>,
    bytes: usize,
}

/// Whether a block was used since it was looked at.
type Used = bool;

impl Recent {
    /// The block with this hash.
    pub fn find(&self, hash: &blake3::Hash) -> Option<Bytes> {
        let mut kept = self.lock();
        let (block, used) = kept.blocks.get_mut(hash)?;
        *used = true;
        Some(block.clone())
    }

    /// Keeps a block, which must hold no more memory than its own bytes.
    pub fn insert(&self, hash: blake3::Hash, block: Bytes) {
        let mut kept = self.lock();
        let added = block.len();
        if kept.blocks.insert(hash, (block, false)).is_some() {
            return;
        }
        kept.queue.push_back(hash);
        kept.bytes += added;
        while kept.bytes > BYTES_MAX
            && let Some(next) = kept.queue.pop_front()
        {
            match kept.blocks.get_mut(&next) {
                Some((_, used)) if *used => {
                    *used = false;
                    kept.queue.push_back(next);
                }
                _ => {
                    let gone = kept.blocks.remove(&next);
                    kept.bytes -= gone.map_or(0, |(block, _)| block.len());
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_there_is_never_too_much() {
        let recent = Recent::default();
        let block = Bytes::from(vec![7; 65_536]);
        let hash = |number: u32| blake3::hash(&number.to_le_bytes());
        for number in 0..2_000 {
            recent.insert(hash(number), block.clone());
            recent.insert(hash(number), block.clone());
            assert!(recent.find(&hash(0)).is_some());
            let kept = recent.lock();
            assert_eq!(kept.bytes, kept.blocks.len() * 65_536);
            assert!(kept.bytes <= BYTES_MAX && kept.queue.len() == kept.blocks.len());
        }
        assert!(recent.find(&hash(1)).is_none() && recent.find(&hash(1_999)).is_some());
    }
}
