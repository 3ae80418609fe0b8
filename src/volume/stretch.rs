//! Reading a directory's files: what of them is known already, and what is new.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use zstd::bulk::Compressor;

use super::error::VolumeError;
use super::format::FormatError;
use super::page::{PAGE_COVERS, Page, covered_by};
use super::reference::{Encoded, Reference, ZSTD_LEVEL};
use crate::base::limits::BLOCK_BYTES;
use crate::mount::MountError;

/// What a zero block holds.
pub static ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// The part of a file that one index page is for.
pub struct Stretch {
    /// The file.
    pub path: PathBuf,
    /// The file's path in the volume.
    pub name: String,
    /// Its size, as the directory was listed.
    pub file_bytes: u64,
    /// Which stretch of it.
    pub page: u64,
    /// The parent's page at this place.
    pub before: Option<Arc<Page>>,
    /// The parent's blocks that may be anywhere.
    pub moved: Arc<HashMap<blake3::Hash, Reference>>,
}

/// A block as found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// All zero.
    Zero,
    /// In the store already.
    Known(Reference),
    /// To be stored.
    New(Encoded),
}

impl Stretch {
    /// Reads, hashes and compresses the blocks of the stretch. Blocks.
    pub fn read(&self) -> Result<Vec<Found>, VolumeError> {
        let file = File::open(&self.path).map_err(MountError::io("read", &self.path))?;
        let size = file.metadata().map_err(MountError::io("read", &self.path))?.len();
        if size != self.file_bytes {
            return Err(VolumeError::Changed { path: self.name.clone() });
        }
        let mut compressor =
            Compressor::new(ZSTD_LEVEL).map_err(MountError::io("compress", &self.path))?;
        let mut buffer = vec![0; BLOCK_BYTES];
        let covered = covered_by(self.file_bytes, self.page) as usize;
        let mut blocks = Vec::with_capacity(covered.div_ceil(BLOCK_BYTES));
        for at in (0..covered).step_by(BLOCK_BYTES) {
            let block = &mut buffer[..BLOCK_BYTES.min(covered - at)];
            let offset = self.page * PAGE_COVERS + at as u64;
            file.read_exact_at(block, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => VolumeError::Changed { path: self.name.clone() },
                _ => MountError::io("read", &self.path)(error).into(),
            })?;
            blocks.push(self.find(at / BLOCK_BYTES, block, &mut compressor)?);
        }
        Ok(blocks)
    }

    fn find(
        &self,
        slot: usize,
        block: &[u8],
        compressor: &mut Compressor<'_>,
    ) -> Result<Found, VolumeError> {
        let before = self.before.as_ref().and_then(|page| *page.slots().get(slot)?);
        find(block, before.as_ref(), &self.moved, compressor)
            .map_err(|error| MountError::io("compress", &self.path)(io::Error::other(error)).into())
    }
}

/// What of a block is in the store: where it was before, or where it may have come from.
pub fn find(
    block: &[u8],
    before: Option<&Reference>,
    moved: &HashMap<blake3::Hash, Reference>,
    compressor: &mut Compressor<'_>,
) -> Result<Found, FormatError> {
    if block == &ZEROES[..block.len()] {
        return Ok(Found::Zero);
    }
    let hash = blake3::hash(block);
    let same = before.filter(|reference| reference.frame.hash == hash);
    if let Some(reference) = same.or_else(|| moved.get(&hash)) {
        return Ok(Found::Known(*reference));
    }
    Ok(Found::New(Encoded::new(block, hash, compressor)?))
}
