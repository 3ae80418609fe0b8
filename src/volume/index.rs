//! The whole index of a version in memory: about 0.1 % of the volume.

use std::sync::Arc;

use bytes::Bytes;

use super::error::VolumeError;
use super::fetch::{Batch, Wanted, fetch, plan};
use super::format::FormatError;
use super::pack::PackKind;
use super::page::{PAGE_BLOCKS, Page, covered_by};
use super::reference::Reference;
use super::version::Root;
use super::{Volumes, keys};
use crate::base::blocking::blocking;
use crate::base::ids::VersionId;
use crate::base::parallel::parallel;
use crate::mount::FileEntry;

/// Range reads of pages at a time.
const PARALLEL: usize = 16;

/// A version's root and all of its pages.
#[derive(Debug)]
pub struct Index {
    /// The root document.
    pub root: Root,
    pages: Vec<Vec<Option<Arc<Page>>>>,
}

impl Index {
    /// A file by its path, and its place in the tree.
    pub fn file(&self, path: &str) -> Option<(usize, &FileEntry)> {
        let files = self.root.tree.files();
        let place = files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        Some((place, &files[place]))
    }

    /// A page of a file, and the reference to it. None where all is zero or past the end.
    pub fn page(&self, file: usize, page: usize) -> Option<(&Arc<Page>, &Reference)> {
        let content = self.pages[file].get(page)?.as_ref()?;
        Some((content, self.root.pages[file][page].as_ref()?))
    }

    /// Every block of a file that is not zero.
    pub fn blocks(&self, file: usize) -> impl Iterator<Item = Wanted> {
        let pages = self.pages[file].iter().enumerate();
        pages.filter_map(|(number, page)| Some((number, page.as_ref()?))).flat_map(
            move |(number, page)| {
                let slots = page.slots().iter().enumerate();
                slots.filter_map(move |(slot, reference)| {
                    let index = (number * PAGE_BLOCKS + slot) as u64;
                    Some(Wanted { reference: (*reference)?, file, index })
                })
            },
        )
    }
}

impl Volumes {
    /// Reads the root and every page of a version.
    pub(super) async fn index(&self, version: VersionId) -> Result<Index, VolumeError> {
        let root = Arc::new(self.root(version).await?);
        let read = self.read_pages(&root, root.wanted_pages().collect()).await?;

        let mut pages: Vec<Vec<_>> =
            root.pages.iter().map(|pages| vec![None; pages.len()]).collect();
        for (wanted, page) in read {
            pages[wanted.file][wanted.index as usize] = Some(Arc::new(page));
        }
        Ok(Index { root: Arc::unwrap_or_clone(root), pages })
    }

    /// Reads these pages of a version, in no order.
    pub(super) async fn read_pages(
        &self,
        root: &Arc<Root>,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<(Wanted, Page)>, VolumeError> {
        let reads = plan(wanted).into_iter().map(|batch| self.clone().pages(root.clone(), batch));
        let read = parallel(PARALLEL, reads.collect::<Vec<_>>()).await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn pages(
        self,
        root: Arc<Root>,
        batch: Batch,
    ) -> Result<Vec<(Wanted, Page)>, VolumeError> {
        let files = root.clone();
        let name = move |wanted: &Wanted| {
            let path = &files.tree.files()[wanted.file].path;
            format!("index page {} of file `{path}`", wanted.index)
        };
        let contents = fetch(&*self.store, PackKind::Pages, &batch, name.clone()).await?;
        blocking(move || {
            let decode = |(wanted, content): (Wanted, &Bytes)| {
                let bytes = root.tree.files()[wanted.file].bytes;
                let page = decode(content, covered_by(bytes, wanted.index)).map_err(|source| {
                    let key = keys::pack(PackKind::Pages, wanted.reference.pack);
                    VolumeError::damaged(&key, &name(&wanted))(source)
                })?;
                Ok((wanted, page))
            };
            batch.wanted.iter().copied().zip(&contents).map(decode).collect()
        })
        .await
    }
}

pub fn decode(content: &[u8], covered: u32) -> Result<Page, FormatError> {
    let page = Page::decode(content)?;
    if page.covered() == covered {
        return Ok(page);
    }
    let [expected, found] = [covered, page.covered()].map(|n| format!("a page for {n} bytes"));
    Err(FormatError::Other { expected, found })
}
