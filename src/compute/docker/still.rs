//! Making the process of a container stand still, and go on.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A container's first process, where this server sees it. By a descriptor of it, so that no signal
/// reaches another process that got the same number.
///
/// By a signal of the kernel's and not by the engine's pause, which starts a program for it: a thaw is in
/// the way of a command.
#[derive(Debug)]
pub(super) struct First(OwnedFd);

impl First {
    /// The process with this number, if it is of the container with this id.
    ///
    /// # Errors
    /// There is none; [`io::ErrorKind::NotFound`] where it is another's: an engine in another namespace
    /// counts otherwise.
    pub(super) fn open(process: u32, container: &str) -> io::Result<Self> {
        // SAFETY: pidfd_open takes plain numbers.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave it to nobody else.
        let first = Self(unsafe { OwnedFd::from_raw_fd(descriptor as i32) });
        // Read when the descriptor holds the process: a container's group has its id.
        let group = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        match group.contains(container) {
            true => Ok(first),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives whether it stands still now.
    pub(super) fn stop(&self) -> bool {
        self.signal(libc::SIGSTOP).is_ok()
    }

    pub(super) fn go_on(&self) {
        // Gone, it needs no signal.
        let _ = self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open as long as this is; no information goes along.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, nothing, 0)
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_a_process_of_that_container_stands_still_and_goes_on() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let group = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.rsplit(") ").next().unwrap().chars().next().unwrap()
        };
        let other = First::open(child.id(), "a container of somebody else").unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::NotFound);
        let first = First::open(child.id(), group.lines().next().unwrap()).unwrap();
        assert!(first.stop());
        let begun = std::time::Instant::now();
        while state() != 'T' {
            assert!(begun.elapsed().as_secs() < 60, "it is {}", state());
            std::thread::yield_now();
        }
        first.go_on();
        while state() == 'T' {
            assert!(begun.elapsed().as_secs() < 60);
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!first.stop(), "it is gone");
    }
}
