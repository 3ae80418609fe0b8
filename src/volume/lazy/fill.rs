//! The rest of a volume comes in the background, so that later reads are local.

use tokio_util::sync::CancellationToken;

use super::super::error::VolumeError;
use super::super::fetch::{Batch, Wanted, plan};
use super::super::pack::PackKind;
use super::super::page::PAGE_BLOCKS;
use super::LazyVolume;
use crate::base::parallel::parallel;

/// Index pages whose blocks are looked for together.
const PAGES: usize = 8;
/// Range reads at a time: 4 MiB each, and 8 once decoded.
const PARALLEL: usize = 2;

/// What a fill brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Blocks that were not here before.
    pub blocks: u64,
    /// Bytes that were read of the store for them.
    pub bytes: u64,
}

impl LazyVolume {
    /// Brings every block into the cache on disk, a few at a time, and none while somebody waits for
    /// the store. Ends early where the cache is full, for what is there was asked for, or when
    /// cancelled. Without a cache there is nothing to do.
    ///
    /// # Errors
    /// The first failure ends it.
    pub async fn fill(&self, cancel: CancellationToken) -> Result<Filled, VolumeError> {
        let mut filled = Filled::default();
        match cancel.run_until_cancelled(self.fill_all(&mut filled)).await {
            Some(Err(error)) => Err(error),
            Some(Ok(())) | None => Ok(filled),
        }
    }

    async fn fill_all(&self, filled: &mut Filled) -> Result<(), VolumeError> {
        let files = 0..self.tree.files().len();
        let pages =
            files.flat_map(|file| (0..self.pages.count(file)).map(move |page| (file, page)));
        for some in pages.collect::<Vec<_>>().chunks(PAGES) {
            let reading = self.pages.reading();
            match self.fill_pages(some, filled).await {
                Err(error) if error.is_missing() => {
                    self.refresh(Some(reading)).await?;
                    self.fill_pages(some, filled).await?;
                }
                done => done?,
            }
            if !self.has_room() {
                break;
            }
        }
        Ok(())
    }

    async fn fill_pages(
        &self,
        pages: &[(usize, u64)],
        filled: &mut Filled,
    ) -> Result<(), VolumeError> {
        let unread = pages.iter().filter_map(|(file, page)| self.pages.unread_page(*file, *page));
        self.reads().calm().await;
        self.load_pages(unread.collect()).await?;
        let mut batches = plan(self.blocks_not_here(pages)).into_iter();
        loop {
            let some: Vec<Batch> = batches.by_ref().take(PARALLEL).collect();
            if some.is_empty() || !self.has_room() {
                return Ok(());
            }
            self.reads().calm().await;
            for batch in &some {
                filled.blocks += batch.wanted.len() as u64;
                filled.bytes += batch.bytes();
            }
            let fetches = some.into_iter().map(|batch| {
                let (volumes, name) = (self.volumes.clone(), self.names.block.clone());
                async move {
                    let (reads, store) = (&volumes.reads, &*volumes.store);
                    let contents = reads.batch(store, PackKind::Blocks, &batch, &name).await?;
                    contents.into_iter().try_for_each(|content| content.map(drop))
                }
            });
            parallel(PARALLEL, fetches.collect::<Vec<_>>()).await?;
        }
    }

    fn blocks_not_here(&self, pages: &[(usize, u64)]) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for &(file, number) in pages {
            let Some(page) = self.pages.page(file, number).content else { continue };
            let first = number * PAGE_BLOCKS as u64;
            wanted.extend((first..).zip(page.blocks()).filter_map(|(index, reference)| {
                let reference = reference?;
                let here = self.reads().is_cached(&reference.frame);
                (!here).then_some(Wanted { reference, file, index })
            }));
        }
        wanted
    }

    fn has_room(&self) -> bool {
        self.reads().cache().is_some_and(|cache| cache.has_room())
    }
}
