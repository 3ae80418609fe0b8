//! What every store must do. Each implementation runs [`all`] on an empty store of its own.

#![allow(clippy::unwrap_used, reason = "for tests, here and in other crates")]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{Condition, ETag, Key, LIST_PAGE, Store, StoreError};
use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::BranchId;
use crate::base::parallel::parallel;

/// Runs the whole suite on `store`, which must be empty.
pub async fn all(store: Arc<dyn Store>) {
    parts(&*store).await;
    most(store).await;
}

/// All but what Argon never asks of a store, and one that keeps objects as files may not know: that
/// what is a directory to it is no object.
pub async fn most(store: Arc<dyn Store>) {
    assert_eq!(listed(&*store, "").await, Vec::<String>::new(), "the store must be empty");
    round_trip(&*store).await;
    ranges(&*store).await;
    conditions(&*store).await;
    files(&*store).await;
    one_of_many_wins(&store, Condition::Absent, "race/absent").await;
    let tag = store.write(&key("race/matches"), "0".into(), Condition::Always).await.unwrap();
    one_of_many_wins(&store, Condition::Matches(tag), "race/matches").await;
    readers_never_see_a_part(&store).await;
    lists(&store).await;
}

/// `text` as a key.
pub fn key(text: &str) -> Key {
    text.parse().unwrap()
}

async fn listed(store: &dyn Store, prefix: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let after = keys.last().map(|last| key(last));
        let page = store.list(prefix, after.as_ref()).await.unwrap();
        assert!(page.len() <= LIST_PAGE);
        let more = page.len() == LIST_PAGE;
        keys.extend(page.into_iter().map(|entry| entry.key.to_string()));
        if !more {
            return keys;
        }
    }
}

async fn round_trip(store: &dyn Store) {
    let large: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
    for (name, content) in [("one/empty", Vec::new()), ("one/small", b"x".into()), ("one/l", large)]
    {
        let name = key(name);
        assert!(matches!(store.read(&name).await, Err(StoreError::NotFound { .. })));
        assert!(matches!(store.size(&name).await, Err(StoreError::NotFound { .. })));
        let written = store.write(&name, content.clone().into(), Condition::Always).await.unwrap();
        let object = store.read(&name).await.unwrap();
        assert_eq!((object.bytes, object.etag), (Bytes::from(content.clone()), written));
        assert_eq!(store.size(&name).await.unwrap(), content.len() as u64);
        let entry = store.list(name.as_str(), None).await.unwrap().remove(0);
        assert_eq!((entry.key, entry.bytes), (name.clone(), content.len() as u64));
        assert!(entry.modified.unix_ms() > 1_600_000_000_000, "{}", entry.modified);
        for _ in 0..2 {
            store.delete(&name).await.expect("to delete what is absent is fine");
        }
        assert!(matches!(store.read(&name).await, Err(StoreError::NotFound { .. })));
    }
}

/// The parts of a key are no objects.
async fn parts(store: &dyn Store) {
    store.write(&key("one/two/three"), "3".into(), Condition::Always).await.unwrap();
    for name in ["one", "one/two", "one/two/three/four"] {
        let read = store.read(&key(name)).await;
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{name}: {read:?}");
    }
    store.delete(&key("one/two/three")).await.unwrap();
}

async fn ranges(store: &dyn Store) {
    let name = key("ranges/a");
    let absent = store.read_range(&name, 0..1).await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })), "{absent:?}");
    store.write(&name, "0123456789".into(), Condition::Always).await.unwrap();
    for (range, wanted) in [(0..10, "0123456789"), (0..1, "0"), (3..7, "3456"), (9..10, "9")] {
        assert_eq!(store.read_range(&name, range).await.unwrap(), wanted);
    }
    for range in [0..11, 9..11, 10..11, 1_000..2_000, 0..u64::MAX, u64::MAX - 1..u64::MAX] {
        let read = store.read_range(&name, range.clone()).await;
        assert!(matches!(read, Err(StoreError::ShortRange { .. })), "{range:?}: {read:?}");
    }
    store.delete(&name).await.unwrap();
}

async fn conditions(store: &dyn Store) {
    let name = key("conditions/a");
    let stale = ETag("0000".to_owned());
    let conflict = |result: Result<ETag, StoreError>| {
        assert!(matches!(result, Err(StoreError::Conflict { .. })), "{result:?}");
    };
    conflict(store.write(&name, "0".into(), Condition::Matches(stale.clone())).await);
    let first = store.write(&name, "1".into(), Condition::Absent).await.unwrap();
    conflict(store.write(&name, "2".into(), Condition::Absent).await);
    conflict(store.write(&name, "2".into(), Condition::Matches(stale)).await);
    let second = store.write(&name, "2".into(), Condition::Matches(first.clone())).await.unwrap();
    conflict(store.write(&name, "3".into(), Condition::Matches(first)).await);
    assert_eq!(store.read(&name).await.unwrap().bytes, "2");
    store.delete(&name).await.unwrap();
    conflict(store.write(&name, "3".into(), Condition::Matches(second)).await);
    store.write(&name, "4".into(), Condition::Absent).await.unwrap();
    store.delete(&name).await.unwrap();
}

async fn files(store: &dyn Store) {
    let name = key("files/a");
    let unique = BranchId::generate(SystemClock::default().now());
    let file = std::env::temp_dir().join(format!("argon-suite-{unique}"));
    assert!(store.write_file(&name, &file).await.is_err(), "there is no file");
    for content in ["first", "the second"] {
        std::fs::write(&file, content).unwrap();
        let etag = store.write_file(&name, &file).await.unwrap();
        let object = store.read(&name).await.unwrap();
        assert_eq!((&object.bytes[..], object.etag), (content.as_bytes(), etag));
    }
    // Large enough for any store to take it in parts, and not a multiple of one.
    let large: Vec<u8> = (0..40_000_001_u32).map(|n| (n % 253) as u8).collect();
    std::fs::write(&file, &large).unwrap();
    store.delete(&name).await.unwrap();
    // A key of its own: s3s-fs keeps the checksum of what such an upload replaces.
    let name = key("files/large");
    store.write_file(&name, &file).await.unwrap();
    assert_eq!(store.size(&name).await.unwrap(), large.len() as u64);
    assert!(store.read(&name).await.unwrap().bytes == large);
    std::fs::remove_file(&file).unwrap();
    store.delete(&name).await.unwrap();
}

async fn one_of_many_wins(store: &Arc<dyn Store>, condition: Condition, name: &str) {
    const WRITERS: usize = 16;
    let start = Arc::new(Barrier::new(WRITERS));
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (store, start, name, condition) =
            (store.clone(), start.clone(), key(name), condition.clone());
        writers.spawn(async move {
            start.wait().await;
            let content = format!("writer {number}");
            match store.write(&name, content.clone().into(), condition).await {
                Ok(_) => Some(content),
                Err(StoreError::Conflict { .. }) => None,
                Err(e) => panic!("{e:?}"),
            }
        });
    }
    let winners: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(store.read(&key(name)).await.unwrap().bytes, winners[0]);
    store.delete(&key(name)).await.unwrap();
}

async fn readers_never_see_a_part(store: &Arc<dyn Store>) {
    let name = key("whole/a");
    let content = |round: u8| Bytes::from(vec![round; 200_000]);
    store.write(&name, content(0), Condition::Always).await.unwrap();
    let writer = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move {
            for round in 1..20 {
                store.write(&name, content(round), Condition::Always).await.unwrap();
            }
        }
    });
    let mut rounds = BTreeSet::new();
    while !writer.is_finished() {
        let bytes = store.read(&name).await.unwrap().bytes;
        assert_eq!(bytes, content(bytes[0]), "one writer's bytes, and all of them");
        rounds.insert(bytes[0]);
    }
    writer.await.unwrap();
    assert!(!rounds.is_empty());
    store.delete(&name).await.unwrap();
}

async fn lists(store: &Arc<dyn Store>) {
    // In the order of the bytes of the whole key: `-` and `.` come before `/`, `0` after it. A
    // directory cannot hold both `l/a` and `l/a/b`; no key of Argon is the beginning of another.
    let few = ["l/a-b", "l/a.b", "l/a/b", "l/a0", "l/b/c/d", "m", "packs/0"];
    let mut many: Vec<String> = (0..LIST_PAGE + 5).map(|n| format!("many/{n:05}")).collect();
    many.extend(few.iter().map(|name| (*name).to_owned()));
    many.sort();
    let writes = many.iter().map(|name| {
        let (store, key) = (store.clone(), key(name));
        async move { store.write(&key, Bytes::new(), Condition::Absent).await }
    });
    parallel(64, writes.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(listed(&**store, "").await, many);
    let last = key(&format!("many/{:05}", LIST_PAGE + 4));
    for (prefix, after, wanted) in [
        ("l/", None, &["l/a-b", "l/a.b", "l/a/b", "l/a0", "l/b/c/d"][..]),
        ("l/a", Some(key("l/a.b")), &["l/a/b", "l/a0"]),
        ("l", Some(key("l/a/a")), &["l/a/b", "l/a0", "l/b/c/d"]),
        ("", Some(last.clone()), &["packs/0"]),
        ("many/", Some(last), &[]),
        ("p", Some(key("l")), &["packs/0"]),
        ("nothing", None, &[]),
        ("../", None, &[]),
        ("/", None, &[]),
        ("l/../", None, &[]),
    ] {
        let page = store.list(prefix, after.as_ref()).await.unwrap();
        let keys: Vec<_> = page.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, wanted, "{prefix} after {after:?}");
    }
    let deletes = many.iter().map(|name| {
        let (store, key) = (store.clone(), key(name));
        async move { store.delete(&key).await }
    });
    parallel(64, deletes.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(listed(&**store, "").await, Vec::<String>::new());
}
