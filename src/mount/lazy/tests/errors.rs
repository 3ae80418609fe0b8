//! What cannot be done fails as on a plain directory, and leaves as much behind.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Access, LazyMount};
use super::mapping::Mapping;
use super::random::{modes, set_modes};
use super::source::{Memory, pattern, read_all, works};

/// What is tried below a root.
type Attempt = fn(&Path) -> io::Result<()>;

/// Its name, and it.
type Row = (&'static str, Attempt);

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn open(path: PathBuf, flags: i32) -> io::Result<File> {
    // SAFETY: the path ends with a NUL; the descriptor that comes back is nobody else's.
    unsafe {
        let descriptor = libc::open(text(&path).as_ptr(), flags | libc::O_CLOEXEC, 0o600);
        checked(descriptor)?;
        Ok(std::os::fd::FromRawFd::from_raw_fd(descriptor))
    }
}

fn touch(path: PathBuf, flags: i32) -> io::Result<()> {
    open(path, flags).map(drop)
}

fn read_only(root: &Path) -> File {
    File::open(root.join("file")).unwrap()
}

fn writable(root: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(root.join("file")).unwrap()
}

fn make_directory(path: PathBuf) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn rename(root: &Path, from: &str, to: &str, flags: libc::c_uint) -> io::Result<()> {
    let (from, to) = (text(&root.join(from)), text(&root.join(to)));
    let here = libc::AT_FDCWD;
    // SAFETY: both paths end with a NUL.
    checked(unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), flags) })
}

fn move_to(root: &Path, from: &str, to: &str) -> io::Result<()> {
    rename(root, from, to, 0)
}

fn truncate(path: PathBuf, bytes: i64) -> io::Result<()> {
    // SAFETY: the path ends with a NUL.
    checked(unsafe { libc::truncate(text(&path).as_ptr(), bytes) })
}

fn allocate(file: &File, mode: i32, offset: i64, length: i64) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
}

fn map(file: &File, length: usize, offset: i64) -> io::Result<()> {
    Mapping::new(file, offset, length).map(drop)
}

fn lock(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// A name of so many bytes.
fn long(bytes: usize) -> String {
    "n".repeat(bytes)
}

/// A directory that is gone, still held open.
fn gone(root: &Path) -> File {
    make_directory(root.join("gone")).unwrap();
    let open = File::open(root.join("gone")).unwrap();
    fs::remove_dir(root.join("gone")).unwrap();
    open
}

fn inside(directory: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into()
}

const OPENING: &[Row] = &[
    ("open what is missing", |r| touch(r.join("missing"), libc::O_RDONLY)),
    ("open in what is missing", |r| touch(r.join("missing/file"), libc::O_RDONLY)),
    ("open below a file", |r| touch(r.join("file/file"), libc::O_RDONLY)),
    ("open a file as a directory", |r| touch(r.join("file"), libc::O_DIRECTORY)),
    ("open a file with a slash", |r| touch(r.join("file/"), libc::O_RDONLY)),
    ("open a directory to write", |r| touch(r.join("full"), libc::O_RDWR)),
    ("open a directory to cut it", |r| touch(r.join("full"), libc::O_RDONLY | libc::O_TRUNC)),
    ("create a directory as a file", |r| touch(r.join("full"), libc::O_CREAT | libc::O_RDWR)),
    ("create what is there", |r| touch(r.join("file"), libc::O_CREAT | libc::O_EXCL)),
    ("create a directory that is there", |r| touch(r.join("full"), libc::O_CREAT | libc::O_EXCL)),
    ("create below a file", |r| touch(r.join("file/new"), libc::O_CREAT)),
    ("create in what is missing", |r| touch(r.join("missing/new"), libc::O_CREAT)),
    ("create with a slash", |r| touch(r.join("new/"), libc::O_CREAT)),
    ("create in what is gone", |r| touch(inside(&gone(r), "new"), libc::O_CREAT)),
    ("create the longest name", |r| touch(r.join(long(255)), libc::O_CREAT)),
    ("create too long a name", |r| touch(r.join(long(256)), libc::O_CREAT)),
    ("open too long a name", |r| touch(r.join(long(256)), libc::O_RDONLY)),
    ("look at too long a name", |r| fs::metadata(r.join(long(256))).map(drop)),
    ("look below a file", |r| fs::metadata(r.join("file/x")).map(drop)),
    ("list a file", |r| fs::read_dir(r.join("file")).map(drop)),
    ("list what is missing", |r| fs::read_dir(r.join("missing")).map(drop)),
    ("set the mode of what is missing", |r| {
        fs::set_permissions(r.join("missing"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
    }),
];

const NAMES: &[Row] = &[
    ("make a directory that is there", |r| make_directory(r.join("empty"))),
    ("make a directory over a file", |r| make_directory(r.join("file"))),
    ("make a directory below a file", |r| make_directory(r.join("file/new"))),
    ("make a directory in what is missing", |r| make_directory(r.join("missing/new"))),
    ("make a directory in what is gone", |r| make_directory(inside(&gone(r), "new"))),
    ("make the directory itself", |r| make_directory(r.join("empty/."))),
    ("make the directory above", |r| make_directory(r.join("empty/.."))),
    ("make a directory of too long a name", |r| make_directory(r.join(long(256)))),
    ("remove a directory that is full", |r| fs::remove_dir(r.join("full"))),
    ("remove a file as a directory", |r| fs::remove_dir(r.join("file"))),
    ("remove a missing directory", |r| fs::remove_dir(r.join("missing"))),
    ("remove a directory of too long a name", |r| fs::remove_dir(r.join(long(256)))),
    ("remove the directory itself", |r| fs::remove_dir(r.join("empty/."))),
    ("remove the directory above", |r| fs::remove_dir(r.join("empty/.."))),
    ("unlink a directory", |r| fs::remove_file(r.join("empty"))),
    ("unlink what is missing", |r| fs::remove_file(r.join("missing"))),
    ("unlink below a file", |r| fs::remove_file(r.join("file/x"))),
    ("unlink with a slash", |r| fs::remove_file(r.join("file/"))),
    ("unlink too long a name", |r| fs::remove_file(r.join(long(256)))),
    ("rename what is missing", |r| move_to(r, "missing", "new")),
    ("rename to what is missing", |r| move_to(r, "file", "missing/new")),
    ("rename below a file", |r| move_to(r, "other", "file/new")),
    ("rename to itself", |r| move_to(r, "file", "file")),
    ("rename a file over a directory", |r| move_to(r, "file", "empty")),
    ("rename a directory over a file", |r| move_to(r, "empty", "file")),
    ("rename a directory over a full one", |r| move_to(r, "empty", "full")),
    ("rename a directory into itself", |r| move_to(r, "full", "full/new")),
    ("rename a directory deep into itself", |r| move_to(r, "full", "full/deep/new")),
    ("rename a directory over what holds it", |r| move_to(r, "full/deep", "full")),
    ("rename the directory itself", |r| move_to(r, "empty/.", "new")),
    ("rename to too long a name", |r| move_to(r, "file", &long(256))),
    ("rename from too long a name", |r| move_to(r, &long(256), "new")),
    ("rename a file with a slash", |r| move_to(r, "file/", "new")),
    ("rename over nothing that is there", |r| rename(r, "file", "other", libc::RENAME_NOREPLACE)),
    ("rename into what is gone", |r| {
        let directory = gone(r);
        let (from, to) = (r.join("file"), inside(&directory, "new"));
        fs::rename(from, to)
    }),
];

const CONTENT: &[Row] = &[
    ("cut a directory", |r| truncate(r.join("full"), 0)),
    ("cut what is missing", |r| truncate(r.join("missing"), 0)),
    ("cut to less than nothing", |r| truncate(r.join("file"), -1)),
    ("cut what is open to read", |r| read_only(r).set_len(1)),
    ("write what is open to read", |r| read_only(r).write_all_at(b"x", 0)),
    ("read what is open to write", |r| {
        open(r.join("file"), libc::O_WRONLY)?.read_at(&mut [0], 0).map(drop)
    }),
    ("read a directory", |r| File::open(r.join("full"))?.read_at(&mut [0], 0).map(drop)),
    ("read before the beginning", |r| read_only(r).read_at(&mut [0], u64::MAX).map(drop)),
    ("write before the beginning", |r| writable(r).write_at(b"x", u64::MAX).map(drop)),
    ("read far behind the end", |r| read_only(r).read_at(&mut [0], 1 << 40).map(drop)),
    ("allocate nothing", |r| allocate(&writable(r), 0, 0, 0)),
    ("allocate before the beginning", |r| allocate(&writable(r), 0, -1, 1)),
    ("allocate less than nothing", |r| allocate(&writable(r), 0, 0, -1)),
    ("allocate what is open to read", |r| allocate(&read_only(r), 0, 0, 1)),
    ("allocate more than there can be", |r| allocate(&writable(r), 0, i64::MAX, 1)),
    ("punch and grow", |r| allocate(&writable(r), libc::FALLOC_FL_PUNCH_HOLE, 0, 1)),
    ("allocate in a way that nobody knows", |r| allocate(&writable(r), 1 << 20, 0, 1)),
    ("map nothing", |r| map(&writable(r), 0, 0)),
    ("map from within a page", |r| map(&writable(r), 4096, 1)),
    ("map what is open to read", |r| map(&read_only(r), 4096, 0)),
    ("map a directory", |r| map(&File::open(r.join("full"))?, 4096, 0)),
    ("lock what somebody has locked", |r| {
        let held = writable(r);
        lock(&held)?;
        lock(&writable(r))
    }),
    ("sync what is open to read", |r| read_only(r).sync_all()),
    ("sync a directory", |r| File::open(r.join("full"))?.sync_data()),
];

/// Not there, and said to be so by a number that programs understand.
const NOT_OFFERED: &[(&str, Attempt, i32)] = &[
    ("a second name", |r| fs::hard_link(r.join("file"), r.join("new")), libc::EPERM),
    ("a symbolic link", |r| std::os::unix::fs::symlink("file", r.join("new")), libc::EPERM),
    (
        "a pipe",
        |r| {
            // SAFETY: the path ends with a NUL.
            checked(unsafe { libc::mkfifo(text(&r.join("new")).as_ptr(), 0o600) })
        },
        libc::EPERM,
    ),
    ("two that change places", |r| rename(r, "file", "other", libc::RENAME_EXCHANGE), libc::EINVAL),
    (
        "a file without a name",
        |r| touch(r.to_owned(), libc::O_TMPFILE | libc::O_RDWR),
        libc::EOPNOTSUPP,
    ),
    (
        "a part that is cut out",
        |r| allocate(&writable(r), libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096),
        libc::EOPNOTSUPP,
    ),
    (
        "a part that is put between",
        |r| allocate(&writable(r), libc::FALLOC_FL_INSERT_RANGE, 0, 4096),
        libc::EOPNOTSUPP,
    ),
    (
        "an attribute of somebody's own",
        |r| {
            let (path, name) = (text(&r.join("file")), c"user.x");
            // SAFETY: path and name end with a NUL, and the value has one byte.
            checked(unsafe {
                libc::setxattr(path.as_ptr(), name.as_ptr(), c"x".as_ptr().cast(), 1, 0)
            })
        },
        libc::EOPNOTSUPP,
    ),
];

fn version() -> Memory {
    let files = [
        ("file", pattern(1, 100_001)),
        ("other", pattern(2, 3_000)),
        ("full/deep/file", pattern(3, 10)),
    ];
    Memory::new(1, &["empty", "full", "full/deep"], &files)
}

/// A mount and a plain directory that hold the same.
struct Pair {
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
    _mount: LazyMount,
    ours: PathBuf,
    plain: PathBuf,
}

impl Pair {
    fn new() -> Option<Self> {
        if !works() {
            return None;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (overlay, ours) = (folder.path().join("overlay"), folder.path().join("mnt"));
        let plain = folder.path().join("plain");
        let source = Arc::new(version());
        for directory in ["empty", "full/deep"] {
            fs::create_dir_all(plain.join(directory)).unwrap();
        }
        for (name, content) in source.files() {
            fs::write(plain.join(name), content).unwrap();
        }
        set_modes(&plain);
        let mount = {
            let _entered = runtime.enter();
            LazyMount::create(Access::Server, source, &overlay, &ours).unwrap()
        };
        Some(Self { _runtime: runtime, _folder: folder, _mount: mount, ours, plain })
    }

    fn check_same(&self, what: &str) {
        assert!(read_all(&self.ours) == read_all(&self.plain), "{what}: it left something else");
        assert_eq!(modes(&self.ours), modes(&self.plain), "{what}");
    }
}

fn number(result: io::Result<()>) -> Result<(), String> {
    // The number and its name, for whoever reads a failure.
    result.map_err(|error| error.to_string())
}

#[test]
fn what_cannot_be_done_fails_as_on_a_plain_directory() {
    let Some(pair) = Pair::new() else { return };
    for (what, attempt) in OPENING.iter().chain(NAMES).chain(CONTENT) {
        let expected = number(attempt(&pair.plain));
        assert_eq!(number(attempt(&pair.ours)), expected, "{what}");
        pair.check_same(what);
    }
}

#[test]
fn what_is_not_offered_says_so_and_does_nothing() {
    let Some(pair) = Pair::new() else { return };
    for (what, attempt, expected) in NOT_OFFERED {
        let failed = attempt(&pair.ours).expect_err(what);
        assert_eq!(failed.raw_os_error(), Some(*expected), "{what}: {failed}");
        pair.check_same(what);
    }
}

#[test]
fn a_directory_that_is_read_while_it_changes_gives_everything_that_stays_once() {
    let Some(pair) = Pair::new() else { return };
    let directory = pair.ours.join("many");
    make_directory(directory.clone()).unwrap();
    for number in 0..3_000 {
        touch(directory.join(format!("file-{number:05}")), libc::O_CREAT).unwrap();
    }
    let mut seen = Vec::new();
    for (place, entry) in fs::read_dir(&directory).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if place % 10 == 0 {
            // One that was seen goes, and a new one comes.
            fs::remove_file(directory.join(&name)).unwrap();
            touch(directory.join(format!("new-{place:05}")), libc::O_CREAT).unwrap();
        }
        seen.push(name);
    }
    seen.retain(|name| name.starts_with("file-"));
    seen.sort();
    let all: Vec<_> = (0..3_000).map(|number| format!("file-{number:05}")).collect();
    assert!(seen == all, "{} of {}", seen.len(), all.len());
}
