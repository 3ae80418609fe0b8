//! What the kernel is told of a node, whoever answers.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use fuser::{Errno, FileAttr, FileType, Generation, INodeNo, ReplyEntry};

use super::names::{Entry, Kind};
use super::overlay::Overlay;
use super::session::Access;

/// How long the kernel may keep names and attributes.
pub(super) const TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);
pub(super) const GENERATION: Generation = Generation(0);

/// Whom everything in a mount belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    pub(super) fn of(access: Access) -> Self {
        let (user, group) = match access {
            // SAFETY: both calls only read the process's ids.
            Access::Server => unsafe { (libc::geteuid(), libc::getegid()) },
            Access::Everybody { user, group } => (user, group),
        };
        Self { user, group }
    }
}

pub(super) fn attributes(entry: &Entry, owner: Owner) -> FileAttr {
    let times = entry.node.times();
    let size = entry.node.bytes().unwrap_or(0);
    let kind = match entry.kind() {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    };
    FileAttr {
        ino: INodeNo(entry.node.number),
        size,
        blocks: size.div_ceil(512),
        atime: times.accessed,
        mtime: times.modified,
        ctime: times.changed,
        crtime: times.changed,
        kind,
        perm: entry.mode as u16,
        nlink: entry.links(),
        uid: owner.user,
        gid: owner.group,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers what a name means.
pub(super) fn answer_lookup(
    overlay: &Overlay,
    owner: Owner,
    parent: u64,
    name: &OsStr,
    reply: ReplyEntry,
) {
    let found = text(name).and_then(|name| {
        let names = overlay.names();
        let entry = names.entry(names.lookup(parent, name)?)?;
        entry.node.looked_up();
        Ok(attributes(entry, owner))
    });
    match found {
        Ok(attributes) => reply.entry(&TTL, &attributes, GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Names of volumes are UTF-8.
pub(super) fn text(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| io::Error::from_raw_os_error(libc::EILSEQ))
}

pub(super) fn errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(code) => Errno::from_i32(code),
        None => Errno::EIO,
    }
}
