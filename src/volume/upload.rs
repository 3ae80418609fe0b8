//! What a capture writes: packs while it reads, then pages; each object once it is full.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use zstd::bulk::Compressor;

use super::error::VolumeError;
use super::format::FormatError;
use super::pack::{PackKind, PackWriter};
use super::page::Page;
use super::reference::{Encoded, Reference, ZSTD_LEVEL};
use super::{Volumes, keys};
use crate::base::ids::PackId;

/// Objects on their way at a time. With the pack that is being filled this is at most 40 MiB.
const PARALLEL: usize = 4;

/// The packs and pages objects of a version in the making. Dropped before its end it leaves, at
/// most, objects that nothing refers to.
pub struct Upload {
    volumes: Volumes,
    /// For what, as errors say it.
    purpose: Arc<str>,
    blocks: PackWriter,
    pages: PackWriter,
    /// Pages objects wait for the last pack; all index pages are 0.07 % of their volume.
    full_pages: Vec<PackWriter>,
    /// Every pack of blocks so far.
    packs: BTreeSet<PackId>,
    running: JoinSet<Result<(), VolumeError>>,
    new_bytes: u64,
    stored_bytes: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Bytes of new blocks before compression.
    pub new_bytes: u64,
    /// Bytes of the objects.
    pub stored_bytes: u64,
}

impl Upload {
    /// Nothing yet.
    pub fn new(volumes: Volumes, purpose: String) -> Self {
        let purpose = purpose.into();
        let [blocks, pages] = [PackKind::Blocks, PackKind::Pages].map(|kind| volumes.pack(kind));
        let (full_pages, packs, running) = Default::default();
        Self {
            volumes,
            purpose,
            blocks,
            pages,
            full_pages,
            packs,
            running,
            new_bytes: 0,
            stored_bytes: 0,
        }
    }

    /// Takes a new block.
    pub async fn block(&mut self, block: &Encoded) -> Result<Reference, VolumeError> {
        self.new_bytes += u64::from(block.raw);
        self.packs.insert(self.blocks.id());
        let reference = self.blocks.push(block);
        if self.blocks.is_full() {
            let next = self.volumes.pack(PackKind::Blocks);
            let full = std::mem::replace(&mut self.blocks, next);
            self.start(PackKind::Blocks, full).await?;
        }
        Ok(reference)
    }

    /// The packs that blocks went into; not all of them are written yet.
    pub fn packs(&self) -> &BTreeSet<PackId> {
        &self.packs
    }

    /// What comes next lies in a pack of its own.
    pub async fn cut(&mut self) -> Result<(), VolumeError> {
        let next = self.volumes.pack(PackKind::Blocks);
        let cut = std::mem::replace(&mut self.blocks, next);
        self.start(PackKind::Blocks, cut).await
    }

    /// Takes a new index page.
    pub fn page(&mut self, page: &Page) -> Result<Reference, VolumeError> {
        let content = page.encode();
        self.page_content(&content, blake3::hash(&content))
    }

    /// Takes a new index page with these bytes, of which this is the hash.
    pub fn page_content(
        &mut self,
        content: &[u8],
        hash: blake3::Hash,
    ) -> Result<Reference, VolumeError> {
        let encoded = Compressor::new(ZSTD_LEVEL)
            .map_err(FormatError::invalid)
            .and_then(|mut compressor| Encoded::new(content, hash, &mut compressor));
        let key = keys::pack(PackKind::Pages, self.pages.id());
        let reference = self.pages.push(&encoded.map_err(VolumeError::unwritable(&key))?);
        if self.pages.is_full() {
            let next = self.volumes.pack(PackKind::Pages);
            self.full_pages.push(std::mem::replace(&mut self.pages, next));
        }
        Ok(reference)
    }

    /// Writes the rest; everything is in the store when this returns.
    pub async fn finish(mut self) -> Result<Uploaded, VolumeError> {
        let blocks = std::mem::replace(&mut self.blocks, self.volumes.pack(PackKind::Blocks));
        self.start(PackKind::Blocks, blocks).await?;
        self.wait_below(1).await?;
        let last = std::mem::replace(&mut self.pages, self.volumes.pack(PackKind::Pages));
        let mut pages = std::mem::take(&mut self.full_pages);
        pages.push(last);
        for pages in pages {
            self.start(PackKind::Pages, pages).await?;
        }
        self.wait_below(1).await?;
        Ok(Uploaded { new_bytes: self.new_bytes, stored_bytes: self.stored_bytes })
    }

    async fn start(&mut self, kind: PackKind, pack: PackWriter) -> Result<(), VolumeError> {
        if pack.is_empty() {
            return Ok(());
        }
        self.wait_below(PARALLEL).await?;
        let (id, object) = (pack.id(), pack.finish());
        self.stored_bytes += object.len() as u64;
        self.running.spawn(write(self.volumes.clone(), kind, id, object, self.purpose.clone()));
        Ok(())
    }

    /// Waits until fewer than `limit` objects are on their way.
    async fn wait_below(&mut self, limit: usize) -> Result<(), VolumeError> {
        while self.running.len() >= limit
            && let Some(ended) = self.running.join_next().await
        {
            match ended {
                Ok(written) => written?,
                // Nothing aborts an upload before its `Upload` is dropped.
                Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
            }
        }
        Ok(())
    }
}

async fn write(
    volumes: Volumes,
    kind: PackKind,
    id: PackId,
    object: Bytes,
    purpose: Arc<str>,
) -> Result<(), VolumeError> {
    let key = keys::pack(kind, id);
    let doing = || format!("write {key} of {purpose}");
    volumes.write_once(&key, object).await.map_err(VolumeError::store(doing))
}

impl Volumes {
    fn pack(&self, kind: PackKind) -> PackWriter {
        PackWriter::new(kind, PackId::generate(self.clock.now()))
    }
}
