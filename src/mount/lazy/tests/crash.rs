//! What is left behind by a process or a machine that ended in the middle, and what damage looks
//! like.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Access, LazyMount, Reading};
use super::source::{Files, Memory, pattern, read_all, works};
use crate::base::blocking::blocking;
use crate::mount::MountError;

fn version() -> Memory {
    let files = [("a.wt", pattern(1, 200_000)), ("d/b.wt", pattern(2, 9_000))];
    Memory::new(1, &["d"], &files)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                // Of a file that was removed, and that the kernel lets go of just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// One step of a writer; everything it did is synced when it returns.
fn step(root: &Path, number: u64) {
    let open = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).open(root.join(name)).unwrap()
    };
    let synced = |file: File| file.sync_all().unwrap();
    match number % 8 {
        0 => {
            let file = open("a.wt");
            file.write_all_at(&pattern(number, 5_000), number * 3_001).unwrap();
            synced(file);
        }
        1 => {
            let file = open(&format!("new{number}"));
            file.write_all_at(&pattern(number, 10_000), 0).unwrap();
            synced(file);
        }
        2 => {
            let file = open("turtle.set");
            file.write_all_at(&pattern(number, 900), 0).unwrap();
            synced(file);
            fs::rename(root.join("turtle.set"), root.join("turtle")).unwrap();
        }
        3 => {
            let file = open("a.wt");
            file.set_len(150_000 - number * 1_000).unwrap();
            synced(file);
        }
        4 => {
            let file = open("a.wt");
            file.set_len(180_000).unwrap();
            file.write_all_at(b"end", 179_000).unwrap();
            synced(file);
        }
        5 => fs::remove_file(root.join(format!("new{}", number - 4))).unwrap(),
        6 => fs::create_dir(root.join(format!("d/e{number}"))).unwrap(),
        _ => {
            let file = open("d/b.wt");
            file.write_all_at(&pattern(number, 100), 4_090).unwrap();
            synced(file);
        }
    }
    File::open(root).unwrap().sync_all().unwrap();
}

/// Mounts a copy of an overlay and reads everything.
async fn recovered(source: &Arc<Memory>, overlay: &Path) -> Result<Files, MountError> {
    let mnt = overlay.with_extension("mnt");
    let mount = LazyMount::recover(Access::Server, source.clone(), overlay, &mnt, Reading::Whole)?;
    let files = blocking(move || read_all(&mnt)).await;
    mount.unmount().await?;
    Ok(files)
}

/// After each step a copy of the overlay, as a server that is killed leaves it, and what the writer
/// knew to be synced.
async fn history(root: &Path, source: &Arc<Memory>) -> Vec<(PathBuf, Files)> {
    let (overlay, mnt) = (root.join("overlay"), root.join("mnt"));
    let mount = LazyMount::create(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    let mut history = Vec::new();
    for number in 0..24 {
        let (place, overlay, mnt) =
            (root.join(format!("copy{number}")), overlay.clone(), mnt.clone());
        let known = blocking(move || {
            step(&mnt, number);
            copy(&overlay, &place);
            (place, read_all(&mnt))
        });
        history.push(known.await);
    }
    mount.unmount().await.unwrap();
    history
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_synced_is_there_after_a_crash() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let source = Arc::new(version());
    for (place, known) in history(temporary.path(), &source).await {
        // What the log says behind its last sync may be torn; what is synced is not in there.
        let log = fs::read(place.join("log")).unwrap();
        for torn in [0, 1, 15] {
            let mut bytes = log.clone();
            bytes.extend(pattern(torn, torn as usize));
            fs::write(place.join("log"), bytes).unwrap();
            let files = recovered(&source, &place).await.unwrap();
            assert!(files == known, "{}, {torn} bytes too many", place.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_start_nothing_is_kept_before_its_end_and_all_of_it_from_then_on() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (overlay, mnt) = (temporary.path().join("overlay"), temporary.path().join("mnt"));
    let source = Arc::new(version());
    let mount =
        LazyMount::create_for_start(Access::Server, source.clone(), &overlay, &mnt).unwrap();
    mount.persist().await.unwrap();
    let begun = fs::metadata(overlay.join("log")).unwrap().len();
    let stepped = async |number: u64| {
        let place = temporary.path().join(format!("copy{number}"));
        let (overlay, mnt) = (overlay.clone(), mnt.clone());
        blocking(move || {
            step(&mnt, number);
            copy(&overlay, &place);
            (place, read_all(&mnt))
        })
        .await
    };
    for number in 0..12 {
        let (place, known) = stepped(number).await;
        assert!(known != source.files(), "{number}: it is there for who reads");
        // A machine that fails may have kept any of it.
        for kept in 0..3 {
            let found = temporary.path().join("found");
            let _ = fs::remove_dir_all(&found);
            copy(&place, &found);
            let log = File::options().write(true).open(found.join("log")).unwrap();
            let length = log.metadata().unwrap().len();
            log.set_len(begun + (length - begun) * kept / 2).unwrap();
            if kept == 0 {
                fs::remove_dir_all(found.join("files")).unwrap();
            }
            for _ in 0..2 {
                let files = recovered(&source, &found).await.unwrap();
                assert!(files == source.files(), "{number}, {kept} of 2 halves of the log");
            }
        }
    }
    mount.start_is_over();
    for number in 12..24 {
        let (place, known) = stepped(number).await;
        assert!(recovered(&source, &place).await.unwrap() == known, "{number}");
    }
    mount.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_apart_from_a_torn_end() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let source = Arc::new(version());
    let history = history(temporary.path(), &source).await;
    let (place, _) = history.last().unwrap();
    let check = async |what: &str, hurt: &dyn Fn(&Path)| {
        let hurt_one = temporary.path().join("hurt");
        let _ = fs::remove_dir_all(&hurt_one);
        copy(place, &hurt_one);
        hurt(&hurt_one);
        match recovered(&source, &hurt_one).await {
            Err(MountError::Damaged { path, reason }) => {
                assert!(path.starts_with(&hurt_one) && !reason.is_empty());
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(_) => panic!("{what} is not seen"),
        }
    };
    let flip = |path: PathBuf, at: usize| {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let length = fs::metadata(place.join("log")).unwrap().len() as usize;
    for at in (0..length - 40).step_by(7) {
        check("a flipped byte", &|hurt| flip(hurt.join("log"), at)).await;
    }
    check("no log", &|hurt| fs::remove_file(hurt.join("log")).unwrap()).await;
    check("an empty log", &|hurt| fs::write(hurt.join("log"), "").unwrap()).await;
    let data: Vec<_> = fs::read_dir(place.join("files")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(data.len(), 3);
    for entry in data {
        let file = Path::new("files").join(entry.file_name());
        check("a missing file", &|hurt| fs::remove_file(hurt.join(&file)).unwrap()).await;
        check("a short file", &|hurt| {
            let file = OpenOptions::new().write(true).open(hurt.join(&file)).unwrap();
            file.set_len(100).unwrap();
        })
        .await;
    }
    let other = Arc::new(Memory::new(2, &[], &[]));
    let error = recovered(&other, place).await.unwrap_err();
    assert!(error.to_string().contains("stands on version"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_is_in_use_can_be_taken_away() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let (overlay, mnt) = (temporary.path().join("overlay"), temporary.path().join("mnt"));
    let mount = LazyMount::create(Access::Server, Arc::new(version()), &overlay, &mnt).unwrap();
    let path = mnt.join("a.wt");
    let file = blocking(move || File::options().read(true).write(true).open(path)).await.unwrap();
    mount.unmount().await.unwrap();
    mount.unmount().await.unwrap();
    let failed = blocking(move || file.write_all_at(b"late", 0).and_then(|()| file.sync_all()));
    assert!(failed.await.is_err());
    assert_eq!(fs::read_dir(&mnt).unwrap().count(), 0);
    let refused =
        LazyMount::create(Access::Server, Arc::new(version()), &overlay, &mnt).unwrap_err();
    assert!(matches!(refused, MountError::NotEmpty { .. }), "{refused}");
}
