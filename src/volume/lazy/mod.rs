//! A version that is read as it is needed: its root at once, index pages and blocks on demand.

#[cfg(test)]
mod bench;
mod boot;
#[cfg(test)]
mod booting;
#[cfg(test)]
mod faults;
mod fill;
mod pages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::Volumes;
use super::error::VolumeError;
use super::fetch::{Wanted, ahead};
use super::pack::PackKind;
use super::page::PAGE_BLOCKS;
use super::reads::{Name, Reads};
use super::reference::Reference;
use super::stretch::ZEROES;
use super::version::{Root, Version};
use crate::base::blocking::blocking;
use crate::base::ids::VersionId;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::Tree;
use crate::mount::lazy::Source;
pub use boot::BootFetched;
use boot::Held;
pub use fill::Filled;
pub(super) use pages::{KnownPage, Pages, Place};

/// Bytes that are read along with a block at most: what follows it in the file.
const AHEAD_STORED_MAX: u64 = 1024 * 1024;
/// Blocks that are read at once where nobody reads in order, and the most where somebody does.
const AHEAD_BLOCKS: [usize; 2] = [4, 16];

/// A version whose blocks come when they are read: from memory, from the cache on this machine's
/// disk, from the store. All of it is verified before it is given.
#[derive(Debug)]
pub struct LazyVolume {
    volumes: Volumes,
    version: Version,
    tree: Arc<Tree>,
    pages: Pages,
    refreshing: tokio::sync::Mutex<()>,
    /// Blocks of the boot set that no cache on disk took.
    held: Arc<Held>,
    /// For each file where its last read ended and how much it was, so that reading in order is known.
    order: Mutex<HashMap<usize, (u64, usize)>>,
    names: Names,
}

/// How errors call what was read.
struct Names {
    block: Name,
    page: Name,
}

impl Volumes {
    /// Opens a version: one request for its root, however large it is.
    pub async fn open(&self, version: VersionId) -> Result<Arc<LazyVolume>, VolumeError> {
        let root = self.root(version).await?;
        Ok(Arc::new(LazyVolume::new(self.clone(), root)))
    }
}

impl LazyVolume {
    /// The version with this root; no page of it is known.
    pub(super) fn new(volumes: Volumes, root: Root) -> Self {
        let pages = Pages::unread(root.pages, root.boot);
        Self::with_pages(volumes, root.version, root.tree, pages)
    }

    /// A version of which some pages are known.
    pub(super) fn with_pages(volumes: Volumes, version: Version, tree: Tree, pages: Pages) -> Self {
        let tree = Arc::new(tree);
        let names = Names::new(&tree);
        let (refreshing, held, order) = Default::default();
        Self { volumes, version, tree, pages, refreshing, held, order, names }
    }

    /// What is known of the version.
    pub fn description(&self) -> &Version {
        &self.version
    }

    /// The same, for a version that was made meanwhile.
    pub(super) fn describe(&mut self, version: Version) {
        self.version = version;
    }

    /// Its root document.
    pub(super) fn root(&self) -> Root {
        Root {
            version: self.version.clone(),
            tree: Tree::clone(&self.tree),
            pages: self.pages.references(),
            boot: self.pages.boot().to_vec(),
        }
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(super) fn reads(&self) -> &Arc<Reads> {
        &self.volumes.reads
    }

    /// A block; reads the root again where an object is gone, as its content may lie elsewhere now.
    async fn read(&self, file: usize, index: u64) -> Result<Bytes, Arc<VolumeError>> {
        let reading = self.pages.reading();
        match self.try_read(file, index).await {
            Err(error) if error.is_missing() => {
                self.refresh(Some(reading)).await.map_err(Arc::new)?;
                self.try_read(file, index).await
            }
            read => read,
        }
    }

    async fn try_read(&self, file: usize, index: u64) -> Result<Bytes, Arc<VolumeError>> {
        loop {
            match self.pages.place(file, index) {
                Place::Zero => return Ok(zeroes(self.length(file, index))),
                Place::In(page) => self.demand_page(page).await?,
                Place::At(reference) => {
                    let wanted = Wanted { reference, file, index };
                    return self.fetch(wanted, |wanted| self.ahead(wanted)).await;
                }
            }
        }
    }

    /// A block, of which it is known where it is, and none beside it.
    pub(super) async fn frame(&self, wanted: Wanted) -> Result<Bytes, Arc<VolumeError>> {
        self.fetch(wanted, |_| Vec::new()).await
    }

    /// A block that is not in memory, as a rule. What `ahead` gives is read along with it.
    async fn fetch(
        &self,
        wanted: Wanted,
        ahead: impl FnOnce(&Wanted) -> Vec<Wanted>,
    ) -> Result<Bytes, Arc<VolumeError>> {
        let (held, reads) = (self.held.find(&wanted.reference.frame.hash), self.reads().clone());
        let local = blocking(move || reads.local(PackKind::Blocks, &wanted.reference.frame));
        if let Some(block) = held.or(local.await) {
            return Ok(block);
        }
        let ahead = ahead(&wanted);
        let (reads, store) = (&self.volumes.reads, &*self.volumes.store);
        reads.demand(store, PackKind::Blocks, wanted, ahead, &self.names.block).await
    }

    /// What follows in the file and the pack: little at first, more to those who read in order.
    fn ahead(&self, wanted: &Wanted) -> Vec<Wanted> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, blocks) = order.get(&wanted.file).copied().unwrap_or_default();
        let [least, most] = AHEAD_BLOCKS;
        // Some of what was read ahead may have been here before.
        let in_order = (end..end + least as u64).contains(&wanted.index);
        let blocks = if in_order { (2 * blocks).clamp(least, most) } else { least };
        order.insert(wanted.file, (wanted.index + blocks as u64, blocks));
        drop(order);
        let page = self.pages.page(wanted.file, wanted.index / PAGE_BLOCKS as u64);
        let Some(page) = page.content else { return Vec::new() };
        let first = (wanted.index % PAGE_BLOCKS as u64) as usize + 1;
        let following = (first..(first + blocks - 1).min(PAGE_BLOCKS)).filter_map(|block| {
            let index = wanted.index + (block + 1 - first) as u64;
            Some(Wanted { reference: page.block(block)?, file: wanted.file, index })
        });
        ahead(wanted, following, AHEAD_STORED_MAX, blocks)
    }

    /// A block that is on this machine.
    fn local(&self, reference: &Reference) -> Option<Bytes> {
        let held = self.held.find(&reference.frame.hash);
        held.or_else(|| self.reads().local(PackKind::Blocks, &reference.frame))
    }

    /// As long as the file reaches.
    fn length(&self, file: usize, index: u64) -> usize {
        let rest = self.tree.files()[file].bytes.saturating_sub(index * BLOCK_BYTES as u64);
        rest.min(BLOCK_BYTES as u64) as usize
    }
}

#[async_trait]
impl Source for LazyVolume {
    fn version(&self) -> VersionId {
        self.version.id
    }

    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn at_hand(&self, file: usize, index: u64) -> Option<Bytes> {
        let mut place = self.pages.place(file, index);
        if let Place::In(page) = &place {
            let content = self.volumes.reads.local(PackKind::Pages, &page.reference.frame)?;
            self.adopt(page, &content).ok()?;
            place = self.pages.place(file, index);
        }
        match place {
            Place::Zero => Some(zeroes(self.length(file, index))),
            Place::At(reference) => self.local(&reference),
            Place::In(_) => None,
        }
    }

    async fn block(&self, file: usize, index: u64) -> io::Result<Bytes> {
        self.read(file, index).await.map_err(|error| io::Error::other(error.chain()))
    }
}

fn zeroes(length: usize) -> Bytes {
    Bytes::from_static(&ZEROES[..length])
}

impl Names {
    fn new(tree: &Arc<Tree>) -> Self {
        let path = |tree: &Tree, file: usize| tree.files()[file].path.clone();
        let (blocks, pages) = (tree.clone(), tree.clone());
        Self {
            block: Arc::new(move |wanted| {
                format!("block {} of file `{}`", wanted.index, path(&blocks, wanted.file))
            }),
            page: Arc::new(move |wanted| {
                format!("index page {} of file `{}`", wanted.index, path(&pages, wanted.file))
            }),
        }
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}
