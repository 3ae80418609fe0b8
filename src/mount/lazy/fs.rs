//! The kernel's side of a mount: FUSE requests, answered from the overlay.
//!
//! The kernel is told to keep what it knows for long: nobody else changes anything. Extended
//! attributes, links, devices and locks are not answered; the kernel does locks by itself.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::answer::{GENERATION, Owner, TTL, answer_lookup, attributes, errno, text};
use super::content::Grow;
use super::direct::Opened;
use super::door::Door;
use super::fetch::Fetcher;
use super::names::{Kind, Replace};
use super::node::Node;
use super::overlay::Overlay;
use super::session::Tuning;

/// Largest request, bytes: what the kernel allows at most.
const REQUEST_BYTES: u32 = 1024 * 1024;
/// Requests that the kernel may have waiting in the background: reads ahead, and what it writes
/// back.
const BACKGROUND_MAX: u16 = 64;

/// How deep what the overlay is on may be stacked itself: a container's own file system is.
const STACK_DEPTH: u32 = 2;

/// The file system that fuser serves.
#[derive(Debug)]
pub(super) struct Served {
    fetcher: Fetcher,
    /// Behind which another overlay may come into this one's place.
    door: Option<Arc<Door>>,
    owner: Owner,
    tuning: Tuning,
    /// The kernel is ready to read and write files by itself.
    direct: bool,
    /// The node and the offset where the last read from the source ended.
    last: (AtomicU64, AtomicU64),
    /// One of the threads waits for the disk.
    syncing: AtomicBool,
}

impl Served {
    pub(super) fn new(fetcher: Fetcher, door: Option<Arc<Door>>, tuning: Tuning) -> Self {
        let (owner, last) = (Owner::of(tuning.access), Default::default());
        Self { fetcher, door, owner, tuning, direct: false, last, syncing: false.into() }
    }

    fn fetcher(&self) -> &Fetcher {
        self.door.as_ref().and_then(|door| door.behind()).unwrap_or(&self.fetcher)
    }

    fn overlay(&self) -> &Overlay {
        &self.fetcher().overlay
    }

    fn node(&self, number: INodeNo) -> io::Result<Arc<Node>> {
        self.overlay().names().node(number.0)
    }

    fn attributes_of(&self, node: u64) -> io::Result<FileAttr> {
        Ok(attributes(self.overlay().names().entry(node)?, self.owner))
    }

    /// Tells the kernel of a node, which then knows it until it forgets it.
    fn introduce(&self, node: &Node) -> io::Result<FileAttr> {
        let attributes = self.attributes_of(node.number)?;
        node.looked_up();
        Ok(attributes)
    }

    fn make(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        kind: Kind,
    ) -> io::Result<(Arc<Node>, FileAttr)> {
        let node = self.overlay().create_node(parent.0, text(name)?, mode, kind)?;
        let attributes = self.introduce(&node)?;
        Ok((node, attributes))
    }

    /// A reader that goes on where the last one ended gets what comes next.
    fn watch(&self, node: &Arc<Node>, offset: u64, end: u64) {
        let known = self.last.0.swap(node.number, Ordering::Relaxed) == node.number;
        let last = self.last.1.swap(end, Ordering::Relaxed);
        if known && offset <= last && end > last {
            self.fetcher().read_ahead(node, end);
        }
    }
}

macro_rules! attempt {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return $reply.error(errno(&error)),
        }
    };
}

fn settle(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Served {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What a kernel has not, it does without.
        let _ = config.set_max_write(self.tuning.request_bytes.min(REQUEST_BYTES));
        let _ = config.set_max_background(BACKGROUND_MAX);
        let mut wanted = vec![InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_ASYNC_DIO];
        self.direct = self.tuning.direct
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        if !self.direct {
            wanted.push(InitFlags::FUSE_WRITEBACK_CACHE);
        }
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let reply = match &self.door {
            Some(door) => door.pass(parent.0, name, reply),
            None => Some(reply),
        };
        if let Some(reply) = reply {
            answer_lookup(self.overlay(), self.owner, parent.0, name, reply);
        }
    }

    fn forget(&self, _request: &Request, node: INodeNo, times: u64) {
        self.overlay().forget(node.0, times);
        if self.overlay().has_doomed() {
            // Nobody waits for this; should it fail, the next sync says so.
            self.fetcher().blocking(|overlay| drop(overlay.sync_log()));
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let attributes = attempt!(reply, self.attributes_of(node.0));
        reply.attr(&TTL, &attributes);
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _user: Option<u32>,
        _group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _checked: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = || {
            let node = self.node(number)?;
            if let Some(mode) = mode {
                self.overlay().set_mode(number.0, mode)?;
            }
            if let Some(size) = size {
                self.overlay().truncate(&node, size)?;
            }
            node.set_times(|times| {
                times.changed = changed.unwrap_or_else(SystemTime::now);
                times.accessed = accessed.map_or(times.accessed, moment);
                times.modified = modified.map_or(times.modified, moment);
            });
            self.attributes_of(number.0)
        };
        let attributes = attempt!(reply, set());
        reply.attr(&TTL, &attributes);
    }

    fn mknod(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let (_, attributes) = attempt!(reply, self.make(parent, name, mode & !umask, Kind::File));
        reply.entry(&TTL, &attributes, GENERATION);
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.make(parent, name, mode & !umask, Kind::Directory);
        let (_, attributes) = attempt!(reply, made);
        reply.entry(&TTL, &attributes, GENERATION);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        settle(
            text(name).and_then(|name| self.overlay().remove(parent.0, name, Kind::File)),
            reply,
        );
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed =
            text(name).and_then(|name| self.overlay().remove(parent.0, name, Kind::Directory));
        settle(removed, reply);
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(
        &self,
        _request: &Request,
        _node: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = match flags {
            RenameFlags::RENAME_NOREPLACE => Replace::No,
            flags if flags.is_empty() => Replace::Yes,
            _ => return reply.error(Errno::EINVAL),
        };
        let rename = || {
            let (from, to) = ((parent.0, text(name)?), (new_parent.0, text(new_name)?));
            self.overlay().rename(from, to, replace)
        };
        settle(rename(), reply);
    }

    fn open(&self, _request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let node = attempt!(reply, self.node(node));
        let register = self.direct.then_some(|file: &_| reply.open_backing(file));
        let opened = attempt!(reply, self.overlay().open_file(&node, flags, register));
        match opened {
            Opened::Direct(backing) => {
                reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), &backing);
            }
            Opened::AsKept => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Opened::Anew => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.make(parent, name, mode & !umask, Kind::File);
        let (node, attributes) = attempt!(reply, made);
        node.opened_once_more();
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        reply.created(&TTL, &attributes, GENERATION, FileHandle(0), flags);
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = attempt!(reply, self.node(number));
        let length = size as usize;
        self.overlay().boot.saw(number.0, offset, length);
        if node.has_origin() {
            self.watch(&node, offset, offset + u64::from(size));
        }
        self.fetcher().run(
            node,
            move |overlay, node, blocks| overlay.read(node, offset, length, blocks),
            move |read| match read {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let node = attempt!(reply, self.node(number));
        let written = data.len() as u32;
        match self.overlay().write(&node, offset, data, &Default::default()) {
            Ok(super::content::Step::Done(())) => return reply.written(written),
            Err(error) => return reply.error(errno(&error)),
            Ok(super::content::Step::Need(_)) => {}
        }
        // Only what may wait takes a copy.
        let data = data.to_vec();
        self.fetcher().run(
            node,
            move |overlay, node, blocks| overlay.write(node, offset, &data, blocks),
            move |result| match result {
                Ok(()) => reply.written(written),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    /// Nothing is kept back, so that there is nothing to do; the kernel asks once.
    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(node) = self.node(node) {
            node.closed_once();
        }
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let node = attempt!(reply, self.node(node));
        // The disk takes its time, and those who read must not wait for it: one sync at a time is
        // done by the thread that got it, which saves a change of threads, others elsewhere.
        if self.syncing.swap(true, Ordering::Acquire) {
            return self.fetcher().blocking(move |overlay| settle(overlay.fsync(&node), reply));
        }
        settle(self.overlay().fsync(&node), reply);
        self.syncing.store(false, Ordering::Release);
        if self.overlay().log.is_long() {
            self.fetcher().blocking(|overlay| {
                if let Err(error) = overlay.shorten_log() {
                    tracing::warn!(%error, "the overlay's log cannot be written anew");
                }
            });
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        directory: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names = self.overlay().names();
        let parent = attempt!(reply, names.entry(directory.0)).parent;
        let list = attempt!(reply, names.list(directory.0));
        // Where to go on: numbers of nodes begin above those of the two that every directory has.
        let own = [(1, directory.0, Kind::Directory, "."), (2, parent, Kind::Directory, "..")];
        let others = list.into_iter().map(|(node, kind, name)| (node + 2, node, kind, name));
        for (place, node, kind, name) in own.into_iter().chain(others) {
            let kind = match kind {
                Kind::File => FileType::RegularFile,
                Kind::Directory => FileType::Directory,
            };
            if place > offset
                && reply.add(INodeNo(node), place, kind, OsStr::from_bytes(name.as_bytes()))
            {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _directory: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.fetcher().blocking(|overlay| settle(overlay.sync_names(), reply));
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let facts = attempt!(reply, super::disk::space(&self.overlay().directory));
        reply.statfs(
            facts.f_blocks,
            facts.f_bfree,
            facts.f_bavail,
            facts.f_files,
            facts.f_ffree,
            u32::try_from(facts.f_bsize).unwrap_or(4096),
            255,
            u32::try_from(facts.f_frsize).unwrap_or(4096),
        );
    }

    fn fallocate(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        let node = attempt!(reply, self.node(number));
        let grow = if mode & KEEP == 0 { Grow::Yes } else { Grow::No };
        match mode {
            0 | KEEP => settle(self.overlay().reserve(&node, offset, length, grow), reply),
            PUNCH | ZERO | ZERO_KEEP => {
                if mode != PUNCH {
                    attempt!(reply, self.overlay().reserve(&node, offset, length, grow));
                }
                self.fetcher().run(
                    node,
                    move |overlay, node, blocks| overlay.punch(node, offset, length, blocks),
                    move |result| settle(result, reply),
                );
            }
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        _node: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(
        &self,
        _request: &Request,
        _node: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _node: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _request: &Request, _node: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
