//! Is a version whole? Everything that restoring it would need is read, and nothing written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::VolumeError;
use super::format::FormatError;
use super::index::Index;
use super::pack::{HEADER_BYTES, PackKind, TRAILER_BYTES, Trailer};
use super::reference::{Frame, Reference};
use super::restore::VolumeSource;
use super::{Volumes, keys};
use crate::base::ids::{PackId, VersionId};
use crate::base::parallel::parallel;
use crate::mount::BlockSource;

/// Packs, or batches of blocks, that are read at a time.
const PARALLEL: usize = 8;

/// What was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Packs and pages objects whose tables agree with the version.
    pub objects: u64,
    /// Blocks that were read and verified.
    pub blocks: u64,
}

impl Volumes {
    /// Verifies every page and block of a version, and that each pack's own table lists them. The
    /// first fault is the error, and names the object, the place in it, and the file that it hurts.
    pub async fn check(&self, version: VersionId) -> Result<Checked, VolumeError> {
        let index = self.index(version).await?;
        let tables: Vec<_> = frames_of(&index)
            .into_iter()
            .map(|((kind, pack), frames)| self.clone().check_table(kind, pack, frames))
            .collect();
        let objects = parallel(PARALLEL, tables).await?.len() as u64;
        let boot = VolumeSource::of(self.clone(), index.root.tree.clone(), index.root.boot.clone());
        self.check_blocks(boot).await?;
        let blocks = self.check_blocks(VolumeSource::new(self.clone(), index)).await?;
        Ok(Checked { objects, blocks })
    }

    /// Reads and verifies every block; gives how many there are.
    async fn check_blocks(&self, source: VolumeSource) -> Result<u64, VolumeError> {
        let source = Arc::new(source);
        let reads: Vec<_> = (0..source.batches())
            .map(|batch| {
                let source = source.clone();
                async move { Ok::<_, VolumeError>(source.fetch(batch).await?.len() as u64) }
            })
            .collect();
        Ok(parallel(PARALLEL, reads).await?.into_iter().sum())
    }

    async fn check_table(
        self,
        kind: PackKind,
        pack: PackId,
        frames: Vec<Frame>,
    ) -> Result<(), VolumeError> {
        let key = keys::pack(kind, pack);
        let table = self.table(kind, pack).await?;
        for frame in frames {
            let listed = table.binary_search_by_key(&frame.offset, |listed| listed.offset);
            if listed.is_ok_and(|place| table[place] == frame) {
                continue;
            }
            let place = format!("at {}, where an index page refers to", frame.offset);
            let source = FormatError::invalid("its table does not list that frame");
            return Err(VolumeError::damaged(&key, &place)(source));
        }
        Ok(())
    }

    /// The table of a pack, read with nothing but its id.
    async fn table(&self, kind: PackKind, pack: PackId) -> Result<Vec<Frame>, VolumeError> {
        let key = keys::pack(kind, pack);
        let failed = || VolumeError::store(|| format!("read the table of {key}"));
        let damaged = || VolumeError::damaged(&key, "its table");
        let size = self.store.size(&key).await.map_err(failed())?;
        let tail = size.saturating_sub(TRAILER_BYTES as u64)..size;
        let tail = self.store.read_range(&key, tail).await.map_err(failed())?;
        let trailer = Trailer::read(&tail, size).map_err(damaged())?;
        let table = self.store.read_range(&key, trailer.table()).await.map_err(failed())?;
        let head = self.store.read_range(&key, 0..HEADER_BYTES as u64).await.map_err(failed())?;
        trailer.frames(kind, pack, &head, &table).map_err(damaged())
    }
}

/// What a version needs, by object.
pub(super) fn frames_of(index: &Index) -> BTreeMap<(PackKind, PackId), Vec<Frame>> {
    let pages = index.root.pages.iter().flatten().flatten().copied();
    let pages = pages.map(|reference| (PackKind::Pages, reference));
    let files = 0..index.root.tree.files().len();
    let blocks = files.flat_map(|file| index.blocks(file)).chain(index.root.boot.iter().copied());
    let blocks = blocks.map(|wanted| (PackKind::Blocks, wanted.reference));
    let mut packs = BTreeMap::<_, Vec<_>>::new();
    for (kind, Reference { pack, frame }) in pages.chain(blocks) {
        packs.entry((kind, pack)).or_default().push(frame);
    }
    packs
}
