//! Blocks that were read or written before, on this machine's disk, shared by all branches.
//!
//! A file of slots of a block each, and a table that says which block is in which slot. Neither is
//! ever flushed: a block is known by its hash, checked on every read, so what is stale, torn or
//! damaged is a block that is not there. For the same reason no error of the disk is one of a read.

mod slots;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::warn;

use super::error::VolumeError;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::MountError;
use slots::{Name, Slots};

/// The table's first bytes: what it is, and of which layout.
const HEADER: [u8; 16] = *b"ARGNCACHE\0\0\0\0\0\0\x01";
/// A name, and the same in a form that chance does not make.
const ENTRY_BYTES: usize = 16;
const ENTRY_MARK: u64 = 0x6b63_6f6c_625f_676e;

/// A cache of blocks on disk. Its methods block for a read or write of 64 KiB.
#[derive(Debug)]
pub struct BlockCache {
    directory: PathBuf,
    slab: File,
    table: File,
    slots: Mutex<Slots>,
    /// The most slots that it was opened for.
    most: u32,
    /// Whether the log says already that the disk fails.
    complained: AtomicBool,
}

impl BlockCache {
    /// The cache in this directory, which is made where it is missing. It takes at most `max_bytes`
    /// of disk, and 0.1 % of the same in memory. One process uses it at a time.
    ///
    /// # Errors
    /// Its files cannot be opened. That they are damaged is none: then it starts empty.
    pub fn open(directory: &Path, max_bytes: u64) -> Result<Self, VolumeError> {
        fs::create_dir_all(directory).map_err(MountError::io("create", directory))?;
        let open = |name| {
            let path = directory.join(name);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(&path).map_err(MountError::io("open", &path))
        };
        let (slab, table) = (open("blocks")?, open("table")?);
        let most = slots_in(max_bytes);
        let found = read_table(&table, most).and_then(|found| {
            // What an earlier, larger bound left.
            let keep = slab.metadata()?.len().min(u64::from(most) * BLOCK_BYTES as u64);
            slab.set_len(keep)?;
            table.set_len((HEADER.len() + found.len() * ENTRY_BYTES) as u64)?;
            Ok(found)
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    warn!("the block cache in {} starts empty: {error}", directory.display());
                }
                let empty = slab.set_len(0).and_then(|()| table.set_len(0));
                empty
                    .and_then(|()| table.write_all_at(&HEADER, 0))
                    .map_err(MountError::io("empty the block cache in", directory))?;
                Vec::new()
            }
        };
        let slots = Mutex::new(Slots::new(most, found.into_iter()));
        let (directory, complained) = (directory.to_owned(), AtomicBool::new(false));
        Ok(Self { directory, slab, table, slots, most, complained })
    }

    /// The block of this length with this hash, if it is here.
    pub fn read(&self, hash: &blake3::Hash, length: usize) -> Option<Bytes> {
        let name = name(hash);
        let slot = self.slots().find(name)?;
        let mut block = vec![0; length.min(BLOCK_BYTES)];
        let read = self.slab.read_exact_at(&mut block, place(slot));
        if read.is_ok() && blake3::hash(&block) == *hash {
            return Some(block.into());
        }
        if let Err(error) = read
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            self.complain("read", &error);
        }
        // Or another block took the slot meanwhile, and stays.
        if self.slots().forget(slot, name) {
            self.note(slot, None);
        }
        None
    }

    /// Whether the block is here, as far as the table knows: no file is read.
    pub fn contains(&self, hash: &blake3::Hash) -> bool {
        self.slots().contains(name(hash))
    }

    /// Keeps a block of 1 to 64 KiB, if the disk lets it; the hash is its.
    pub fn insert(&self, hash: &blake3::Hash, block: &[u8]) {
        debug_assert!(block.len() <= BLOCK_BYTES);
        let name = name(hash);
        let Some(slot) = self.slots().reserve(name) else { return };
        match self.slab.write_all_at(block, place(slot)) {
            Ok(()) => {
                self.note(slot, Some(name));
                self.slots().publish(slot);
            }
            Err(error) => {
                self.complain("write", &error);
                self.slots().abandon(slot);
            }
        }
    }

    /// Bytes of disk that it takes, at most.
    pub fn bytes(&self) -> u64 {
        u64::from(self.slots().taken()) * BLOCK_BYTES as u64
    }

    /// Gives disk back until it takes at most `bytes`, and takes no more from now on; the blocks
    /// that were not used for the longest time go. What it was opened with stays the most.
    pub fn shrink_to(&self, bytes: u64) {
        let limit = slots_in(bytes).min(self.most);
        let victims = self.slots().set_limit(limit);
        let punched = victims.iter().try_for_each(|slot| punch(&self.slab, place(*slot)));
        if let Err(error) = punched {
            self.complain("give back a part of", &error);
            self.empty(victims, limit);
            return;
        }
        victims.iter().for_each(|slot| self.note(*slot, None));
        let mut slots = self.slots();
        victims.into_iter().for_each(|slot| slots.release(slot));
    }

    /// Whether a block can be taken without another's going.
    pub(super) fn has_room(&self) -> bool {
        self.slots().has_room()
    }

    /// Where a file system cannot free a part of a file, all of it goes.
    fn empty(&self, victims: Vec<u32>, limit: u32) {
        let mut slots = self.slots();
        let others = slots.set_limit(0);
        victims.into_iter().chain(others).for_each(|slot| slots.release(slot));
        slots.set_limit(limit);
        if let Err(error) = self.slab.set_len(0).and_then(|()| self.table.set_len(0)) {
            self.complain("empty", &error);
        }
        // A table without its header is an empty one at the next start: as good.
        let _ = self.table.write_all_at(&HEADER, 0);
    }

    /// Enters in the table what a slot holds. A stale entry is harmless.
    fn note(&self, slot: u32, name: Option<Name>) {
        let entry = name.map_or([0; ENTRY_BYTES], entry);
        let at = HEADER.len() + slot as usize * ENTRY_BYTES;
        if let Err(error) = self.table.write_all_at(&entry, at as u64) {
            self.complain("write the table of", &error);
        }
    }

    fn complain(&self, doing: &str, error: &io::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            let directory = self.directory.display();
            warn!("cannot {doing} the block cache in {directory}, the store serves: {error}");
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slots_in(bytes: u64) -> u32 {
    u32::try_from(bytes / BLOCK_BYTES as u64).unwrap_or(u32::MAX)
}

fn place(slot: u32) -> u64 {
    u64::from(slot) * BLOCK_BYTES as u64
}

fn name(hash: &blake3::Hash) -> Name {
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    Name::from_le_bytes(*first)
}

fn entry(name: Name) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..8].copy_from_slice(&name.to_le_bytes());
    entry[8..].copy_from_slice(&(name.rotate_left(32) ^ ENTRY_MARK).to_le_bytes());
    entry
}

/// What the slots hold, as far as the table can be believed.
fn read_table(table: &File, most: u32) -> io::Result<Vec<Option<Name>>> {
    let mut header = [0; HEADER.len()];
    table.read_exact_at(&mut header, 0)?;
    if header != HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its table is not one"));
    }
    let entries = (table.metadata()?.len() - HEADER.len() as u64) / ENTRY_BYTES as u64;
    let mut bytes = vec![0; entries.min(most.into()) as usize * ENTRY_BYTES];
    table.read_exact_at(&mut bytes, HEADER.len() as u64)?;
    let (found, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let read = |bytes: &[u8; ENTRY_BYTES]| {
        let (name, _) = bytes.split_first_chunk()?;
        let name = Name::from_le_bytes(*name);
        (entry(name) == *bytes).then_some(name)
    };
    Ok(found.iter().map(read).collect())
}

/// Frees the disk under a slot.
#[cfg(target_os = "linux")]
fn punch(slab: &File, at: u64) -> io::Result<()> {
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (at, length) = (at as libc::off_t, BLOCK_BYTES as libc::off_t);
    // SAFETY: it is given a descriptor that is open as long as `slab` is, and numbers.
    match unsafe { libc::fallocate(slab.as_raw_fd(), how, at, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn punch(_slab: &File, _at: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
