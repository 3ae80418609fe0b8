//! The files that a mongod sees: the system's, read-only, and its own two directories.
//!
//! Everything is prepared before the fork. After it, and before the exec, only system calls are made:
//! another thread of the server may have held the allocator's lock when it forked.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use libc::{c_char, c_int, c_uint, mode_t};

/// What of the system a mongod may read, where it is there: programs, libraries, the clock's zone,
/// names of users. Nothing of it can be written through the mounts.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/os-release",
    "/etc/lsb-release",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/proc",
    "/sys",
];

/// Devices that hold nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// For the root itself and /tmp, in memory.
const ROOT_OPTIONS: &CStr = c"mode=0755,size=64m";

/// Where the new root is put together: a directory that every system has.
const BASE: &CStr = c"/tmp";

/// One step of putting the root together. Sources are below `old`, targets below `new`.
#[derive(Debug)]
enum Step {
    Directory(CString, mode_t),
    File(CString),
    Link { content: CString, path: CString },
    Bind { from: CString, to: CString, write: bool },
}

/// A root file system in the making: directories that the process may write, and its program. All paths
/// are the same inside.
#[derive(Debug)]
pub(super) struct Jail {
    steps: Vec<Step>,
    working_directory: CString,
}

impl Jail {
    /// Looks at what the system has. Nothing is mounted yet.
    pub(super) fn prepare(
        own: &[&Path],
        program: &Path,
        working_directory: &Path,
    ) -> io::Result<Self> {
        let mut plan = Plan::default();
        plan.directory(Path::new("/tmp"), 0o1777);
        plan.directory(Path::new("/dev"), 0o755);
        for path in SYSTEM.iter().map(Path::new) {
            match fs::symlink_metadata(path) {
                Ok(facts) if facts.is_symlink() => plan.link(path, &fs::read_link(path)?),
                Ok(facts) => plan.bind(path, facts.is_dir(), false),
                Err(_) => {}
            }
        }
        for path in DEVICES.iter().map(Path::new).filter(|path| path.exists()) {
            plan.bind(path, false, true);
        }
        let program = program.canonicalize()?;
        if !is_system(&program) {
            // It may have libraries beside its own directory.
            let bin = program.parent().filter(|parent| parent.ends_with("bin"));
            let prefix = bin.and_then(Path::parent).filter(|prefix| prefix.parent().is_some());
            let shown = prefix.unwrap_or(&program);
            plan.bind(shown, shown.is_dir(), false);
        }
        for path in own {
            let path = path.canonicalize()?;
            if is_system(&path) {
                // Then what lies beside it, other branches' data, would be shown as well.
                let reason = format!("{} lies among the system's files", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            plan.bind(&path, path.is_dir(), true);
        }
        let working_directory = text(&working_directory.canonicalize()?);
        Ok(Self { steps: plan.steps, working_directory })
    }

    /// Makes it the root of the calling process, which is alone in a mount namespace of its own. Makes
    /// system calls only.
    pub(super) fn enter(&self) -> io::Result<()> {
        let none = std::ptr::null();
        // SAFETY: every pointer is to a text that ends in a zero and outlives its call, or is none
        // where mount(2) and pivot_root(2) allow none.
        unsafe {
            // What is unmounted outside goes here too; what is mounted here stays here.
            let kind = libc::MS_REC | libc::MS_SLAVE;
            check(libc::mount(none, c"/".as_ptr(), none, kind, none.cast()))?;
            mount_memory(BASE)?;
            check(libc::chdir(BASE.as_ptr()))?;
            check(libc::mkdir(c"new".as_ptr(), 0o755))?;
            check(libc::mkdir(c"old".as_ptr(), 0o755))?;
            // Only a mount of its own can become a root.
            bind(c"new", c"new")?;
            pivot_root(c".", c"old")?;
            check(libc::chdir(c"/".as_ptr()))?;
            for step in &self.steps {
                step.take()?;
            }
            check(libc::umount2(c"/old".as_ptr(), libc::MNT_DETACH))?;
            check(libc::chdir(c"/new".as_ptr()))?;
            // The old root lies over the new one then, and is taken off it.
            pivot_root(c".", c".")?;
            check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
            check(libc::chdir(self.working_directory.as_ptr()))
        }
    }
}

fn is_system(path: &Path) -> bool {
    SYSTEM.iter().any(|system| path.starts_with(system))
}

/// The steps, in an order that makes parents first.
#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    made: Vec<PathBuf>,
}

impl Plan {
    fn parents(&mut self, path: &Path) {
        let mut parent = PathBuf::from("/");
        for part in path.parent().into_iter().flat_map(Path::components) {
            if let Component::Normal(name) = part {
                parent.push(name);
                self.directory(&parent.clone(), 0o755);
            }
        }
    }

    fn directory(&mut self, path: &Path, mode: mode_t) {
        if !self.made.iter().any(|made| made == path) {
            self.made.push(path.to_owned());
            self.steps.push(Step::Directory(below("/new", path), mode));
        }
    }

    fn link(&mut self, path: &Path, content: &Path) {
        self.parents(path);
        self.steps.push(Step::Link { content: text(content), path: below("/new", path) });
    }

    fn bind(&mut self, path: &Path, is_directory: bool, write: bool) {
        self.parents(path);
        match is_directory {
            true => self.directory(path, 0o755),
            false => self.steps.push(Step::File(below("/new", path))),
        }
        let (from, to) = (below("/old", path), below("/new", path));
        self.steps.push(Step::Bind { from, to, write });
    }
}

impl Step {
    /// # Safety
    /// None beyond being in the child: texts end in zeros.
    unsafe fn take(&self) -> io::Result<()> {
        // SAFETY: the texts are the plan's and outlive the calls.
        unsafe {
            match self {
                Self::Directory(path, mode) => {
                    // A bind that came before may have brought it.
                    match check(libc::mkdir(path.as_ptr(), *mode)) {
                        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                        made => made,
                    }
                }
                Self::File(path) => {
                    let flags = libc::O_CREAT | libc::O_CLOEXEC;
                    let file = libc::open(path.as_ptr(), flags, 0o600 as c_uint);
                    check(file)?;
                    check(libc::close(file))
                }
                Self::Link { content, path } => {
                    check(libc::symlink(content.as_ptr(), path.as_ptr()))
                }
                Self::Bind { from, to, write } => {
                    bind(from, to)?;
                    if *write { Ok(()) } else { read_only(to) }
                }
            }
        }
    }
}

/// With all that is mounted below it: a part of what is mounted may not be shown alone.
unsafe fn bind(from: &CStr, to: &CStr) -> io::Result<()> {
    let none: *const c_char = std::ptr::null();
    let kind = libc::MS_BIND | libc::MS_REC;
    // SAFETY: texts that end in zeros, and none where there is no option.
    unsafe { check(libc::mount(from.as_ptr(), to.as_ptr(), none, kind, none.cast())) }
}

unsafe fn mount_memory(at: &CStr) -> io::Result<()> {
    let kind = c"tmpfs".as_ptr();
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: as above.
    unsafe {
        let options = ROOT_OPTIONS.as_ptr().cast();
        check(libc::mount(kind, at.as_ptr(), kind, flags, options))
    }
}

/// A mount and all below it: mount_setattr(2).
unsafe fn read_only(path: &CStr) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the structure has the size that is given with it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    check(done as c_int)
}

unsafe fn pivot_root(new: &CStr, old: &CStr) -> io::Result<()> {
    // SAFETY: texts that end in zeros.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) } as c_int)
}

pub(super) fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path that exists has no zero in it")
}

/// An absolute path, below another.
fn below(root: &str, path: &Path) -> CString {
    let relative = path.strip_prefix("/").unwrap_or(path);
    text(&Path::new(root).join(relative))
}
