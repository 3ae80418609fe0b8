//! An index page kept as its bytes: 40 bytes a block in memory, where references would be 72.

use super::format::{Fields, FormatError};
use super::index::decode;
use super::page::{MAP_BYTES, PAGE_BLOCKS, Page, SLOT_BYTES, read_slot};
use super::reference::Reference;
use crate::base::ids::PackId;
use crate::base::limits::BLOCK_BYTES;

/// A page that was checked as a whole, so that it can be looked into in part.
#[derive(Debug)]
pub struct CompactPage {
    covered: u32,
    packs: Vec<PackId>,
    map: [u8; MAP_BYTES],
    slots: Box<[u8]>,
}

impl CompactPage {
    /// The page with these bytes, which must be for `covered` bytes of a file.
    pub fn new(content: &[u8], covered: u32) -> Result<Self, FormatError> {
        decode(content, covered)?;
        Self::checked(content, covered)
    }

    /// A page of which the bytes are wanted, too.
    pub fn of(page: &Page) -> Result<(Self, Vec<u8>), FormatError> {
        let content = page.encode();
        Ok((Self::checked(&content, page.covered())?, content))
    }

    fn checked(content: &[u8], covered: u32) -> Result<Self, FormatError> {
        let mut fields = Fields(content);
        fields.u32()?;
        let packs = fields.u16()?;
        fields.reserved::<2>()?;
        let map = fields.array()?;
        let packs =
            (0..packs).map(|_| fields.array().map(PackId::from_bytes)).collect::<Result<_, _>>()?;
        Ok(Self { covered, packs, map, slots: fields.0.into() })
    }

    /// Where a block is; none where it is zero or past the end.
    pub fn block(&self, block: usize) -> Option<Reference> {
        if block >= PAGE_BLOCKS || self.map[block / 8] & (1 << (block % 8)) == 0 {
            return None;
        }
        let before = self.map[..block / 8].iter().map(|byte| byte.count_ones()).sum::<u32>()
            + (self.map[block / 8] & ((1 << (block % 8)) - 1)).count_ones();
        let raw = BLOCK_BYTES.min(self.covered as usize - block * BLOCK_BYTES);
        let slot = &self.slots[before as usize * SLOT_BYTES..];
        // Anything else than a reference would be shown as zeroes.
        let read = read_slot(&mut Fields(slot), &self.packs, raw as u32);
        Some(read.expect("the page was read as a whole before").1)
    }

    /// The references, one for each block that the page is for.
    pub fn blocks(&self) -> impl Iterator<Item = Option<Reference>> {
        (0..(self.covered as usize).div_ceil(BLOCK_BYTES)).map(|block| self.block(block))
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.packs.capacity() * 16 + self.slots.len()
    }
}
