//! A shared mapping, in a process of its own.
//!
//! A process that serves a mount must not map its files: `munmap` waits for dirty pages to be written while
//! it holds the lock on the process's memory, and a thread that serves the mount may wait for that lock. The
//! server maps nothing of its mounts, and mongod is another process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;

const PAGE: usize = 4096;

/// What the other process is to do. It is sent as it lies in memory, to a copy of this program.
#[derive(Clone, Copy)]
#[repr(C)]
struct Order {
    kind: Kind,
    /// The flags of msync(2).
    how: i32,
    offset: usize,
    length: usize,
}

#[derive(Clone, Copy)]
#[repr(i32)]
enum Kind {
    Read,
    Write,
    Sync,
}

const ORDER_BYTES: usize = size_of::<Order>();

/// A part of a file, mapped by a process that lives as long as this does.
pub(super) struct Mapping {
    /// Memory of both processes, as long as the mapping: what was read, or is to be written.
    shared: *mut u8,
    bytes: usize,
    orders: UnixStream,
    /// The other process's end, which has no descriptors of its own.
    _inbox: UnixStream,
    process: libc::pid_t,
    /// Can be read when the process has ended.
    end: OwnedFd,
}

impl Mapping {
    /// Maps `bytes` bytes of `file` from `offset` on, to be read and written.
    pub(super) fn new(file: &File, offset: i64, bytes: usize) -> io::Result<Self> {
        let shared_bytes = bytes.next_multiple_of(PAGE).max(PAGE);
        let (how, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: new memory.
        let shared = unsafe {
            libc::mmap(null_mut(), shared_bytes, how, flags | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert!(shared != libc::MAP_FAILED, "{}", io::Error::last_os_error());
        let (orders, inbox) = UnixStream::pair()?;
        let (descriptor, inbox_descriptor) = (file.as_raw_fd(), inbox.as_raw_fd());
        // As fork(2) does, but with the descriptors of this process instead of copies: a copy keeps open what
        // other tests close, and keeps what they unlock.
        let flags_of_clone = libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: the child only makes system calls and copies between mappings until it exits.
        let process = unsafe {
            let process = libc::syscall(libc::SYS_clone, flags_of_clone, 0, 0, 0, 0);
            if process == 0 {
                // It would never see the end of its orders: it holds the other end, too.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let mapped = libc::mmap(null_mut(), bytes, how, flags, descriptor, offset);
                serve(mapped, bytes, shared.cast(), inbox_descriptor);
            }
            process as libc::pid_t
        };
        assert!(process > 0, "{}", io::Error::last_os_error());
        // SAFETY: it is our child, for which nobody has waited; the descriptor is nobody else's.
        let end = unsafe {
            let end = libc::syscall(libc::SYS_pidfd_open, process, 0);
            assert!(end >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(end as RawFd)
        };
        let shared = shared.cast();
        let mut made = Self { shared, bytes: shared_bytes, orders, _inbox: inbox, process, end };
        made.answer()?;
        Ok(made)
    }

    /// Also what lies between the end of the file and that of its last page.
    pub(super) fn read(&mut self, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        self.order(Kind::Read, 0, offset, length)?;
        let mut out = vec![0; length];
        // SAFETY: `order` has checked the range, and the other process is done.
        unsafe { self.shared.copy_to_nonoverlapping(out.as_mut_ptr(), length) };
        Ok(out)
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() <= self.bytes);
        // SAFETY: it has room for them, and the other process does nothing until it is told to.
        unsafe { self.shared.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.order(Kind::Write, 0, offset, bytes.len())
    }

    /// As msync(2) does with these flags.
    pub(super) fn sync(&mut self, how: i32) -> io::Result<()> {
        self.order(Kind::Sync, how, 0, 0)
    }

    fn order(&mut self, kind: Kind, how: i32, offset: usize, length: usize) -> io::Result<()> {
        assert!(offset + length <= self.bytes);
        let order = Order { kind, how, offset, length };
        // SAFETY: plain numbers without a gap.
        let bytes: [u8; ORDER_BYTES] = unsafe { std::mem::transmute(order) };
        self.orders.write_all(&bytes)?;
        self.answer()
    }

    /// A process that ends instead of answering has touched what the mount could not give.
    fn answer(&mut self) -> io::Result<()> {
        let wait = |descriptor| libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        let mut either = [wait(self.orders.as_raw_fd()), wait(self.end.as_raw_fd())];
        // SAFETY: two of them, both open.
        while unsafe { libc::poll(either.as_mut_ptr(), 2, -1) } < 0 {}
        if either[0].revents == 0 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let mut answer = [0; 4];
        self.orders.read_exact(&mut answer)?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.orders.shutdown(std::net::Shutdown::Both);
        // SAFETY: it is our child, and our memory that nobody uses any more.
        unsafe {
            libc::waitpid(self.process, null_mut(), 0);
            libc::munmap(self.shared.cast(), self.bytes);
        }
    }
}

/// Says whether it is mapped, and does as it is told until nobody tells it any more. After a fork of a
/// program with threads: nothing here may allocate, lock or panic.
///
/// # Safety
/// `mapped` is what `mmap` gave for `bytes` bytes, `shared` at least as long, and orders stay within.
unsafe fn serve(mapped: *mut libc::c_void, bytes: usize, shared: *mut u8, inbox: RawFd) -> ! {
    // SAFETY: as the caller says; the order is what `Mapping::order` has written, all of it.
    unsafe {
        let error = || *libc::__errno_location();
        let mut answer = if mapped == libc::MAP_FAILED { error() } else { 0 };
        let mut order = Order { kind: Kind::Sync, how: 0, offset: 0, length: 0 };
        loop {
            if libc::write(inbox, (&raw const answer).cast(), 4) != 4 || mapped == libc::MAP_FAILED
            {
                break;
            }
            if libc::read(inbox, (&raw mut order).cast(), ORDER_BYTES) != ORDER_BYTES as isize {
                break;
            }
            let part = mapped.cast::<u8>().add(order.offset);
            answer = 0;
            match order.kind {
                Kind::Read => part.copy_to_nonoverlapping(shared, order.length),
                Kind::Write => part.copy_from_nonoverlapping(shared, order.length),
                Kind::Sync => {
                    if libc::msync(mapped, bytes, order.how) != 0 {
                        answer = error();
                    }
                }
            }
        }
        libc::munmap(mapped, bytes);
        libc::_exit(0)
    }
}
