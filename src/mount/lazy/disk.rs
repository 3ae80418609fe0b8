//! What the standard library has not: holes, reservations, and what a disk has room for.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::base::limits::BLOCK_BYTES;

/// Makes a range of a data file zero.
pub(super) fn zero(file: &File, start: u64, end: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
    fallocate(file, mode, start, end - start)
}

/// fallocate(2), or zeros and lengths by hand where the disk's file system has none.
pub(super) fn fallocate(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let offset_raw = i64::try_from(offset).map_err(too_large)?;
    let length_raw = i64::try_from(length).map_err(too_large)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    if unsafe { libc::fallocate(file.as_raw_fd(), mode, offset_raw, length_raw) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
        return Err(error);
    }
    let length_now = file.metadata()?.len();
    let end = offset + length;
    if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 {
        let zeros = vec![0; BLOCK_BYTES];
        let (mut at, end) = (offset, end.min(length_now));
        while at < end {
            let part = (end - at).min(BLOCK_BYTES as u64) as usize;
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
    } else if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > length_now {
        file.set_len(end)?;
    }
    Ok(())
}

/// The next range that is no hole.
pub(super) fn next_data(data: &File, from: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= end {
        return Ok(None);
    }
    let seek = |offset: u64, whence| {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the descriptor is open as long as `data` is borrowed.
        let found = unsafe { libc::lseek(data.as_raw_fd(), offset, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    };
    match seek(from, libc::SEEK_DATA) {
        Ok(start) if start < end => {
            let stop = seek(start, libc::SEEK_HOLE)?;
            Ok(Some((start, stop.min(end))))
        }
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the file system is like that a directory is in.
pub(super) fn space(directory: &Path) -> io::Result<libc::statvfs> {
    let text = CString::new(directory.as_os_str().as_bytes())?;
    let mut facts = MaybeUninit::uninit();
    // SAFETY: `text` ends with a NUL, and `facts` has room for what is written.
    match unsafe { libc::statvfs(text.as_ptr(), facts.as_mut_ptr()) } {
        // SAFETY: the call has filled it.
        0 => Ok(unsafe { facts.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}
