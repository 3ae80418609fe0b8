//! A journal that the kernel writes by itself: what the server must know of it all the same.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::session::Tuning;
use super::super::{Access, LazyMount, Reading};
use super::source::{Memory, pattern, read_all, works};
use crate::base::blocking::blocking;

const LOG: &str = "journal/WiredTigerLog.0000000002";

fn version() -> Memory {
    Memory::new(1, &["journal"], &[("journal/WiredTigerLog.0000000001", pattern(1, 9_000))])
}

/// Opens a new journal file as WiredTiger does: made under another name, renamed, opened.
fn begin(root: &Path) -> File {
    let made = root.join("journal/WiredTigerTmplog.0000000001");
    fs::write(&made, pattern(2, 128)).unwrap();
    fs::rename(&made, root.join(LOG)).unwrap();
    open(root)
}

fn open(root: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(root.join(LOG)).unwrap()
}

fn is_direct(mount: &LazyMount) -> bool {
    mount.overlay.has_direct()
}

/// Whether this kernel and user have it; where they must, it missing is a failure.
fn works_here(mount: &LazyMount) -> bool {
    if is_direct(mount) {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let since_6_9 = (numbers.next(), numbers.next()) >= (Some(6), Some(9));
    let must = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!(must && since_6_9 && Tuning::default().direct), "on Linux {release}");
    eprintln!("skipped: no FUSE passthrough on Linux {release}");
    false
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_wrote_is_in_seals_and_found_again() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().to_owned();
    let (overlay, mnt) = (root.join("overlay"), root.join("mnt"));
    let source = Arc::new(version());
    let mount = LazyMount::create(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    let place = mnt.clone();
    let log = blocking(move || begin(&place)).await;
    if !works_here(&mount) {
        return;
    }
    let log = Arc::new(log);
    let content = pattern(3, 60_000);
    let (file, written) = (log.clone(), content.clone());
    blocking(move || {
        file.write_all_at(&written, 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 60_000);
    })
    .await;

    // A seal holds what there was, whatever is written afterwards.
    let sealed = mount.seal().await.unwrap();
    assert!(sealed.is_changed());
    let file = log.clone();
    blocking(move || {
        file.write_all_at(&pattern(4, 60_000), 0).unwrap();
        file.write_all_at(b"behind", 60_000).unwrap();
        file.sync_data().unwrap();
    })
    .await;
    let next = Memory::capture(2, &source, &sealed).await;
    let of = |name: &str| next.files().into_iter().find(|(own, _)| own == name).unwrap().1;
    assert!(of(LOG) == content);
    mount.rebase(&sealed, next.clone()).await.unwrap();
    assert!(mount.is_changed(), "the second content is in no version");

    // A server that is killed now leaves what was synced, though nothing asked it since.
    let found = root.join("found");
    copy(&overlay, &found);
    let after = LazyMount::recover(
        Access::Server,
        next.clone(),
        &found,
        &root.join("mnt2"),
        Reading::Whole,
    )
    .unwrap();
    let place = root.join("mnt2");
    let expected = [pattern(4, 60_000), b"behind".to_vec()].concat();
    let read = blocking(move || fs::read(place.join(LOG)).unwrap()).await;
    assert!(read == expected);
    assert!(after.is_changed());
    after.unmount().await.unwrap();

    // Closed, it is a file as any other, and what the kernel kept of it before counts for nothing.
    drop(log);
    let place = mnt.clone();
    let read = blocking(move || {
        let mut content = Vec::new();
        File::open(place.join(LOG)).unwrap().read_to_end(&mut content).unwrap();
        content
    });
    assert!(read.await == expected);
    let place = mnt.clone();
    blocking(move || {
        let file = open(&place);
        file.set_len(10).unwrap();
        file.write_all_at(b"end", 20).unwrap();
    })
    .await;
    assert!(!is_direct(&mount), "it is another version's in part");
    let place = mnt.clone();
    let read = blocking(move || fs::read(place.join(LOG)).unwrap()).await;
    assert_eq!(read, [&pattern(4, 10)[..], &[0; 10], b"end"].concat());
    mount.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_at_rest_is_no_change_and_one_that_is_removed_goes() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (overlay, mnt) = (temporary.path().join("overlay"), temporary.path().join("mnt"));
    let source = Arc::new(version());
    let mount = LazyMount::create(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    let place = mnt.clone();
    let log = blocking(move || {
        let log = begin(&place);
        log.write_all_at(b"one", 0).unwrap();
        log
    })
    .await;
    if !works_here(&mount) {
        return;
    }
    // So that the time of the last write says whether there was another.
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let sealed = mount.seal().await.unwrap();
    let next = Memory::capture(2, &source, &sealed).await;
    mount.rebase(&sealed, next.clone()).await.unwrap();
    assert!(is_direct(&mount) && !mount.is_changed());
    let log = blocking(move || {
        log.write_all_at(b"two", 3).unwrap();
        log
    })
    .await;
    assert!(mount.is_changed());

    let place = mnt.clone();
    let log = blocking(move || {
        fs::remove_file(place.join(LOG)).unwrap();
        log.write_all_at(b"three", 6).unwrap();
        let mut content = vec![0; 11];
        log.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content, b"onetwothree");
        log
    })
    .await;
    let sealed = mount.seal().await.unwrap();
    drop(log);
    let last = Memory::capture(3, &next, &sealed).await;
    assert_eq!(last.files(), source.files());
    mount.rebase(&sealed, last).await.unwrap();
    mount.unmount().await.unwrap();
}

const RECORD: u64 = 128;
const SEALS: u64 = 20;

fn record(number: u64) -> Vec<u8> {
    (number + 1).to_le_bytes().repeat(RECORD as usize / 8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seals_under_load_hold_all_that_was_synced_before_them_and_nothing_else() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (overlay, mnt) = (temporary.path().join("overlay"), temporary.path().join("mnt"));
    let mut source = Arc::new(version());
    let mount = LazyMount::create(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    // How far the writer has got, and how far it may go: as fast as it can around each seal.
    let (synced, allowed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (synced, allowed, mnt) = (synced.clone(), allowed.clone(), mnt.clone());
        std::thread::spawn(move || {
            let log = begin(&mnt);
            for number in 0..SEALS * 512 {
                while number >= allowed.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                log.write_all_at(&record(number), number * RECORD).unwrap();
                if number % 64 == 63 {
                    log.sync_data().unwrap();
                    synced.store(number + 1, Ordering::Release);
                }
            }
        })
    };
    for number in 0..SEALS {
        allowed.store((number + 1) * 512, Ordering::Release);
        while synced.load(Ordering::Acquire) < number * 512 + 64 {
            tokio::task::yield_now().await;
        }
        let before = synced.load(Ordering::Acquire);
        let sealed = mount.seal().await.unwrap();
        let next = Memory::capture(2 + number as u8, &source, &sealed).await;
        let log = next.files().into_iter().find(|(name, _)| name == LOG).unwrap().1;
        assert!(log.len() as u64 >= before * RECORD, "{} bytes, {before} synced", log.len());
        for (place, found) in log.chunks(RECORD as usize).enumerate() {
            let written = &record(place as u64)[..found.len()];
            let is_hole = place as u64 >= before && found.iter().all(|byte| *byte == 0);
            assert!(found == written || is_hole, "seal {number}, record {place}, {before} synced");
        }
        mount.rebase(&sealed, next.clone()).await.unwrap();
        source = next;
    }
    blocking(move || writer.join().unwrap()).await;
    let place = mnt.clone();
    let files = blocking(move || read_all(&place)).await;
    let log = files.into_iter().find(|(name, _)| name == LOG).unwrap().1;
    assert_eq!(log.len() as u64, synced.load(Ordering::Acquire) * RECORD);
    mount.unmount().await.unwrap();
}
