//! Mounts and unmounts.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionACL};

use super::fs::Served;
use crate::mount::MountError;

/// What a mount is called in the list of mounts, so that a later server knows its own.
const NAME: &str = "argon";

/// Who may use a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// The server's own user; the kernel refuses even root, where that is not the same.
    #[default]
    Server,
    /// Whomever the modes let in, in any mount namespace. All files belong to this user.
    Everybody {
        /// Its number.
        user: u32,
        /// Its group's number.
        group: u32,
    },
}

/// What was measured, with mongod: docs/performance.md.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// The kernel reads and writes some files by itself, where it can: see `direct`. Else it keeps
    /// writes back and joins them; no kernel does both.
    pub(super) direct: bool,
    /// Threads that serve a mount.
    pub(super) threads: usize,
    pub(super) request_bytes: u32,
    pub(super) access: Access,
}

impl Tuning {
    pub(super) fn of(access: Access) -> Self {
        Self { access, ..Self::default() }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        // Two serve what is in memory as fast as four, with fewer changes of context.
        // Only root may have the kernel use a file of its own for one of a mount.
        // SAFETY: it only reads the process's id.
        let direct = unsafe { libc::geteuid() } == 0;
        Self { direct, threads: 2, request_bytes: 1024 * 1024, access: Access::Server }
    }
}

/// A mount that is served.
#[derive(Debug)]
pub(super) struct Mounted {
    mountpoint: PathBuf,
    notifier: Notifier,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl Mounted {
    /// Mounts; the directory is made where it is not there.
    pub(super) fn new(
        served: Served,
        mountpoint: &Path,
        tuning: Tuning,
    ) -> Result<Self, MountError> {
        fs::create_dir_all(mountpoint).map_err(MountError::io("create", mountpoint))?;
        let failed = |error: io::Error| MountError::Fuse {
            path: mountpoint.to_owned(),
            reason: one_line(&error),
        };
        let mountpoint = mountpoint.canonicalize().map_err(MountError::io("find", mountpoint))?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(NAME.into()),
            MountOption::Subtype(NAME.into()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        config.acl = match tuning.access {
            Access::Server => SessionACL::Owner,
            Access::Everybody { .. } => SessionACL::All,
        };
        config.n_threads = Some(tuning.threads);
        // A queue for each thread; without the right to open the device they share one.
        config.clone_fd = File::options().read(true).write(true).open("/dev/fuse").is_ok();
        let session = Session::new(served, &mountpoint, &config).map_err(failed)?;
        let notifier = session.notifier();
        let thread = std::thread::Builder::new()
            .name("mount".into())
            .spawn(move || session.run())
            .map_err(failed)?;
        Ok(Self { mountpoint, notifier, thread: Some(thread).into() })
    }

    pub(super) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Has the kernel forget what it knows of a file or directory beside its number: attributes, and
    /// what it keeps of the content.
    pub(super) fn invalidate(&self, number: u64) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(number), 0, 0)
    }

    /// Whether anybody answers: not after somebody has aborted the connection or taken the mount
    /// away.
    pub(super) fn is_served(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Sends what the kernel keeps back to the overlay. `open` are the files that somebody has
    /// open: of others it keeps nothing back.
    pub(super) fn flush(&self, open: &[String]) -> io::Result<()> {
        let root = File::open(&self.mountpoint)?;
        // Begins with all of them, and may not wait: a kernel relies on no FUSE server to answer.
        // SAFETY: the descriptor is open as long as `root` is.
        if unsafe { libc::syncfs(root.as_raw_fd()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        for path in open {
            match File::open(self.mountpoint.join(path)) {
                Ok(file) => file.sync_data()?,
                // Gone or renamed meanwhile: its writer was not done with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Unmounts; where somebody still uses the mount, what they do fails from now on. Blocks.
    pub(super) fn unmount(&self, open: &[String]) -> Result<(), MountError> {
        // What cannot be flushed is lost with the mount either way.
        let _ = self.flush(open);
        match detach(&self.mountpoint)? {
            Ended::Yes => {
                // How it ended is how the unmount went.
                let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                let _ = thread.map(JoinHandle::join);
            }
            Ended::WithItsUsers => {}
        }
        Ok(())
    }
}

/// Whether a mount that was taken away is served no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Yes,
    /// Somebody has a file open, and there was no right to end that.
    WithItsUsers,
}

/// Takes a mount away, by system call or by fusermount3 where that needs rights.
fn detach(mountpoint: &Path) -> Result<Ended, MountError> {
    let failed = |error| MountError::io("unmount", mountpoint)(error);
    let text = CString::new(mountpoint.as_os_str().as_bytes())
        .map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    let unmount = |flags| {
        // SAFETY: `text` ends with a NUL.
        match unsafe { libc::umount2(text.as_ptr(), flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // In another mount namespace, as every mongod is in one, the mount may be there for longer: what
    // ends is the connection, or the threads that serve it would wait for that. The kernel wrote back
    // what it kept when its files were closed, and flushed what is open.
    let Err(error) = unmount(libc::MNT_FORCE | libc::MNT_DETACH) else { return Ok(Ended::Yes) };
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            let abort = abort_file(mountpoint);
            fusermount(mountpoint, &["-u", "-z"])?;
            let aborted = abort.is_some_and(|abort| fs::write(abort, "1").is_ok());
            Ok(if aborted { Ended::Yes } else { Ended::WithItsUsers })
        }
        // It is not mounted any more.
        Some(libc::EINVAL) => Ok(Ended::Yes),
        _ => Err(failed(error)),
    }
}

/// The file by which the kernel lets its user end a mount.
fn abort_file(mountpoint: &Path) -> Option<PathBuf> {
    let device = fs::metadata(mountpoint).ok()?.dev();
    Some(format!("/sys/fs/fuse/connections/{}/abort", libc::minor(device)).into())
}

fn fusermount(mountpoint: &Path, options: &[&str]) -> Result<(), MountError> {
    let mut command = Command::new("fusermount3");
    command.args(options).arg("--").arg(mountpoint).stdin(Stdio::null());
    let output = command.output().map_err(MountError::io("run fusermount3 for", mountpoint))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(MountError::Fuse { path: mountpoint.to_owned(), reason })
}

fn one_line(error: &io::Error) -> String {
    error.to_string().trim().replace('\n', "; ")
}

/// Detaches what mounts of an earlier server are still there below a directory, and says how many
/// there were. Their files give I/O errors. Not to be called while a mount below it is in use.
pub fn unmount_stale(below: &Path) -> Result<usize, MountError> {
    let found = mounts_below(below)?;
    found.iter().try_for_each(|mountpoint| detach(mountpoint).map(drop))?;
    Ok(found.len())
}

/// Where lazy mounts are below a directory, served or not; the last one first.
pub fn mounts_below(below: &Path) -> Result<Vec<PathBuf>, MountError> {
    let list = Path::new("/proc/self/mountinfo");
    let text = fs::read(list).map_err(MountError::io("read", list))?;
    let below = below.canonicalize().unwrap_or_else(|_| below.to_owned());
    Ok(stale(&text, &below))
}

/// Our mounts below a directory, the last one first.
fn stale(mountinfo: &[u8], below: &Path) -> Vec<PathBuf> {
    let mine = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let (kind, source) = (fields.get(dash + 1)?, fields.get(dash + 2)?);
        let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.get(4)?)));
        (kind.starts_with(b"fuse") && *source == NAME.as_bytes() && path.starts_with(below))
            .then_some(path)
    };
    let mut found: Vec<_> = mountinfo.split(|byte| *byte == b'\n').filter_map(mine).collect();
    found.reverse();
    found
}

/// mountinfo writes blanks as octal numbers behind a backslash: proc(5).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_found_whatever_their_path() {
        let text = b"22 1 8:1 / / rw - ext4 /dev/root rw\n\
            40 22 0:40 / /data/work/a\\040b/mnt rw,nosuid shared:1 - fuse.argon argon rw\n\
            41 22 0:41 / /data/other rw - fuse.sshfs host: rw\n\
            42 22 0:42 / /database/mnt rw - fuse.argon argon rw\n";
        assert_eq!(stale(text, Path::new("/data")), [Path::new("/data/work/a b/mnt")]);
        assert_eq!(stale(text, Path::new("/")).len(), 2);
        assert_eq!(unescape(b"a\\134\\x\\04"), b"a\\\\x\\04");
    }
}
