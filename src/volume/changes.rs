//! What changed since a version was opened becomes the next version: only that is read, and only the
//! index pages that it touches are written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use zstd::bulk::Compressor;

use super::boot::Read;
use super::capture::Capture;
use super::compact::CompactPage;
use super::error::VolumeError;
use super::format::FormatError;
use super::lazy::{KnownPage, LazyVolume, Pages};
use super::next_boot::{inherited, next_boot};
use super::page::{PAGE_BLOCKS, Page, covered_by, pages_of};
use super::reads::Reads;
use super::reference::{Reference, ZSTD_LEVEL};
use super::stretch::{Found, find};
use super::upload::{Upload, Uploaded};
use super::version::Version;
use super::{Volumes, keys};
use crate::base::blocking::blocking;
use crate::base::failpoint::failpoint;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::MountError;
use crate::mount::lazy::{Changes, Source};

/// Blocks that are read, hashed and compressed together.
const PIECE_BLOCKS: usize = 16;
/// Such pieces at a time. What waits in them is at most 8 MiB, next to the 40 of an upload.
const PARALLEL: usize = 4;
/// Most blocks of files that are gone which are recognised elsewhere.
const MOVED_MAX: usize = 65_536;

impl Volumes {
    /// Stores what `changes` has as a version on top of `below`, whatever parent `request` names:
    /// packs, index pages, then the version itself. The head is the caller's next step. Gives the
    /// version, and the same opened, with all that is known of its pages.
    ///
    /// # Errors
    /// As [`Self::capture`]. Each block is told to be [`Changes::done`] once it was read, so that what
    /// failed is tried again with changes that were sealed anew; or with the same, where nobody writes.
    pub async fn capture_changes(
        &self,
        below: &Arc<LazyVolume>,
        changes: &dyn Changes,
        request: Capture,
    ) -> Result<(Version, Arc<LazyVolume>), VolumeError> {
        let request = Capture { parent: Some(below.version()), ..request };
        let (running, shared) = self.begin_upload(request.id, request.parent).await?;
        let sharing = if shared.is_some() { Sharing::All } else { Sharing::Nothing };
        if sharing == Sharing::All {
            // What the root named when it was opened may be condemned by now, as it lies elsewhere. What
            // it names since this capture began outlives it.
            below.refresh(None).await?;
        }
        let upload = Upload::new(self.clone(), format!("version {}", request.id));
        let mut writer = Writer::new(below, changes, sharing, upload);
        writer.write().await?;
        let Writer { pages, mut upload, .. } = writer;
        let tree = changes.tree().clone();
        let draft = request.clone().version(self.clock.now(), tree.bytes(), Uploaded::default());
        let pages = Pages::new(pages, Vec::new());
        let mut next = LazyVolume::with_pages(self.clone(), draft, tree, pages);
        let before = match sharing {
            Sharing::All => inherited(below, changes),
            Sharing::Nothing => Vec::new(),
        };
        let read = Read { now: changes.boot(), next: changes.next_boot() };
        let boot = next_boot(&next, read, before, &mut upload).await?;
        next.pages().set_boot(boot);
        let uploaded = upload.finish().await?;
        failpoint("suspend.packs");
        next.describe(request.version(self.clock.now(), next.tree().bytes(), uploaded));
        let root = next.root();
        self.finish(&running, &root).await?;
        Ok((root.version, Arc::new(next)))
    }
}

/// Whether the version below may be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    All,
    /// It is condemned: everything is stored anew.
    Nothing,
}

struct Writer<'c> {
    below: &'c LazyVolume,
    changes: &'c dyn Changes,
    sharing: Sharing,
    upload: Upload,
    moved: Arc<HashMap<blake3::Hash, Reference>>,
    /// The pages of each file of the new version, as far as they are known.
    pages: Vec<Vec<KnownPage>>,
    /// What is read, and being hashed and compressed.
    pieces: VecDeque<Piece>,
    /// The page that the last piece taken belongs to, its slots so far.
    slots: Vec<Option<Reference>>,
}

/// A page that is written anew.
struct Rewrite {
    file: usize,
    page: u64,
    /// The file that it goes back to.
    origin: Option<usize>,
    /// Blocks of the file that may differ.
    blocks: Vec<u64>,
}

/// Some blocks of a page.
struct Piece {
    file: usize,
    page: u64,
    blocks: Vec<u64>,
    /// With the first piece of a page: what is kept of the old one.
    begins: Option<Vec<Option<Reference>>>,
    /// With the last one: where the old one is.
    ends: Option<Option<Reference>>,
    found: BoxFuture<'static, Result<Vec<Found>, FormatError>>,
}

impl<'c> Writer<'c> {
    fn new(
        below: &'c LazyVolume,
        changes: &'c dyn Changes,
        sharing: Sharing,
        upload: Upload,
    ) -> Self {
        let (moved, pages, pieces, slots) = Default::default();
        Self { below, changes, sharing, upload, moved, pages, pieces, slots }
    }

    async fn write(&mut self) -> Result<(), VolumeError> {
        let tree = self.changes.tree();
        let mut rewrites = Vec::new();
        for file in 0..tree.files().len() {
            let pages = self.kept(file, &mut rewrites);
            self.pages.push(pages);
        }
        let pages = self.below.pages();
        let unread = rewrites.iter().filter_map(|one| pages.unread_page(one.origin?, one.page));
        self.below.load_pages(unread.collect()).await?;
        if self.sharing == Sharing::All {
            self.moved = Arc::new(moved_blocks(self.changes, self.below));
        }
        for rewrite in rewrites {
            self.begin(rewrite).await?;
        }
        self.drain(0).await
    }

    /// The pages of a file that stay what they are; the others are added to `rewrites`.
    fn kept(&self, file: usize, rewrites: &mut Vec<Rewrite>) -> Vec<KnownPage> {
        let bytes = self.changes.tree().files()[file].bytes;
        let blocks = bytes.div_ceil(BLOCK_BYTES as u64);
        let origin = self.changes.origin(file);
        let (origin, mut changed) = match (self.sharing, origin) {
            (Sharing::Nothing, Some(_)) => (None, (0..blocks).collect()),
            (_, origin) => (origin, self.changes.changed(file)),
        };
        // They are; and a block that was overlooked would be lost.
        changed.sort_unstable();
        let mut pages = vec![KnownPage::default(); pages_of(bytes) as usize];
        for (page, known) in (0..).zip(&mut pages) {
            let its = page * PAGE_BLOCKS as u64..((page + 1) * PAGE_BLOCKS as u64).min(blocks);
            let from = changed.partition_point(|block| *block < its.start);
            let to = changed.partition_point(|block| *block < its.end);
            let before = origin.map(|origin| self.below.pages().page(origin, page));
            let before = before.unwrap_or_default();
            let before_bytes = origin.map(|origin| self.below.tree().files()[origin].bytes);
            let same =
                before_bytes.is_some_and(|old| covered_by(old, page) == covered_by(bytes, page));
            if from == to && (same || before.reference.is_none()) {
                *known = before;
            } else {
                let blocks = changed[from..to].to_vec();
                rewrites.push(Rewrite { file, page, origin, blocks });
            }
        }
        pages
    }

    /// Reads the blocks of a page and has them hashed and compressed.
    async fn begin(&mut self, rewrite: Rewrite) -> Result<(), VolumeError> {
        let Rewrite { file, page, origin, mut blocks } = rewrite;
        let bytes = self.changes.tree().files()[file].bytes;
        let before = origin.map(|origin| self.below.pages().page(origin, page)).unwrap_or_default();
        let old = |slot: usize| before.content.as_ref()?.block(slot);
        let first = page * PAGE_BLOCKS as u64;
        let slots = (covered_by(bytes, page) as usize).div_ceil(BLOCK_BYTES);
        let mut kept: Vec<_> = (0..slots).map(old).collect();
        for (slot, reference) in kept.iter().enumerate() {
            // A block of another length is another block, whoever says that it did not change.
            let length = length(bytes, first + slot as u64) as u32;
            if reference.is_some_and(|reference| reference.frame.raw != length) {
                blocks.push(first + slot as u64);
            }
        }
        blocks.sort_unstable();
        blocks.dedup();
        let befores: Vec<_> =
            blocks.iter().map(|block| kept[(block - first) as usize].take()).collect();
        let mut begins = Some(kept);
        let pieces = blocks.len().div_ceil(PIECE_BLOCKS).max(1);
        for piece in 0..pieces {
            let range = piece * PIECE_BLOCKS..((piece + 1) * PIECE_BLOCKS).min(blocks.len());
            let befores = befores[range.clone()].to_vec();
            let blocks = blocks[range].to_vec();
            self.drain(PARALLEL - 1).await?;
            let read = read(self.changes, file, &blocks).await?;
            let (moved, reads) = (self.moved.clone(), self.below.reads().clone());
            let found = blocking(move || encode(&read, &befores, &moved, &reads));
            let ends = (piece + 1 == pieces).then_some(before.reference);
            let begins = begins.take();
            let found = Box::pin(found);
            self.pieces.push_back(Piece { file, page, blocks, begins, ends, found });
        }
        Ok(())
    }

    /// Stores what is ready, in order, until at most so many pieces wait.
    async fn drain(&mut self, most: usize) -> Result<(), VolumeError> {
        while self.pieces.len() > most
            && let Some(piece) = self.pieces.pop_front()
        {
            if let Some(kept) = piece.begins {
                self.slots = kept;
            }
            let found = piece.found.await.map_err(|source| {
                let path = self.changes.tree().files()[piece.file].path.as_str();
                MountError::io("compress", Path::new(path))(std::io::Error::other(source))
            })?;
            for (block, found) in piece.blocks.iter().zip(found) {
                self.slots[(block % PAGE_BLOCKS as u64) as usize] = match found {
                    Found::Zero => None,
                    Found::Known(reference) => Some(reference),
                    Found::New(encoded) => Some(self.upload.block(&encoded).await?),
                };
                self.changes.done(piece.file, *block);
            }
            if let Some(before) = piece.ends {
                let known = self.end(piece.file, piece.page, before).await?;
                self.pages[piece.file][piece.page as usize] = known;
            }
        }
        Ok(())
    }

    /// A page of which every slot is known.
    async fn end(
        &mut self,
        file: usize,
        page: u64,
        before: Option<Reference>,
    ) -> Result<KnownPage, VolumeError> {
        let covered = covered_by(self.changes.tree().files()[file].bytes, page);
        let page = Page::new(covered, std::mem::take(&mut self.slots));
        if page.is_zero() {
            return Ok(KnownPage::default());
        }
        let key = keys::version(self.below.version());
        let (compact, content) = CompactPage::of(&page).map_err(VolumeError::unwritable(&key))?;
        let hash = blake3::hash(&content);
        let content_known = Some(Arc::new(compact));
        if let Some(same) = before.filter(|before| before.frame.hash == hash) {
            return Ok(KnownPage { reference: Some(same), content: content_known });
        }
        let reference = self.upload.page_content(&content, hash)?;
        let reads = self.below.reads().clone();
        blocking(move || reads.keep(&hash, &content)).await;
        Ok(KnownPage { reference: Some(reference), content: content_known })
    }
}

/// What of these blocks is new. Blocks.
fn encode(
    blocks: &[Bytes],
    before: &[Option<Reference>],
    moved: &HashMap<blake3::Hash, Reference>,
    reads: &Reads,
) -> Result<Vec<Found>, FormatError> {
    let mut compressor = Compressor::new(ZSTD_LEVEL).map_err(FormatError::invalid)?;
    let encode = |(block, before): (&Bytes, &Option<Reference>)| {
        let found = find(block, before.as_ref(), moved, &mut compressor)?;
        if let Found::New(encoded) = &found {
            reads.keep(&encoded.hash, block);
        }
        Ok(found)
    };
    blocks.iter().zip(before).map(encode).collect()
}

/// Blocks of files that are gone, of which the index pages are in memory: what was copied to another
/// file, as a log that is rotated, is recognised by its content.
fn moved_blocks(changes: &dyn Changes, below: &LazyVolume) -> HashMap<blake3::Hash, Reference> {
    let files = 0..changes.tree().files().len();
    let here: HashSet<_> = files.filter_map(|file| changes.origin(file)).collect();
    let gone = (0..below.tree().files().len()).filter(|file| !here.contains(file));
    let pages = gone.flat_map(|file| (0..below.pages().count(file)).map(move |page| (file, page)));
    let known = pages.filter_map(|(file, page)| below.pages().page(file, page).content);
    let mut moved = HashMap::new();
    for page in known.take(MOVED_MAX / PAGE_BLOCKS) {
        moved.extend(page.blocks().flatten().map(|block| (block.frame.hash, block)));
    }
    moved
}

/// Not a method: whoever waits for it must not hold what cannot be shared between threads.
async fn read(
    changes: &dyn Changes,
    file: usize,
    blocks: &[u64],
) -> Result<Vec<Bytes>, VolumeError> {
    let entry = &changes.tree().files()[file];
    let read = try_join_all(blocks.iter().map(|block| changes.read(file, *block))).await;
    let read = read.map_err(MountError::io("read", Path::new(entry.path.as_str())))?;
    for (block, bytes) in blocks.iter().zip(&read) {
        if bytes.len() != length(entry.bytes, *block) {
            return Err(VolumeError::Changed { path: entry.path.to_string() });
        }
    }
    Ok(read)
}

/// As long as a file of this size reaches.
fn length(bytes: u64, block: u64) -> usize {
    bytes.saturating_sub(block * BLOCK_BYTES as u64).min(BLOCK_BYTES as u64) as usize
}
