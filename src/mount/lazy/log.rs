//! An overlay's log: records behind each other in one file, each with a length and a checksum.
//!
//! A record's frame also says how much of the log was on the disk when it was written. That tells a
//! torn end, which a power cut leaves and which may have gaps, from damage: what some later record
//! knows to have been on the disk and cannot be read any more.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{RUNS_MAX, Record};
use crate::mount::MountError;

const MAGIC: &[u8; 8] = b"argovl01";
/// Length (4), how much is synced (8), checksum (8).
const FRAME: usize = 20;
/// Largest record; one with runs is the largest.
const RECORD_MAX: usize = RUNS_MAX * 16 + 64;
/// Shorter logs are not written anew.
const REWRITE_BYTES_MIN: u64 = 1024 * 1024;
/// How much longer than after it was last written anew a log may become.
const REWRITE_FACTOR: u64 = 4;

/// How much of what was left behind is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All that was synced.
    Whole,
    /// What comes before the first damage: for somebody who wants what can be had.
    UpToDamage,
}

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    end: u64,
    /// The end of the last record that says something.
    wanted: u64,
    synced: u64,
    /// How long it was when it was written anew.
    fresh: u64,
    /// Counts the files that the log was.
    generation: u64,
    /// What was appended since a rewrite began.
    fork: Option<Vec<Record>>,
    /// A record could not be written nor taken back.
    broken: bool,
}

impl Log {
    /// A new log of these records, on the disk when this returns. Replaces what is there.
    pub(super) fn create(directory: &Path, records: &[Record]) -> Result<Self, MountError> {
        let path = directory.join("log");
        let (file, end) = write_beside(&path, records).map_err(MountError::io("write", &path))?;
        put_in_place(&path).map_err(MountError::io("write", &path))?;
        Ok(Self::over(path, file, end, end))
    }

    /// A new log of these records where none is, not on the disk before [`Self::sync`].
    pub(super) fn begin(directory: &Path, records: &[Record]) -> Result<Self, MountError> {
        let path = directory.join("log");
        let bytes = framed_all(records);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            Ok(file)
        });
        let file = written.map_err(MountError::io("write", &path))?;
        Ok(Self::over(path, file, bytes.len() as u64, 0))
    }

    /// Opens a log at the end of its records, as [`read`] found it.
    pub(super) fn open(directory: &Path, end: u64) -> Result<Self, MountError> {
        let path = directory.join("log");
        let open = || {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            file.set_len(end)?;
            file.sync_data()?;
            Ok(file)
        };
        let file = open().map_err(MountError::io("open", &path))?;
        Ok(Self::over(path, file, end, end))
    }

    fn over(path: PathBuf, file: File, end: u64, synced: u64) -> Self {
        let inner = Inner {
            file: file.into(),
            end,
            wanted: end,
            synced,
            fresh: end,
            generation: 0,
            fork: None,
            broken: false,
        };
        Self { path, inner: inner.into() }
    }

    /// Adds a record. It survives this process, not the machine: see [`Self::sync`].
    pub(super) fn append(&self, record: Record) -> io::Result<()> {
        let mut inner = self.lock();
        inner.write(&record)?;
        inner.wanted = inner.end;
        if let Some(fork) = &mut inner.fork {
            fork.push(record);
        }
        Ok(())
    }

    /// Returns when everything that was appended before is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (file, end, generation) = {
            let inner = self.lock();
            if inner.broken {
                return Err(broken());
            }
            if inner.synced >= inner.wanted {
                return Ok(());
            }
            (inner.file.clone(), inner.end, inner.generation)
        };
        file.sync_data()?;
        let mut inner = self.lock();
        if inner.generation == generation && inner.synced < end {
            inner.synced = end;
            // So that what was just synced is known to have been. Should it fail, that is not known.
            let _ = inner.write(&Record::Marker);
        }
        Ok(())
    }

    /// Whether it is time to write it anew.
    pub(super) fn is_long(&self) -> bool {
        let inner = self.lock();
        inner.fork.is_none()
            && inner.end > REWRITE_BYTES_MIN
            && inner.end > inner.fresh * REWRITE_FACTOR
    }

    /// Begins a rewrite: what is appended from now on will be in the new log as well. One at a
    /// time.
    pub(super) fn fork(&self) {
        self.lock().fork = Some(Vec::new());
    }

    /// Ends a rewrite: the log is these records and what was appended since [`Self::fork`], on the
    /// disk. After an error it is the old one.
    pub(super) fn replace(&self, records: &[Record]) -> io::Result<()> {
        let written = write_beside(&self.path, records);
        let mut inner = self.lock();
        let appended = inner.fork.take().unwrap_or_default();
        let (file, end) = written?;
        let mut next = Inner {
            file: file.into(),
            end,
            wanted: 0,
            synced: end,
            fresh: end,
            generation: inner.generation + 1,
            fork: None,
            broken: false,
        };
        appended.iter().try_for_each(|record| next.write(record))?;
        next.file.sync_data()?;
        put_in_place(&self.path)?;
        (next.wanted, next.synced) = (next.end, next.end);
        *inner = next;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        if self.broken {
            return Err(broken());
        }
        let bytes = frame(self.end, self.synced, &record.encode());
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // Half a record in the middle would be damage.
            self.broken = self.file.set_len(self.end).is_err();
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::other("the overlay's log could not be written before")
}

fn frame(offset: u64, synced: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME + payload.len());
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(synced.to_le_bytes());
    out.extend(checksum(offset, synced, payload));
    out.extend(payload);
    out
}

fn checksum(offset: u64, synced: u64, payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&offset.to_le_bytes()).update(&synced.to_le_bytes()).update(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn framed_all(records: &[Record]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for record in records {
        let framed = frame(bytes.len() as u64, 0, &record.encode());
        bytes.extend(framed);
    }
    bytes
}

fn write_beside(path: &Path, records: &[Record]) -> io::Result<(File, u64)> {
    let bytes = framed_all(records);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(beside(path))?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    // What was just written is on the disk, and the log says so.
    let end = bytes.len() as u64;
    let marker = frame(end, end, &Record::Marker.encode());
    file.write_all_at(&marker, end)?;
    Ok((file, end + marker.len() as u64))
}

fn put_in_place(path: &Path) -> io::Result<()> {
    fs::rename(beside(path), path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The records of a log and where they end; a torn end is left out.
pub(super) fn read(directory: &Path, reading: Reading) -> Result<(Vec<Record>, u64), MountError> {
    let path = directory.join("log");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::damaged(&path, "it is missing"));
        }
        bytes => bytes.map_err(MountError::io("read", &path))?,
    };
    if !bytes.starts_with(MAGIC) {
        return Err(MountError::damaged(&path, "it is no log of an overlay"));
    }
    let (mut records, mut at) = (Vec::new(), MAGIC.len());
    while let Some((payload, _)) = framed(&bytes, at) {
        let record = Record::decode(payload)
            .ok_or_else(|| MountError::damaged(&path, format!("unknown record at byte {at}")))?;
        records.push(record);
        at += FRAME + payload.len();
    }
    let lost = |from: usize| {
        (from + 1..bytes.len())
            .any(|later| framed(&bytes, later).is_some_and(|(_, synced)| synced > from as u64))
    };
    if reading == Reading::Whole && lost(at) {
        return Err(MountError::damaged(&path, format!("bad record at byte {at}")));
    }
    if !matches!(records.first(), Some(Record::Base { .. })) {
        return Err(MountError::damaged(&path, "it does not say which version is below"));
    }
    Ok((records, at as u64))
}

/// The record at an offset: its payload, and how much of the log was on the disk at that time.
fn framed(bytes: &[u8], at: usize) -> Option<(&[u8], u64)> {
    let rest = bytes.get(at..)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (synced, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let synced = u64::from_le_bytes(*synced);
    if length > RECORD_MAX || synced > at as u64 {
        return None;
    }
    let payload = rest.get(..length)?;
    (checksum(at as u64, synced, payload) == *sum).then_some((payload, synced))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::VersionId;

    fn base() -> Record {
        Record::Base { version: VersionId::from_bytes([1; 16]) }
    }

    fn said(records: Vec<Record>) -> Vec<Record> {
        records.into_iter().filter(|record| *record != Record::Marker).collect()
    }

    #[test]
    fn a_log_is_read_back_and_goes_on() {
        let temporary = tempfile::tempdir().unwrap();
        let log = Log::create(temporary.path(), &[base()]).unwrap();
        log.append(Record::Dirty).unwrap();
        log.sync().unwrap();
        log.append(Record::Remove { node: 4 }).unwrap();
        drop(log);
        let (records, end) = read(temporary.path(), Reading::Whole).unwrap();
        assert_eq!(said(records), [base(), Record::Dirty, Record::Remove { node: 4 }]);
        let log = Log::open(temporary.path(), end).unwrap();
        log.append(Record::Remove { node: 5 }).unwrap();
        let (records, _) = read(temporary.path(), Reading::Whole).unwrap();
        assert_eq!(said(records).len(), 4);
    }

    #[test]
    fn what_is_appended_during_a_rewrite_is_in_the_new_log() {
        let temporary = tempfile::tempdir().unwrap();
        let log = Log::create(temporary.path(), &[base(), Record::Remove { node: 1 }]).unwrap();
        log.fork();
        log.append(Record::Remove { node: 2 }).unwrap();
        log.replace(&[base(), Record::Dirty]).unwrap();
        log.append(Record::Remove { node: 3 }).unwrap();
        let (records, _) = read(temporary.path(), Reading::Whole).unwrap();
        let removed = |node| Record::Remove { node };
        assert_eq!(said(records), [base(), Record::Dirty, removed(2), removed(3)]);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_a_gap_before_it_is_damage() {
        let temporary = tempfile::tempdir().unwrap();
        let log = Log::create(temporary.path(), &[base()]).unwrap();
        let path = temporary.path().join("log");
        let beginning = fs::metadata(&path).unwrap().len() as usize;
        for node in 0..3 {
            log.append(Record::Remove { node }).unwrap();
        }
        let unsynced = fs::read(&path).unwrap();
        // A power cut may keep later bytes and lose earlier ones of what was not synced.
        for at in beginning..unsynced.len() {
            let mut gap = unsynced.clone();
            gap[at] ^= 0x10;
            fs::write(&path, &gap).unwrap();
            let (records, _) = read(temporary.path(), Reading::Whole).unwrap();
            assert_eq!(said(records).len(), 1 + (at - beginning) / (FRAME + 9), "byte {at}");
        }
        fs::write(&path, &unsynced).unwrap();
        log.sync().unwrap();
        let synced = fs::read(&path).unwrap();
        for at in 0..synced.len() {
            let mut flipped = synced.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            match read(temporary.path(), Reading::Whole) {
                Err(MountError::Damaged { .. }) => assert!(at < unsynced.len()),
                // Only the last marker is lost, which says nothing of its own.
                Ok((records, _)) => assert!(at >= unsynced.len() && said(records).len() == 4),
                Err(error) => panic!("{error}"),
            }
        }
        for length in unsynced.len()..synced.len() {
            fs::write(&path, &synced[..length]).unwrap();
            assert_eq!(said(read(temporary.path(), Reading::Whole).unwrap().0).len(), 4);
        }
    }
}
