//! What a mount shows before and after it has a volume.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Access, HeldMount, LazyMount, Reading, Source, Template, Unfit};
use super::source::{Memory, pattern, read_all, works};

const STORAGE: &[u8] = b"an engine and its options";

/// A volume as a mongod leaves it that was stopped, with something of its branch in it.
fn volume(number: u8, secret: &[u8]) -> Arc<Memory> {
    changed(number, secret, |_| {})
}

fn changed(
    number: u8,
    secret: &[u8],
    change: impl FnOnce(&mut Vec<(&'static str, Vec<u8>)>),
) -> Arc<Memory> {
    let mut files = vec![
        ("WiredTiger", b"a version".to_vec()),
        ("WiredTiger.lock", b"a lock".to_vec()),
        ("_mdb_catalog.wt", secret.to_vec()),
        ("collection-0.wt", pattern(u64::from(number), 200_000)),
        ("journal/WiredTigerLog.0000000001", secret.to_vec()),
        ("mongod.lock", Vec::new()),
        ("storage.bson", STORAGE.to_vec()),
    ];
    change(&mut files);
    Arc::new(Memory::new(number, &["journal"], &files))
}

async fn held(root: &Path) -> HeldMount {
    let template = Template::of(&*volume(0, b"the one it was made of")).await.unwrap();
    HeldMount::create(Access::Server, &template, &root.join("scratch"), &root.join("mnt")).unwrap()
}

/// What a mongod does up to its door, and what it finds behind it.
struct Guest {
    lock: File,
    listed: Vec<String>,
    behind: std::io::Result<String>,
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Comes to the door in a thread of its own, as nothing can end it there.
fn come(mountpoint: PathBuf) -> std::thread::JoinHandle<Guest> {
    std::thread::spawn(move || {
        // In the order in which mongod does it.
        assert_eq!(fs::metadata(mountpoint.join("mongod.lock")).unwrap().len(), 0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let lock = options.open(mountpoint.join("mongod.lock")).unwrap();
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
        let absent = fs::metadata(mountpoint.join("_repair_incomplete")).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        assert_eq!(fs::read(mountpoint.join("storage.bson")).unwrap(), STORAGE);
        assert!(fs::metadata(mountpoint.join("journal")).unwrap().is_dir());
        assert_eq!(names(&mountpoint.join("journal")), Vec::<String>::new());
        let listed = names(&mountpoint);
        let behind = fs::read_to_string(mountpoint.join("WiredTiger.lock"));
        Guest { lock, listed, behind }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_shows_a_template_then_one_branch_and_nothing_of_another() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (root, other_root) = (temporary.path().join("a"), temporary.path().join("b"));
    let (one, other) = (held(&root).await, held(&other_root).await);
    let guests = [come(one.mountpoint().to_owned()), come(other.mountpoint().to_owned())];
    one.knocked().await;
    other.knocked().await;

    let (source, overlay) = (volume(1, b"one branch's"), root.join("overlay"));
    let (mount, fit) =
        LazyMount::create_behind(&one, source.clone(), &overlay, &root.join("never")).unwrap();
    assert_eq!(fit, Ok(()));
    drop(one);
    let [first, second] = guests;
    let mut first = first.join().unwrap();
    assert_eq!(first.listed, ["journal", "mongod.lock", "storage.bson"], "before");
    assert_eq!(first.behind.unwrap(), "a lock");
    let mnt = mount.mountpoint();
    assert_eq!(mnt, root.join("mnt").canonicalize().unwrap());
    assert_eq!(read_all(&mnt), source.files(), "afterwards it is the volume, and only that");
    assert_eq!(names(&mnt.join("journal")), ["WiredTigerLog.0000000001"]);

    // The one that still waits has seen nothing of it, and never will.
    assert_eq!(names(other.mountpoint()), ["journal", "mongod.lock", "storage.bson"]);
    other.turn_away();
    let second = second.join().unwrap();
    assert_eq!(second.listed, ["journal", "mongod.lock", "storage.bson"]);
    assert_eq!(second.behind.unwrap_err().raw_os_error(), Some(libc::EIO));
    drop(second.lock);
    drop(other);
    assert_eq!(names(&other_root.join("mnt")), Vec::<String>::new(), "its mount is gone");

    // What was open before is the branch's file, and what is done to that lands in its overlay.
    first.lock.write_all(b"4711\n").unwrap();
    first.lock.sync_all().unwrap();
    assert_eq!(fs::read(mnt.join("mongod.lock")).unwrap(), b"4711\n");
    fs::write(mnt.join("new"), "written").unwrap();
    let sealed = mount.seal().await.unwrap();
    let version = Memory::capture(2, &source, &sealed).await;
    let locks = |files: Vec<(String, Vec<u8>)>| {
        files.into_iter().find(|(name, _)| name == "mongod.lock").map(|(_, content)| content)
    };
    assert_eq!(locks(version.files()).unwrap(), b"4711\n");
    first.lock.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    first.lock.read_to_string(&mut text).unwrap();
    assert_eq!(text, "4711\n");
    first.lock.set_len(0).unwrap();
    drop(first.lock);
    let now = read_all(&mnt);
    drop(sealed);
    mount.unmount().await.unwrap();
    drop(mount);
    let again =
        LazyMount::recover(Access::Server, source, &overlay, &root.join("again"), Reading::Whole)
            .unwrap();
    assert_eq!(read_all(&again.mountpoint()), now);
    assert_eq!(locks(now).unwrap(), b"");
    again.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_has_seen_must_be_true_of_the_volume() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    let held = held(root).await;
    let (overlay, otherwise) = (root.join("overlay"), root.join("otherwise"));
    let behind = |source: Arc<Memory>| {
        let _ = fs::remove_dir_all(&overlay);
        LazyMount::create_behind(&held, source, &overlay, &otherwise).unwrap()
    };
    let fine = || volume(1, b"x");
    let (mount, fit) = behind(fine());
    assert_eq!(fit, Err(Unfit::NobodyWaits), "before anybody has come");
    mount.unmount().await.unwrap();

    let guest = come(held.mountpoint().to_owned());
    held.knocked().await;
    type Files = Vec<(&'static str, Vec<u8>)>;
    let set = |files: &mut Files, name: &'static str, content: &[u8]| {
        files.retain(|(known, _)| *known != name);
        files.push((name, content.to_vec()));
    };
    let killed = changed(1, b"x", |files| set(files, "mongod.lock", b"17\n"));
    let other_engine = changed(1, b"x", |files| set(files, "storage.bson", b"others"));
    let repaired = changed(1, b"x", |files| set(files, "_repair_incomplete", b""));
    let never_used = changed(1, b"x", |files| files.retain(|(name, _)| *name != "mongod.lock"));
    for (source, unfit) in [
        (killed, Unfit::NotStoppedCleanly),
        (other_engine, Unfit::Differs),
        (repaired, Unfit::Differs),
        (never_used, Unfit::Differs),
    ] {
        let (mount, fit) = behind(source.clone());
        assert_eq!(fit, Err(unfit));
        assert_eq!(read_all(&mount.mountpoint()), source.files(), "it is mounted elsewhere");
        mount.unmount().await.unwrap();
    }
    let same_length = changed(1, b"x", |files| {
        set(files, "storage.bson", b"an engine and its OPTIONS");
    });
    assert!(!held.template().suits(&*same_length as &dyn Source).await.unwrap());
    assert!(held.template().suits(&*fine() as &dyn Source).await.unwrap());

    let (mount, fit) = behind(fine());
    assert_eq!(fit, Ok(()));
    drop(guest.join().unwrap());
    let _ = fs::remove_dir_all(root.join("overlay-2"));
    let twice = LazyMount::create_behind(&held, fine(), &root.join("overlay-2"), &otherwise);
    let (second, fit) = twice.unwrap();
    assert_eq!(fit, Err(Unfit::NobodyWaits), "it is given away once");
    second.unmount().await.unwrap();
    mount.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_moves_before_another_guest_with_all_that_was_written() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    let (source, overlay) = (volume(1, b"x"), root.join("overlay"));
    let mount =
        LazyMount::create(Access::Server, source.clone(), &overlay, &root.join("first")).unwrap();
    fs::write(mount.mountpoint().join("collection-0.wt"), "written").unwrap();
    fs::write(mount.mountpoint().join("gone"), "open, and without a name").unwrap();
    fs::write(mount.mountpoint().join("mongod.lock"), "a pid").unwrap();
    let held = held(root).await;
    let guest = come(held.mountpoint().to_owned());
    held.knocked().await;
    assert_eq!(mount.move_behind(&held).unwrap(), Err(Unfit::NotStoppedCleanly));
    let mountpoint = mount.mountpoint();
    File::options().write(true).open(mountpoint.join("mongod.lock")).unwrap().set_len(0).unwrap();
    let gone = File::open(mountpoint.join("gone")).unwrap();
    fs::remove_file(mountpoint.join("gone")).unwrap();
    let before = read_all(&mountpoint);

    // An upload goes on meanwhile.
    let sealed = mount.seal().await.unwrap();
    assert_eq!(mount.move_behind(&held).unwrap(), Ok(()));
    let guest = guest.join().unwrap();
    assert_eq!(guest.behind.unwrap(), "a lock");
    assert_ne!(mount.mountpoint(), mountpoint);
    assert_eq!(names(&mountpoint), Vec::<String>::new(), "the old mount is gone");
    assert_eq!(read_all(&mount.mountpoint()), before);
    let data_files = fs::read_dir(overlay.join("files")).unwrap().count();
    fs::write(mount.mountpoint().join("collection-0.wt"), "anew").unwrap();
    let version = Memory::capture(2, &source, &sealed).await;
    assert_eq!(version.files(), before);
    mount.rebase(&sealed, version).await.unwrap();
    assert_eq!(fs::read(mount.mountpoint().join("collection-0.wt")).unwrap(), b"anew");
    let left = fs::read_dir(overlay.join("files")).unwrap().count();
    assert_eq!(left, data_files - 1, "what nobody can reach is removed");
    drop(gone);
    drop(guest.lock);
    mount.unmount().await.unwrap();
}
