//! Packs that are mostly dead: what lives of them moves, and versions learn where to.
//!
//! What a version holds stays the same, hash by hash; `ARCHITECTURE.md`, "Packs that are mostly
//! dead".

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracing::warn;

use super::collect::{Collected, Found, Mode, count};
use super::error::VolumeError;
use super::fetch::Wanted;
use super::pack::{HEADER_BYTES, PackKind, TRAILER_BYTES};
use super::page::Page;
use super::reference::{Frame, Reference};
use super::upload::Upload;
use super::version::Root;
use super::{Volumes, keys};
use crate::base::clock::Timestamp;
use crate::base::failpoint::failpoint;
use crate::base::ids::{PackId, VersionId};
use crate::store::{Condition, StoreError};

/// Most frames that one run moves: what is kept of each in memory is about 100 bytes.
const FRAMES_MAX: usize = 262_144;

/// Where a frame was: object and offset.
type Place = (PackId, u32);

/// What moves, and where to.
#[derive(Default)]
struct Moves {
    blocks: HashMap<Place, Reference>,
    /// Pages objects that are given up.
    objects: HashSet<PackId>,
    pages: HashMap<Place, Reference>,
    /// Pages that were looked at, moved or not.
    seen: HashSet<Place>,
    /// Versions that must be told.
    versions: Vec<VersionId>,
}

impl Volumes {
    /// Rewrites what is mostly dead and was written before `oldest`.
    ///
    /// # Errors
    /// Every version is then as it was or moved whole, and what was given up is still there.
    pub(super) async fn rewrite(
        &self,
        mode: Mode,
        found: &Found,
        oldest: Timestamp,
        collected: &mut Collected,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), VolumeError> {
        let victims = victims(found, oldest);
        if mode == Mode::DryRun || victims.is_empty() {
            victims.iter().for_each(|&(kind, id, bytes)| {
                count(&mut collected.rewritten, &keys::pack(kind, id), bytes);
            });
            return Ok(());
        }
        let id = VersionId::generate(self.clock.now());
        let (running, _) = self.begin_upload(id, None).await?;
        let mut upload = Upload::new(self.clone(), "garbage collection".to_owned());
        let mut moves = Moves::default();
        for (number, &(kind, pack, bytes)) in victims.iter().enumerate() {
            progress(format!("rewriting object {} of {}", number + 1, victims.len()));
            if self.give_up(kind, pack, found, &mut upload, &mut moves).await? {
                count(&mut collected.rewritten, &keys::pack(kind, pack), bytes);
            }
            failpoint("gc.copying");
        }
        for (number, version) in found.living.iter().enumerate() {
            progress(format!("looking through version {} of {}", number + 1, found.living.len()));
            self.move_pages(*version, &mut upload, &mut moves).await?;
        }
        collected.rewritten_as = upload.finish().await?.stored_bytes;
        running.ensure_in_time(self.clock.now())?;
        failpoint("gc.copied");
        for (number, version) in moves.versions.iter().enumerate() {
            progress(format!("moving version {} of {}", number + 1, moves.versions.len()));
            self.move_root(*version, &moves).await?;
            failpoint("gc.moved");
        }
        failpoint("gc.rewritten");
        Ok(())
    }

    /// Copies what is needed of an object; whether that could be done.
    async fn give_up(
        &self,
        kind: PackKind,
        pack: PackId,
        found: &Found,
        upload: &mut Upload,
        moves: &mut Moves,
    ) -> Result<bool, VolumeError> {
        if kind == PackKind::Pages {
            // They are read version by version, and written anew.
            moves.objects.insert(pack);
            return Ok(true);
        }
        let needed = found.needed.frames(kind, pack).cloned().unwrap_or_default();
        let mut offsets: Vec<_> = needed.keys().copied().collect();
        offsets.sort_unstable();
        match self.whole_pack(kind, pack, needed).await {
            Ok(frames) => {
                for (offset, frame) in offsets.into_iter().zip(&frames) {
                    moves.blocks.insert((pack, offset), upload.block(frame).await?);
                }
                Ok(true)
            }
            Err(error) if error.is_damage() => {
                // Scrub tells whom it hurts. Here nothing is made worse.
                warn!("leave a damaged pack alone: {error}");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes those pages of a version anew that refer to what moves.
    async fn move_pages(
        &self,
        version: VersionId,
        upload: &mut Upload,
        moves: &mut Moves,
    ) -> Result<(), VolumeError> {
        let root = match self.root(version).await {
            Ok(root) => Arc::new(root),
            Err(VolumeError::NoVersion { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let new = root.wanted_pages().filter(|page| moves.seen.insert(place(&page.reference)));
        let new: Vec<_> = new.collect();
        let mut pages = self.read_pages(&root, new).await?;
        // In the order of the files, so that they lie together.
        pages.sort_unstable_by_key(|(wanted, _)| (wanted.file, wanted.index));
        for (wanted, page) in pages {
            let moved = page.slots().iter().flatten().any(|slot| moves.block(slot).is_some());
            if moved || moves.objects.contains(&wanted.reference.pack) {
                let slots = page.slots().iter();
                let slots = slots.map(|slot| slot.map(|slot| moves.block(&slot).unwrap_or(slot)));
                let page = Page::new(page.covered(), slots.collect());
                moves.pages.insert(place(&wanted.reference), upload.page(&page)?);
            }
        }
        let pages_move = |page: Wanted| moves.pages.contains_key(&place(&page.reference));
        let boot_moves = |block: &Wanted| moves.block(&block.reference).is_some();
        if root.wanted_pages().any(pages_move) || root.boot.iter().any(boot_moves) {
            moves.versions.push(version);
        }
        Ok(())
    }

    /// Replaces a version's root by one that names the new pages, and the new places of its boot set.
    async fn move_root(&self, version: VersionId, moves: &Moves) -> Result<(), VolumeError> {
        let key = keys::version(version);
        let (mut root, etag) = match self.root_marked(version).await {
            Err(VolumeError::NoVersion { .. }) => return Ok(()),
            read => read?,
        };
        for reference in root.pages.iter_mut().flatten().flatten() {
            if let Some(moved) = moves.pages.get(&place(reference)) {
                *reference = *moved;
            }
        }
        for Wanted { reference, .. } in &mut root.boot {
            *reference = moves.block(reference).unwrap_or(*reference);
        }
        let object = Root::seal(&root).map_err(VolumeError::unwritable(&key))?;
        match self.store.write(&key, object, Condition::Matches(etag)).await {
            // Deleted, or changed by another: it keeps what it has, which stays for it.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(source) => Err(VolumeError::Store { doing: format!("move {key}"), source }),
        }
    }
}

impl Moves {
    /// Where a block moved to; the content is the same by its hash.
    fn block(&self, old: &Reference) -> Option<Reference> {
        let same =
            |new: &&Reference| (new.frame.hash, new.frame.raw) == (old.frame.hash, old.frame.raw);
        self.blocks.get(&place(old)).filter(same).copied()
    }
}

fn place(reference: &Reference) -> Place {
    (reference.pack, reference.frame.offset)
}

/// Objects that would be less than half as large, the deadest first, with their bytes.
fn victims(found: &Found, oldest: Timestamp) -> Vec<(PackKind, PackId, u64)> {
    let mut victims: Vec<_> = found
        .objects
        .iter()
        .filter(|(_, id, entry)| entry.modified <= oldest && id.made() <= oldest)
        .filter_map(|(kind, id, entry)| {
            let frames = found.needed.frames(*kind, *id)?.len();
            let around = HEADER_BYTES + TRAILER_BYTES + frames * Frame::BYTES;
            let needed = found.needed.bytes(*kind, *id) + around as u64;
            (needed * 2 < entry.bytes).then_some((*kind, *id, entry.bytes, needed, frames))
        })
        .collect();
    victims.sort_by_key(|&(_, _, bytes, needed, _)| needed * 1000 / bytes);
    let mut left = FRAMES_MAX;
    let fits = victims.into_iter().take_while(|&(_, _, _, _, frames)| {
        let fits = frames <= left;
        left = left.saturating_sub(frames);
        fits
    });
    fits.map(|(kind, id, bytes, _, _)| (kind, id, bytes)).collect()
}
