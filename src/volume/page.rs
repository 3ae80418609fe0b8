//! Index pages: where 256 blocks of a file are.

use std::collections::HashSet;

use super::format::{Fields, FormatError, exactly, within};
use super::reference::{Encoding, Frame, Reference};
use crate::base::ids::PackId;
use crate::base::limits::BLOCK_BYTES;

/// Blocks that one page is for.
pub const PAGE_BLOCKS: usize = 256;
/// Bytes of a file that one page is for.
pub const PAGE_COVERS: u64 = (PAGE_BLOCKS * BLOCK_BYTES) as u64;

/// Bytes of a page's bit map.
pub const MAP_BYTES: usize = PAGE_BLOCKS / 8;
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 40;

/// The references of the blocks of one stretch of a file; `None` is a zero block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    covered: u32,
    slots: Vec<Option<Reference>>,
}

/// How many pages a file of this size has, zero ones too.
pub fn pages_of(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(PAGE_COVERS)
}

/// How many bytes of a file of this size the page with this number is for.
pub fn covered_by(file_bytes: u64, page: u64) -> u32 {
    file_bytes.saturating_sub(page * PAGE_COVERS).min(PAGE_COVERS) as u32
}

impl Page {
    /// A page for `covered` bytes; there is one slot for each block of them.
    pub fn new(covered: u32, slots: Vec<Option<Reference>>) -> Self {
        debug_assert_eq!(slots.len(), blocks_in(covered));
        Self { covered, slots }
    }

    /// Bytes of the file that it is for.
    pub fn covered(&self) -> u32 {
        self.covered
    }

    /// The references, one for each block.
    pub fn slots(&self) -> &[Option<Reference>] {
        &self.slots
    }

    /// Whether all blocks are zero. Such a page is not written.
    pub fn is_zero(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// The page's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (mut packs, mut map) = (Vec::<PackId>::new(), [0; MAP_BYTES]);
        let mut slots = Vec::with_capacity(PAGE_BLOCKS * SLOT_BYTES);
        for (block, reference) in self.slots.iter().enumerate() {
            let Some(Reference { pack, frame }) = reference else { continue };
            map[block / 8] |= 1 << (block % 8);
            let place = packs.iter().position(|known| known == pack).unwrap_or_else(|| {
                packs.push(*pack);
                packs.len() - 1
            });
            slots.extend([place as u8, frame.encoding.code()]);
            slots.extend(((frame.stored - 1) as u16).to_le_bytes());
            slots.extend(frame.offset.to_le_bytes());
            slots.extend(frame.hash.as_bytes());
        }
        let mut out = Vec::with_capacity(8 + MAP_BYTES + 16 * packs.len() + slots.len());
        out.extend(self.covered.to_le_bytes());
        out.extend((packs.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(map);
        packs.iter().for_each(|pack| out.extend(pack.to_bytes()));
        out.extend(slots);
        out
    }

    /// Reads a page's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields(bytes);
        let covered = within("what a page covers", fields.u32()?, 1, PAGE_COVERS as u32)?;
        let count = within("a page's packs", fields.u16()?.into(), 1, PAGE_BLOCKS as u32)?;
        fields.reserved::<2>()?;
        let map: [u8; MAP_BYTES] = fields.array()?;
        let is_set = |block: usize| map[block / 8] & (1 << (block % 8)) != 0;
        let blocks = blocks_in(covered);
        if (blocks..PAGE_BLOCKS).any(is_set) {
            return Err(FormatError::invalid("a page has references past its end"));
        }
        let packs = (0..count)
            .map(|_| fields.array().map(PackId::from_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        if packs.iter().collect::<HashSet<_>>().len() != packs.len() {
            return Err(FormatError::invalid("a page names a pack twice"));
        }
        let mut slots = Vec::with_capacity(blocks);
        let mut used = 0;
        for block in 0..blocks {
            let slot = if is_set(block) {
                let raw = BLOCK_BYTES.min(covered as usize - block * BLOCK_BYTES);
                let (place, slot) = read_slot(&mut fields, &packs, raw as u32)?;
                if place > used {
                    return Err(FormatError::invalid("a page's packs are not in their order"));
                }
                used = used.max(place + 1);
                Some(slot)
            } else {
                None
            };
            slots.push(slot);
        }
        exactly(0, fields.0)?;
        if used != packs.len() {
            return Err(FormatError::invalid("a page names a pack that it does not use"));
        }
        Ok(Self { covered, slots })
    }
}

/// Reads a slot for a block of `raw` bytes: which of the packs it is in, and where.
pub fn read_slot(
    fields: &mut Fields<'_>,
    packs: &[PackId],
    raw: u32,
) -> Result<(usize, Reference), FormatError> {
    let place = usize::from(fields.u8()?);
    let encoding = Encoding::from_code(fields.u8()?)?;
    let stored = u32::from(fields.u16()?) + 1;
    let frame = Frame { offset: fields.u32()?, stored, raw, encoding, hash: fields.hash()? };
    let pack = packs.get(place).ok_or_else(|| FormatError::invalid("a slot has no pack"))?;
    Ok((place, Reference { pack: *pack, frame: frame.checked()? }))
}

fn blocks_in(covered: u32) -> usize {
    (covered as usize).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(pack: u8, offset: u32, stored: u32, raw: u32) -> Option<Reference> {
        let encoding = if stored == raw { Encoding::Raw } else { Encoding::Zstd };
        let hash = blake3::hash(&offset.to_le_bytes());
        let frame = Frame { offset, stored, raw, encoding, hash };
        Some(Reference { pack: PackId::from_bytes([pack; 16]), frame })
    }

    fn scattered() -> Page {
        let block = BLOCK_BYTES as u32;
        Page::new(
            3 * block + 5,
            vec![
                reference(9, 32, 1, block),
                None,
                reference(2, 32, block, block),
                reference(9, 33, 4, 5),
            ],
        )
    }

    #[test]
    fn pages_come_back_and_cost_what_they_hold() {
        let block = BLOCK_BYTES as u32;
        let full = |packs: u32| {
            let slot = |n: u32| reference((n % packs) as u8, 32 + n, 1, block);
            Page::new(PAGE_COVERS as u32, (0..256).map(slot).collect())
        };
        for (page, bytes) in [
            (scattered(), 40 + 2 * 16 + 3 * 40),
            (Page::new(1, vec![reference(1, 32, 1, 1)]), 40 + 16 + 40),
            (full(1), 40 + 16 + 256 * 40),
            (full(256), 14_376),
        ] {
            let encoded = page.encode();
            assert_eq!(encoded.len(), bytes);
            assert_eq!(Page::decode(&encoded), Ok(page));
        }
    }

    #[test]
    fn damage_is_an_error_or_another_page_and_never_a_panic() {
        let bytes = scattered().encode();
        for length in 0..bytes.len() {
            assert!(Page::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        assert!(Page::decode(&[&bytes[..], &[0]].concat()).is_err());
        // Without its frame's hash a page cannot know itself. What it may not do is overstep.
        let mut damaged = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(page) = Page::decode(&damaged) {
                assert_ne!(page, scattered(), "bit {bit} says nothing");
                assert_eq!(page.encode(), damaged, "there is one way to write a page");
            }
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn files_are_cut_into_pages() {
        for (file, pages, last) in [
            (0, 0, 0),
            (1, 1, 1),
            (PAGE_COVERS, 1, PAGE_COVERS as u32),
            (PAGE_COVERS + 1, 2, 1),
            (u64::MAX, 1 << 40, (PAGE_COVERS - 1) as u32),
        ] {
            assert_eq!(pages_of(file), pages, "{file}");
            assert_eq!(covered_by(file, pages.saturating_sub(1)), last, "{file}");
        }
    }
}
