//! A wake's first reads: the boot set and the index pages that it touches, all at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::super::error::VolumeError;
use super::super::fetch::{Wanted, plan_reads};
use super::super::pack::PackKind;
use super::super::page::PAGE_BLOCKS;
use super::LazyVolume;
use crate::base::parallel::parallel;

/// Range reads at a time: several streams fill a link that one does not.
const PARALLEL: usize = 16;
/// Bytes of one, at least where there are so many, and at most.
const READ_BYTES: [u64; 2] = [1024 * 1024, 4 * 1024 * 1024];
/// Of a file with no more index pages than this, 2 GB, all are read: one takes 10 KB.
const WHOLE_FILE_PAGES: u64 = 128;
/// How long blocks are held in memory that no cache on disk took. mongod has asked for them by then.
const HELD_FOR: Duration = Duration::from_secs(60);
/// Most bytes of them.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a wake has at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootFetched {
    /// Blocks of the boot set.
    pub blocks: u64,
    /// Those that were not on this machine.
    pub fetched: u64,
    /// Bytes that were read of the store for them.
    pub bytes: u64,
    /// In so many reads.
    pub reads: u64,
}

/// Blocks in memory, for a while.
#[derive(Debug, Default)]
pub struct Held(Mutex<HashMap<blake3::Hash, Bytes>>);

impl Held {
    /// The block with this hash.
    pub fn find(&self, hash: &blake3::Hash) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    fn hold(self: &Arc<Self>, blocks: Vec<(blake3::Hash, Bytes)>) {
        if blocks.is_empty() {
            return;
        }
        let mut left = HELD_BYTES_MAX;
        let fits = blocks.into_iter().take_while(|(_, block)| {
            let fits = block.len() <= left;
            left = left.saturating_sub(block.len());
            fits
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(fits);
        // Ends by itself; the blocks go with the volume if that goes first.
        let held = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(HELD_FOR).await;
            if let Some(held) = held.upgrade() {
                held.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        });
    }
}

impl LazyVolume {
    /// Brings the boot set to this machine, so that mongod's start asks the store for nothing: its
    /// blocks, and the index pages that they need, in one round trip as a rule. The other pages of the
    /// same files come along: mongod samples its oplog at random, and a page that is not here makes two
    /// round trips of each sample.
    ///
    /// # Errors
    /// The store fails. Nothing is lost but time: each block can still be read alone.
    pub async fn fetch_boot(&self) -> Result<BootFetched, VolumeError> {
        let reading = self.pages.reading();
        match self.try_fetch_boot().await {
            Err(error) if error.is_missing() => {
                self.refresh(Some(reading)).await?;
                self.try_fetch_boot().await
            }
            fetched => fetched,
        }
    }

    async fn try_fetch_boot(&self) -> Result<BootFetched, VolumeError> {
        let _demand = self.reads().waiting();
        let boot = self.pages.boot();
        let pages = boot.iter().map(|one| (one.file, one.index / PAGE_BLOCKS as u64));
        let needed: BTreeSet<_> = pages.collect();
        let beside = self.pages_beside(&needed);
        let pages = needed.iter().filter_map(|(file, page)| self.pages.unread_page(*file, *page));
        let pages = self.load_pages(pages.chain(beside).collect());
        let (pages, blocks) = tokio::join!(pages, self.fetch_boot_blocks(&boot));
        pages?;
        blocks
    }

    /// The other pages of the same files, as far as they are not on this machine.
    fn pages_beside(&self, needed: &BTreeSet<(usize, u64)>) -> Vec<Wanted> {
        let files: BTreeSet<usize> = needed.iter().map(|(file, _)| *file).collect();
        let small = files.into_iter().filter(|file| self.pages.count(*file) <= WHOLE_FILE_PAGES);
        let all = small.flat_map(|file| (0..self.pages.count(file)).map(move |page| (file, page)));
        let others = all.filter(|place| !needed.contains(place));
        let unread = others.filter_map(|(file, page)| self.pages.unread_page(file, page));
        unread.filter(|page| !self.reads().is_cached(&page.reference.frame)).collect()
    }

    async fn fetch_boot_blocks(&self, boot: &[Wanted]) -> Result<BootFetched, VolumeError> {
        let away = |one: &&Wanted| {
            let frame = &one.reference.frame;
            !self.reads().is_cached(frame) && self.held.find(&frame.hash).is_none()
        };
        let away: Vec<_> = boot.iter().filter(away).copied().collect();
        let mut fetched = BootFetched { blocks: boot.len() as u64, ..BootFetched::default() };
        fetched.fetched = away.len() as u64;
        // All at once, if that can be.
        let stored: u64 = away.iter().map(|one| u64::from(one.reference.frame.stored)).sum();
        let [least, most] = READ_BYTES;
        let share = stored / (PARALLEL as u64 - 1);
        let batches = plan_reads(away, share.clamp(least, most));
        fetched.reads = batches.len() as u64;
        fetched.bytes = batches.iter().map(|batch| batch.bytes()).sum();
        let fetches = batches.into_iter().map(|batch| {
            let (volumes, name) = (self.volumes.clone(), self.names.block.clone());
            async move {
                let (reads, store) = (&volumes.reads, &*volumes.store);
                let contents = reads.batch(store, PackKind::Blocks, &batch, &name).await?;
                let mut homeless = Vec::new();
                for (wanted, content) in batch.wanted.iter().zip(contents) {
                    let content = content?;
                    if !reads.is_cached(&wanted.reference.frame) {
                        homeless.push((wanted.reference.frame.hash, content));
                    }
                }
                Ok::<_, VolumeError>(homeless)
            }
        });
        let homeless = parallel(PARALLEL, fetches.collect::<Vec<_>>()).await?;
        self.held.hold(homeless.into_iter().flatten().collect());
        Ok(fetched)
    }
}
