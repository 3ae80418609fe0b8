//! What versions need: which frames of which objects.

use std::collections::HashMap;
use std::sync::Arc;

use super::Volumes;
use super::error::VolumeError;
use super::fetch::Wanted;
use super::pack::PackKind;
use super::page::Page;
use super::reference::{Frame, Reference};
use super::version::Root;
use crate::base::ids::PackId;

/// The frames that are needed. About 25 bytes of memory for each.
#[derive(Debug, Default)]
pub struct Needed {
    blocks: Frames,
    pages: Frames,
}

type Frames = HashMap<PackId, HashMap<u32, Mark>>;

/// What is kept of a frame, by its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its bytes in the object.
    pub stored: u32,
    /// Half of a hash of the frame's description.
    digest: u64,
}

impl Mark {
    /// Of this frame.
    pub fn of(frame: &Frame) -> Self {
        let mut bytes = Vec::with_capacity(Frame::BYTES);
        frame.write(&mut bytes);
        let digest = blake3::hash(&bytes);
        let half = digest.as_bytes()[..8].try_into().expect("a hash has 32 bytes");
        Self { stored: frame.stored, digest: u64::from_le_bytes(half) }
    }
}

impl Needed {
    /// Adds a frame; whether it is new.
    fn add(&mut self, kind: PackKind, reference: &Reference) -> bool {
        let Reference { pack, frame } = reference;
        let frames = self.of_mut(kind).entry(*pack).or_default();
        frames.insert(frame.offset, Mark::of(frame)).is_none()
    }

    /// The needed frames of an object; none where nothing needs it.
    pub fn frames(&self, kind: PackKind, pack: PackId) -> Option<&HashMap<u32, Mark>> {
        self.of(kind).get(&pack)
    }

    /// Every object of which something is needed.
    pub fn objects(&self) -> Vec<(PackKind, PackId)> {
        let kinds = [PackKind::Pages, PackKind::Blocks];
        kinds.into_iter().flat_map(|kind| self.of(kind).keys().map(move |id| (kind, *id))).collect()
    }

    /// Bytes of an object that are needed.
    pub fn bytes(&self, kind: PackKind, pack: PackId) -> u64 {
        let frames = self.frames(kind, pack).into_iter().flatten();
        frames.map(|(_, mark)| u64::from(mark.stored)).sum()
    }

    fn of(&self, kind: PackKind) -> &Frames {
        match kind {
            PackKind::Blocks => &self.blocks,
            PackKind::Pages => &self.pages,
        }
    }

    fn of_mut(&mut self, kind: PackKind) -> &mut Frames {
        match kind {
            PackKind::Blocks => &mut self.blocks,
            PackKind::Pages => &mut self.pages,
        }
    }

    fn add_blocks(&mut self, page: &Page) {
        for reference in page.slots().iter().flatten() {
            self.add(PackKind::Blocks, reference);
        }
    }
}

impl Volumes {
    /// Marks what a version needs.
    ///
    /// # Errors
    /// A page cannot be read.
    pub(super) async fn mark(
        &self,
        root: Arc<Root>,
        needed: &mut Needed,
    ) -> Result<(), VolumeError> {
        let wanted = new_pages(&root, needed);
        for (_, page) in self.read_pages(&root, wanted).await? {
            needed.add_blocks(&page);
        }
        Ok(())
    }

    /// The same, and where pages cannot be read, the others are marked. Gives the bad ones.
    ///
    /// # Errors
    /// The store fails otherwise than by damage.
    pub(super) async fn mark_what_reads(
        &self,
        root: Arc<Root>,
        needed: &mut Needed,
    ) -> Result<Vec<(Wanted, VolumeError)>, VolumeError> {
        let wanted = new_pages(&root, needed);
        match self.read_pages(&root, wanted.clone()).await {
            Ok(pages) => pages.iter().for_each(|(_, page)| needed.add_blocks(page)),
            Err(error) if !error.is_damage() => return Err(error),
            Err(_) => {
                let mut bad = Vec::new();
                for one in wanted {
                    match self.read_pages(&root, vec![one]).await {
                        Ok(pages) => pages.iter().for_each(|(_, page)| needed.add_blocks(page)),
                        Err(error) if error.is_damage() => bad.push((one, error)),
                        Err(error) => return Err(error),
                    }
                }
                return Ok(bad);
            }
        }
        Ok(Vec::new())
    }
}

/// The pages of a version that no version before it has; they are marked, and the boot set's blocks.
fn new_pages(root: &Root, needed: &mut Needed) -> Vec<Wanted> {
    for block in &root.boot {
        needed.add(PackKind::Blocks, &block.reference);
    }
    root.wanted_pages().filter(|page| needed.add(PackKind::Pages, &page.reference)).collect()
}
