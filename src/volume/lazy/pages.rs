//! The index pages of a lazy volume: where each is, and what those say that were needed so far.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::compact::CompactPage;
use super::super::error::VolumeError;
use super::super::fetch::{Wanted, ahead, plan};
use super::super::format::FormatError;
use super::super::keys;
use super::super::pack::PackKind;
use super::super::page::{PAGE_BLOCKS, covered_by};
use super::super::reference::Reference;
use super::super::version::Root;
use super::LazyVolume;
use crate::base::blocking::blocking;
use crate::base::parallel::parallel;

/// Range reads of pages at a time.
const PARALLEL: usize = 16;
/// Pages that are read along with one at most, itself included, where there is a cache to keep them.
const AHEAD_PAGES: usize = 8;
/// The same, in bytes.
const AHEAD_STORED_MAX: u64 = 128 * 1024;

/// All pages of a version.
#[derive(Debug)]
pub struct Pages(RwLock<Known>);

#[derive(Debug)]
struct Known {
    /// How often the root was read.
    reading: u64,
    files: Vec<Vec<KnownPage>>,
    /// The boot set, and where to read it.
    boot: Arc<[Wanted]>,
}

/// What is known of a page.
#[derive(Clone, Debug, Default)]
pub struct KnownPage {
    /// Where it is; none where all of it is zero.
    pub reference: Option<Reference>,
    /// What it says, once that was read.
    pub content: Option<Arc<CompactPage>>,
}

/// Where a block is.
#[derive(Debug)]
pub enum Place {
    /// Nowhere: it is zero, or past the end.
    Zero,
    /// Here.
    At(Reference),
    /// As this page says, which must be read first.
    In(Wanted),
}

impl Pages {
    /// The pages of each file, and the boot set.
    pub fn new(files: Vec<Vec<KnownPage>>, boot: Vec<Wanted>) -> Self {
        Self(RwLock::new(Known { reading: 0, files, boot: boot.into() }))
    }

    /// The pages as a root has them, none of them read.
    pub fn unread(files: Vec<Vec<Option<Reference>>>, boot: Vec<Wanted>) -> Self {
        let unread = |reference| KnownPage { reference, content: None };
        let files = files.into_iter().map(|pages| pages.into_iter().map(unread).collect());
        Self::new(files.collect(), boot)
    }

    /// The boot set, each block with where a wake reads it.
    pub fn boot(&self) -> Arc<[Wanted]> {
        self.known().boot.clone()
    }

    /// Sets the boot set.
    pub fn set_boot(&self, boot: Vec<Wanted>) {
        self.known_mut().boot = boot.into();
    }

    /// Where all pages are.
    pub fn references(&self) -> Vec<Vec<Option<Reference>>> {
        let of_file = |pages: &Vec<KnownPage>| pages.iter().map(|page| page.reference).collect();
        self.known().files.iter().map(of_file).collect()
    }

    /// Which reading of the root this is.
    pub fn reading(&self) -> u64 {
        self.known().reading
    }

    /// Where a block is.
    pub fn place(&self, file: usize, index: u64) -> Place {
        let (page, block) = (index / PAGE_BLOCKS as u64, (index % PAGE_BLOCKS as u64) as usize);
        match self.page(file, page) {
            KnownPage { reference: None, .. } => Place::Zero,
            KnownPage { content: Some(content), .. } => {
                content.block(block).map_or(Place::Zero, Place::At)
            }
            KnownPage { reference: Some(reference), .. } => {
                Place::In(Wanted { reference, file, index: page })
            }
        }
    }

    /// A page of a file; one of zeroes past its end.
    pub fn page(&self, file: usize, page: u64) -> KnownPage {
        let known = self.known();
        known.files[file].get(page as usize).cloned().unwrap_or_default()
    }

    /// What must be read before a page's blocks are known; none where they are.
    pub fn unread_page(&self, file: usize, page: u64) -> Option<Wanted> {
        match self.page(file, page) {
            KnownPage { reference: Some(reference), content: None } => {
                Some(Wanted { reference, file, index: page })
            }
            _ => None,
        }
    }

    /// How many pages a file has.
    pub fn count(&self, file: usize) -> u64 {
        self.known().files[file].len() as u64
    }

    /// Takes a page that was read, if it still lies there.
    fn adopt(&self, wanted: &Wanted, content: CompactPage) {
        let mut known = self.known_mut();
        let page = &mut known.files[wanted.file][wanted.index as usize];
        if page.reference == Some(wanted.reference) {
            page.content = Some(Arc::new(content));
        }
    }

    /// Takes the places that a newer reading of the root tells.
    fn moved(&self, files: Vec<Vec<Option<Reference>>>, boot: Vec<Wanted>) {
        let mut known = self.known_mut();
        known.reading += 1;
        known.boot = boot.into();
        let pages = known.files.iter_mut().flatten();
        for (page, reference) in pages.zip(files.into_iter().flatten()) {
            if page.reference != reference {
                *page = KnownPage { reference, content: None };
            }
        }
    }

    /// Bytes of memory that they take.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        let known = self.known();
        let content = |page: &KnownPage| page.content.as_ref().map_or(0, |page| page.memory() + 16);
        let of_file = |pages: &Vec<KnownPage>| {
            let states = pages.capacity() * size_of::<KnownPage>();
            size_of::<Vec<KnownPage>>() + states + pages.iter().map(content).sum::<usize>()
        };
        known.files.iter().map(of_file).sum()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LazyVolume {
    /// Reads the root again: garbage collection may have moved what it names. Not where that was done
    /// since the reading `since`.
    pub(in super::super) async fn refresh(&self, since: Option<u64>) -> Result<(), VolumeError> {
        let _one_at_a_time = self.refreshing.lock().await;
        if since.is_some_and(|since| self.pages.reading() != since) {
            return Ok(());
        }
        let root: Root = self.volumes.root(self.version.id).await?;
        if root.tree != *self.tree {
            let changed = FormatError::invalid("its files are not those that it had");
            let key = keys::version(self.version.id);
            return Err(VolumeError::damaged(&key, "its document")(changed));
        }
        self.pages.moved(root.pages, root.boot);
        Ok(())
    }

    /// Reads a page that somebody waits for, and some that follow.
    pub(super) async fn demand_page(&self, page: Wanted) -> Result<(), Arc<VolumeError>> {
        let reads = self.volumes.reads.clone();
        let frame = page.reference.frame;
        let content = match blocking(move || reads.local(PackKind::Pages, &frame)).await {
            Some(content) => content,
            None => {
                let following = (page.index + 1..self.pages.count(page.file))
                    .map_while(|next| self.pages.unread_page(page.file, next));
                let most = if self.volumes.reads.cache().is_some() { AHEAD_PAGES } else { 1 };
                let ahead = ahead(&page, following, AHEAD_STORED_MAX, most);
                let (reads, store) = (&self.volumes.reads, &*self.volumes.store);
                reads.demand(store, PackKind::Pages, page, ahead, &self.names.page).await?
            }
        };
        self.adopt(&page, &content).map_err(Arc::new)
    }

    /// Reads pages of which nothing is known yet, many at once.
    ///
    /// # Errors
    /// One of them cannot be read; the others may have been.
    pub(in super::super) async fn load_pages(
        &self,
        wanted: Vec<Wanted>,
    ) -> Result<(), VolumeError> {
        let reads = self.volumes.reads.clone();
        let found = blocking(move || {
            let local = |page: Wanted| (page, reads.local(PackKind::Pages, &page.reference.frame));
            wanted.into_iter().map(local).collect::<Vec<_>>()
        });
        let mut missing = Vec::new();
        for (page, content) in found.await {
            match content {
                Some(content) => self.adopt(&page, &content)?,
                None => missing.push(page),
            }
        }
        let fetches = plan(missing).into_iter().map(|batch| {
            let (volumes, name) = (self.volumes.clone(), self.names.page.clone());
            async move {
                let (reads, store) = (&volumes.reads, &*volumes.store);
                let contents = reads.batch(store, PackKind::Pages, &batch, &name).await?;
                Ok::<_, VolumeError>((batch.wanted, contents))
            }
        });
        let fetched = parallel(PARALLEL, fetches.collect::<Vec<_>>()).await?;
        for (wanted, contents) in fetched {
            for (page, content) in wanted.iter().zip(contents) {
                self.adopt(page, &content?)?;
            }
        }
        Ok(())
    }

    /// Takes a page that was read and is what its hash says.
    pub(super) fn adopt(&self, page: &Wanted, content: &[u8]) -> Result<(), VolumeError> {
        let covered = covered_by(self.tree.files()[page.file].bytes, page.index);
        let content = CompactPage::new(content, covered).map_err(|source| {
            let key = keys::pack(PackKind::Pages, page.reference.pack);
            VolumeError::damaged(&key, &(self.names.page)(page))(source)
        })?;
        self.pages.adopt(page, content);
        Ok(())
    }
}
