//! One thing at a time.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::{Access, Changes, LazyMount, Reading, overlay_version};
use super::source::{Memory, pattern, read_all, works};
use crate::base::blocking::blocking;

fn version() -> Memory {
    Memory::new(
        1,
        &["journal"],
        &[
            ("a.wt", pattern(1, 300_000)),
            ("journal/log", pattern(2, 70_000)),
            ("empty", Vec::new()),
            ("b.wt", pattern(3, 5_000)),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_read_written_sealed_and_found_again() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (overlay, mnt) = (temporary.path().join("overlay"), temporary.path().join("mnt"));
    let source = Arc::new(version());
    let mount = LazyMount::create(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    assert!(!mount.is_changed());
    let root = mnt.clone();
    assert_eq!(blocking(move || read_all(&root)).await, source.files());
    assert!(!mount.is_changed());

    let root = mnt.clone();
    let written = blocking(move || {
        let file = fs::OpenOptions::new().read(true).write(true).open(root.join("a.wt")).unwrap();
        file.write_all_at(b"hello", 100_000).unwrap();
        file.sync_all().unwrap();
        fs::write(root.join("new"), b"new").unwrap();
        fs::rename(root.join("new"), root.join("b.wt")).unwrap();
        fs::remove_file(root.join("empty")).unwrap();
        read_all(&root)
    })
    .await;
    let sealed = mount.seal().await.unwrap();
    assert!(mount.is_changed());
    assert!(mount.seal().await.is_err(), "one at a time");
    let root = mnt.clone();
    blocking(move || fs::write(root.join("journal/log"), b"after the seal").unwrap()).await;
    let next = Memory::capture(2, &source, &sealed).await;
    assert_eq!(next.files(), written);
    let boot = sealed.boot().unwrap();
    assert!(boot.contains(&(0, 0)) && boot.contains(&(2, 1)), "{boot:?}");
    assert_eq!(sealed.next_boot(), [(0, 1), (1, 0)], "what was synced, and what is new");
    mount.rebase(&sealed, next.clone()).await.unwrap();
    assert!(mount.is_changed(), "by what came after the seal");
    let root = mnt.clone();
    let now = blocking(move || read_all(&root)).await;
    assert_eq!(now.iter().find(|(name, _)| name == "journal/log").unwrap().1, b"after the seal");

    mount.unmount().await.unwrap();
    assert_eq!(
        overlay_version(&overlay, Reading::Whole).unwrap(),
        crate::base::ids::VersionId::from_bytes([2; 16])
    );
    let mount =
        LazyMount::recover(Access::Server, next.clone(), &overlay, &mnt, Reading::Whole).unwrap();
    assert!(mount.is_changed());
    let root = mnt.clone();
    assert_eq!(blocking(move || read_all(&root)).await, now);

    let sealed = mount.seal().await.unwrap();
    let last = Memory::capture(3, &next, &sealed).await;
    assert_eq!(last.files(), now);
    mount.rebase(&sealed, last.clone()).await.unwrap();
    assert!(!mount.is_changed());
    mount.unmount().await.unwrap();
    let mount = LazyMount::recover(Access::Server, last, &overlay, &mnt, Reading::Whole).unwrap();
    assert!(!mount.is_changed(), "the log says that nothing was changed since");
    drop(mount);
    assert_eq!(fs::read_dir(&mnt).unwrap().count(), 0, "unmounted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_fetched_is_an_error_and_never_zeros() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (overlay, mnt) = (temporary.path().join("overlay"), temporary.path().join("mnt"));
    let source = Arc::new(version());
    let mount = LazyMount::create(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    source.fails.store(true, Ordering::Relaxed);
    let root = mnt.clone();
    let error = blocking(move || fs::read(root.join("a.wt"))).await.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    // A whole page needs no block, half of one does.
    let root = mnt.clone();
    blocking(move || {
        let file = fs::OpenOptions::new().write(true).open(root.join("a.wt")).unwrap();
        // Memory that is there: of what must be read from the program's file first, a kernel may write a
        // part, then the rest.
        let page = vec![7; 4096];
        file.write_all_at(&page, 4096).unwrap();
        file.sync_all().unwrap();
        let half = file.write_all_at(&[7; 100], 0).and_then(|()| file.sync_all());
        assert_eq!(half.map_err(|error| error.raw_os_error()), Err(Some(libc::EIO)));
    })
    .await;
    source.fails.store(false, Ordering::Relaxed);
    let root = mnt.clone();
    let read = blocking(move || -> io::Result<_> { fs::read(root.join("a.wt")) }).await.unwrap();
    let mut expected = pattern(1, 300_000);
    expected[4096..8192].fill(7);
    assert!(read == expected);
    mount.unmount().await.unwrap();
}
