//! The suite, and what only a directory has: crashes between steps, other processes, permissions.

use super::*;
use crate::store::suite::{self, key};

fn temporary() -> (tempfile::TempDir, LocalStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    (directory, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds() {
    let (_directory, store) = temporary();
    suite::all(Arc::new(store)).await;
}

#[tokio::test]
async fn what_is_written_is_there_after_a_restart() {
    let (directory, store) = temporary();
    let etag = store.write(&key("a/b"), "x".into(), Condition::Absent).await.unwrap();
    drop(store);
    let store = LocalStore::open(directory.path().join("store")).unwrap();
    assert_eq!(store.read(&key("a/b")).await.unwrap(), Object { bytes: "x".into(), etag });
}

#[tokio::test]
async fn only_the_leavings_of_the_dead_are_swept() {
    let (directory, living) = temporary();
    let staging = directory.path().join("store/.tmp");
    let own = fs::read_dir(&staging).unwrap().next().unwrap().unwrap().path();
    fs::write(own.join("77"), "being written").unwrap();
    let dead = staging.join("9");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("3"), "half an obj").unwrap();

    let second = LocalStore::open(directory.path().join("store")).unwrap();
    assert!(!dead.exists() && own.join("77").exists());
    assert_eq!(second.list("", None).await.unwrap(), []);
    for store in [&living, &second] {
        store.write(&key("a"), "1".into(), Condition::Always).await.unwrap();
    }
    drop((living, second));
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
}

#[tokio::test]
async fn a_write_that_goes_on_while_the_directory_is_taken_away_does_not_make_an_empty_one() {
    let (directory, store) = temporary();
    let (root, away) = (directory.path().join("store"), directory.path().join("away"));
    store.write(&key("a"), "1".into(), Condition::Always).await.unwrap();
    fs::rename(&root, &away).unwrap();
    let staged = directory.path().join("staged");
    fs::write(&staged, "2").unwrap();
    for name in ["b", "b/c", "b/c/d"] {
        for condition in [Condition::Absent, Condition::Always] {
            let written = store.directory.publish(&key(name), &staged, &condition);
            assert!(matches!(written, Err(StoreError::Io { .. })), "{name}: {written:?}");
        }
    }
    assert!(!root.exists());
    let read = store.read(&key("a")).await;
    assert!(!matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
    fs::rename(&away, &root).unwrap();
    store.write(&key("b/c/d"), "2".into(), Condition::Absent).await.unwrap();
    assert_eq!(store.read(&key("a")).await.unwrap().bytes, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_one_directory_agree_on_the_winner() {
    let (directory, first) = temporary();
    // Two opened stores share no memory and no lock but the directory's, as two processes do.
    let second = LocalStore::open(directory.path().join("store")).unwrap();
    for round in 0..20 {
        let name = key(&format!("race/{round}"));
        let tag = first.write(&name, "0".into(), Condition::Always).await.unwrap();
        let condition = Condition::Matches(tag);
        let (one, two) = tokio::join!(
            first.write(&name, "1".into(), condition.clone()),
            second.write(&name, "2".into(), condition),
        );
        assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
    }
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let (directory, store) = temporary();
    store.write(&key("a"), "1".into(), Condition::Always).await.unwrap();
    let conflict = store.write(&key("a"), "2".into(), Condition::Absent).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })));
    let in_the_way = store.write(&key("a/b"), "2".into(), Condition::Absent).await;
    assert!(in_the_way.unwrap_err().to_string().contains("write a/b"));
    let staging = fs::read_dir(directory.path().join("store/.tmp")).unwrap().next().unwrap();
    assert_eq!(fs::read_dir(staging.unwrap().path()).unwrap().count(), 0);
}

#[tokio::test]
async fn too_large_an_object_is_not_read_into_memory() {
    let (directory, store) = temporary();
    let file = File::create(directory.path().join("store/large")).unwrap();
    file.set_len(1 << 40).unwrap();
    let read = store.read(&key("large")).await;
    assert!(matches!(read, Err(StoreError::TooLarge { bytes, .. }) if bytes == 1 << 40));
    assert_eq!(store.read_range(&key("large"), 7..9).await.unwrap(), "\0\0");
}

#[test]
fn a_place_that_cannot_be_a_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = LocalStore::open(&file).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_directory_that_is_away_is_not_an_empty_one() {
    let (directory, store) = temporary();
    store.write(&key("a/b"), "x".into(), Condition::Absent).await.unwrap();
    let (here, away) = (directory.path().join("store"), directory.path().join("away"));
    fs::rename(&here, &away).unwrap();
    let read = store.read(&key("a/b")).await;
    assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
    assert!(store.size(&key("a/c")).await.unwrap_err().is_retryable());
    assert!(store.list("", None).await.unwrap_err().is_retryable());
    assert!(store.delete(&key("a/b")).await.unwrap_err().is_retryable());
    assert!(store.write(&key("a/b"), "y".into(), Condition::Always).await.is_err());
    assert!(!here.exists(), "nothing began a new one");
    fs::rename(&away, &here).unwrap();
    assert_eq!(store.read(&key("a/b")).await.unwrap().bytes, "x");
}
