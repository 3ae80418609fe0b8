//! The same operations on a mount and on a plain directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::mapping::Mapping;
use super::source::{Random, pattern};

/// How many files are open at once.
const SLOTS: u64 = 4;
/// Files grow up to here.
pub(super) const BYTES_MAX: u64 = 300_000;

/// What is done; paths are relative.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Open { slot: u64, path: String, flags: i32 },
    Close { slot: u64 },
    Write { slot: u64, offset: u64, length: usize, seed: u64 },
    Append { slot: u64, length: usize, seed: u64 },
    Read { slot: u64, offset: u64, length: usize },
    Truncate { slot: u64, bytes: u64 },
    Allocate { slot: u64, mode: i32, offset: u64, length: u64 },
    MapWrite { slot: u64, offset: u64, length: usize, seed: u64 },
    MapRead { slot: u64, offset: u64, length: usize },
    Direct { slot: u64, page: u64, pages: usize, seed: Option<u64> },
    Copy { from: u64, to: u64, offset: u64, target: u64, length: usize },
    Known { slot: u64 },
    Sync { slot: u64 },
    SyncDirectory { path: String },
    Rename { from: String, to: String },
    Unlink { path: String },
    MakeDirectory { path: String },
    RemoveDirectory { path: String },
    Mode { path: String, mode: u32 },
    Facts { path: String },
    List { path: String },
}

/// What came of it: bytes or numbers, or the error's number.
pub(super) type Outcome = Result<Vec<u8>, i32>;

/// Which operations are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// Many names, some content.
    Names,
    /// One file.
    Content,
}

fn path(random: &mut Random) -> String {
    let folder = ["", "", "d0/", "d1/", "d0/d2/"][random.next() as usize % 5];
    let name = ["f0", "f1", "f2", "d2", "d3"][random.next() as usize % 5];
    match random.next() % 8 {
        0 => "d0".into(),
        1 => "d1".into(),
        _ => format!("{folder}{name}"),
    }
}

impl Op {
    pub(super) fn draw(random: &mut Random, profile: Profile) -> Self {
        let slot = random.next() % SLOTS;
        let offset = random.next() % BYTES_MAX;
        // Often at the edge of a page or a block.
        let offset = match random.next() % 4 {
            0 => offset / 4096 * 4096,
            1 => offset / 65536 * 65536,
            _ => offset,
        };
        let length = match random.next() % 4 {
            0 => 4096 * (1 + random.next() % 4),
            1 => random.next() % 100,
            _ => random.next() % 20_000,
        };
        let (seed, size) = (random.next(), length as usize);
        let kinds = if profile == Profile::Names { 27 } else { 17 };
        match random.next() % kinds {
            0 | 1 => {
                let path = if profile == Profile::Names { path(random) } else { "f0".into() };
                let flags =
                    [0, libc::O_CREAT, libc::O_APPEND, libc::O_CREAT | libc::O_EXCL, libc::O_TRUNC];
                let allowed = if profile == Profile::Names { 5 } else { 3 };
                Self::Open { slot, path, flags: flags[random.next() as usize % allowed] }
            }
            2..=4 => Self::Write { slot, offset, length: size, seed },
            5 => Self::Append { slot, length: size, seed },
            6 | 7 => Self::Read { slot, offset, length: size * 3 },
            8 => Self::Truncate { slot, bytes: offset },
            9 | 10 => {
                let modes = [
                    0,
                    libc::FALLOC_FL_KEEP_SIZE,
                    libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
                    libc::FALLOC_FL_ZERO_RANGE,
                    libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
                ];
                let mode = modes[random.next() as usize % modes.len()];
                Self::Allocate { slot, mode, offset, length: length + 1 }
            }
            11 => Self::MapWrite { slot, offset, length: size, seed },
            12 => Self::MapRead { slot, offset, length: size },
            13 => Self::Sync { slot },
            14 => {
                let (page, pages) = (offset / 4096, 1 + size / 4096);
                Self::Direct { slot, page, pages, seed: seed.is_multiple_of(2).then_some(seed) }
            }
            15 => {
                let (to, target) = (random.next() % SLOTS, random.next() % BYTES_MAX);
                Self::Copy { from: slot, to, offset, target, length: size }
            }
            16 => Self::Known { slot },
            17 => Self::Close { slot },
            18 | 19 => Self::Rename { from: path(random), to: path(random) },
            20 | 21 => Self::Unlink { path: path(random) },
            22 => Self::MakeDirectory { path: path(random) },
            23 => Self::RemoveDirectory { path: path(random) },
            24 => Self::Mode { path: path(random), mode: 0o600 | random.next() as u32 & 0o177 },
            25 => Self::Facts { path: path(random) },
            _ if random.next().is_multiple_of(2) => Self::List { path: "d0".into() },
            _ => Self::SyncDirectory { path: "d0".into() },
        }
    }
}

/// A directory and what is open in it.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) root: PathBuf,
    open: BTreeMap<u64, File>,
}

impl Side {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: BTreeMap::new() }
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    pub(super) fn run(&mut self, op: &Op) -> Outcome {
        self.attempt(op).map_err(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn attempt(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        let none = || io::Error::from_raw_os_error(libc::EBADF);
        let slot = |slot: &u64| self.open.get(slot).ok_or_else(none);
        let at = |path: &String| self.root.join(path);
        match op {
            Op::Open { slot, path, flags } => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).mode(0o640).custom_flags(*flags);
                let file = options.open(at(path))?;
                self.open.insert(*slot, file);
                Ok(Vec::new())
            }
            Op::Close { slot } => {
                self.open.remove(slot);
                Ok(Vec::new())
            }
            Op::Write { slot: s, offset, length, seed } => {
                slot(s)?.write_all_at(&pattern(*seed, *length), *offset).map(|()| Vec::new())
            }
            Op::Append { slot: s, length, seed } => {
                let file = slot(s)?;
                let bytes = file.metadata()?.len();
                if bytes < BYTES_MAX {
                    file.write_all_at(&pattern(*seed, *length), bytes)?;
                }
                Ok(bytes.to_le_bytes().to_vec())
            }
            Op::Read { slot: s, offset, length } => read(slot(s)?, *offset, *length),
            Op::Truncate { slot: s, bytes } => slot(s)?.set_len(*bytes).map(|()| Vec::new()),
            Op::Allocate { slot: s, mode, offset, length } => {
                allocate(slot(s)?, *mode, *offset, *length)
            }
            Op::MapWrite { slot: s, offset, length, seed } => {
                map(slot(s)?, *offset, *length, Some(*seed))
            }
            Op::MapRead { slot: s, offset, length } => map(slot(s)?, *offset, *length, None),
            Op::Direct { slot: s, page, pages, seed } => direct(slot(s)?, *page, *pages, *seed),
            Op::Copy { from, to, offset, target, length } => {
                copy(slot(from)?, slot(to)?, *offset, *target, *length)
            }
            Op::Known { slot: s } => {
                let facts = slot(s)?.metadata()?;
                Ok([facts.len(), facts.mode().into(), facts.nlink()].map(u64::to_le_bytes).concat())
            }
            Op::Sync { slot: s } => slot(s)?.sync_all().map(|()| Vec::new()),
            Op::SyncDirectory { path } => File::open(at(path))?.sync_all().map(|()| Vec::new()),
            Op::Rename { from, to } => fs::rename(at(from), at(to)).map(|()| Vec::new()),
            Op::Unlink { path } => fs::remove_file(at(path)).map(|()| Vec::new()),
            Op::MakeDirectory { path } => fs::create_dir(at(path)).map(|()| Vec::new()),
            Op::RemoveDirectory { path } => fs::remove_dir(at(path)).map(|()| Vec::new()),
            Op::Mode { path, mode } => {
                // A directory needs its own bits to be looked into by a user that is not root.
                let mode = if at(path).is_dir() { mode | 0o700 } else { *mode };
                fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).map(|()| Vec::new())
            }
            Op::Facts { path } => {
                let facts = fs::symlink_metadata(at(path))?;
                let bytes = if facts.is_file() { facts.len() } else { 0 };
                let links = if facts.is_file() { facts.nlink() } else { 0 };
                Ok([bytes, u64::from(facts.mode()), links].map(u64::to_le_bytes).concat())
            }
            Op::List { path } => {
                let entries = fs::read_dir(at(path))?.collect::<io::Result<Vec<_>>>()?;
                let mut names: Vec<_> =
                    entries.into_iter().map(|e| e.file_name().into_string().unwrap()).collect();
                names.sort();
                Ok(names.join("\n").into_bytes())
            }
        }
    }
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut out[filled..], offset + filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    out.truncate(filled);
    Ok(out)
}

fn allocate(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) };
    if result == 0 { Ok(Vec::new()) } else { Err(io::Error::last_os_error()) }
}

/// Reads, or writes within the file, by whole pages that the kernel does not keep.
fn direct(file: &File, page: u64, pages: usize, seed: Option<u64>) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    // The same file, whatever its name is by now.
    let again = options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let pages = match seed {
        Some(_) => pages.min((file.metadata()?.len() / 4096).saturating_sub(page) as usize),
        None => pages,
    };
    let mut buffer = vec![0; (pages + 1) * 4096];
    let aligned = buffer.as_ptr().align_offset(4096);
    let part = &mut buffer[aligned..aligned + pages * 4096];
    match seed {
        Some(seed) => {
            part.copy_from_slice(&pattern(seed, part.len()));
            again.write_all_at(part, page * 4096).map(|()| Vec::new())
        }
        None => {
            let read = again.read_at(part, page * 4096)?;
            Ok(part[..read].to_vec())
        }
    }
}

/// Copies within the kernel, as far as the one reaches, and gives how far that was.
fn copy(from: &File, to: &File, at: u64, target: u64, length: usize) -> io::Result<Vec<u8>> {
    let (mut at, mut target) = (at as i64, target as i64);
    let mut copied = 0;
    while copied < length {
        // SAFETY: both descriptors are open as long as they are borrowed.
        let more = unsafe {
            let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
            libc::copy_file_range(from, &mut at, to, &mut target, length - copied, 0)
        };
        match more {
            0 => break,
            more if more < 0 => return Err(io::Error::last_os_error()),
            more => copied += more as usize,
        }
    }
    Ok(copied.to_le_bytes().to_vec())
}

/// Reads or writes by a shared mapping, within the file; a read goes on to the end of the last page.
fn map(file: &File, offset: u64, length: usize, seed: Option<u64>) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.len();
    let end = bytes.min(offset + length as u64);
    if offset >= end {
        return Ok(Vec::new());
    }
    let start = offset / 4096 * 4096;
    let size = (end - start) as usize;
    let size = if seed.is_none() { size.next_multiple_of(4096) } else { size };
    let mut mapping = Mapping::new(file, start as i64, size)?;
    let within = (offset - start) as usize;
    let Some(seed) = seed else { return mapping.read(within, size - within) };
    mapping.write(within, &pattern(seed, size - within))?;
    mapping.sync(if seed.is_multiple_of(2) { libc::MS_SYNC } else { libc::MS_ASYNC })?;
    Ok(Vec::new())
}
