//! Garbage collection, case by case.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::model::{Model, assert_restores, make, noise};
use super::testing::{ManualClock, Random, TestStore, head, request, timed_volumes};
use super::{Capture, Collect, Collected, Head, Mode, Tally, VolumeError, Volumes, keys};
use crate::base::ids::{BranchId, VersionId};
use crate::base::limits::{BLOCK_BYTES, UPLOAD_DEADLINE};
use crate::store::{Condition, ETag, Key, Listed, Object, Store, StoreError};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn run(min_age: Duration) -> Collect {
    Collect { mode: Mode::Run, min_age, given_up: HashSet::new(), awaited: HashSet::new() }
}

async fn collect(volumes: &Volumes, request: &Collect) -> Collected {
    volumes.collect(request, &|_| {}).await.unwrap()
}

fn branch() -> BranchId {
    head(1).branch
}

/// Stores what `model` says as a version of the branch, made from `parent`.
async fn capture(volumes: &Volumes, model: &Model, parent: Option<VersionId>) -> VersionId {
    let directory = tempfile::tempdir().unwrap();
    make(model, directory.path());
    let id = VersionId::generate(volumes.clock.now());
    let capture = Capture { id, branch: Some(branch()), ..request(parent) };
    volumes.capture(directory.path(), capture).await.unwrap().id
}

fn model(seed: u64, blocks: usize) -> Model {
    let content = noise(&mut Random(seed), blocks * BLOCK_BYTES);
    Model::from([("collection.wt".to_owned(), Some(content))])
}

/// Every object with its bytes.
async fn objects(store: &TestStore) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    for entry in store.list("", None).await.unwrap() {
        objects.insert(entry.key.to_string(), store.read(&entry.key).await.unwrap().bytes);
    }
    objects
}

async fn set_head(volumes: &Volumes, version: VersionId) {
    let head = Head { version, ..head(1) };
    match volumes.head(head.branch).await {
        Ok((_, etag)) => drop(volumes.move_head(&head, &etag).await.unwrap()),
        Err(_) => drop(volumes.create_head(&head).await.unwrap()),
    }
}

#[tokio::test]
async fn what_is_dead_goes_on_the_second_look_a_minimum_age_later() {
    let (volumes, store, clock) = timed_volumes();
    volumes.prepare().await.unwrap();
    let version = capture(&volumes, &model(1, 3), None).await;
    set_head(&volumes, version).await;
    let living = collect(&volumes, &run(DAY)).await;
    assert_eq!((living.kept.versions, living.kept.pages, living.kept.packs), (1, 1, 1));
    assert_eq!((living.condemned, living.deleted), Default::default());

    volumes.delete_head(branch()).await.unwrap();
    let dead = living.kept;
    for (passed, condemned, deleted) in [
        (DAY, dead, Tally::default()),
        (23 * HOUR, dead, Tally::default()),
        (HOUR, Tally::default(), dead),
    ] {
        clock.advance(passed);
        let before = objects(&store).await;
        let dry = collect(&volumes, &Collect { mode: Mode::DryRun, ..run(DAY) }).await;
        assert_eq!(objects(&store).await, before, "a dry run changes nothing");
        let found = collect(&volumes, &run(DAY)).await;
        assert_eq!((dry.condemned, dry.deleted), (found.condemned, found.deleted));
        assert_eq!((found.condemned, found.deleted), (condemned, deleted), "{passed:?}");
        assert_eq!(found.next.is_some(), condemned != Tally::default());
    }
    let left: Vec<_> = objects(&store).await.into_keys().collect();
    assert_eq!(left, ["argon/condemned", "argon/format"]);
    assert_eq!(collect(&volumes, &run(DAY)).await, Collected::default());
}

#[tokio::test]
async fn a_version_that_comes_late_keeps_what_was_condemned_meanwhile() {
    let (volumes, store, clock) = timed_volumes();
    let model = model(1, 3);
    let parent = capture(&volumes, &model, None).await;
    set_head(&volumes, parent).await;
    let version = capture(&volumes, &self::model(2, 3), Some(parent)).await;
    // As another server's upload looks: its packs are here, its version is on the way.
    let key = keys::version(version);
    let root = store.read(&key).await.unwrap().bytes;
    store.delete(&key).await.unwrap();
    let first = collect(&volumes, &run(DAY)).await;
    assert_eq!((first.condemned.packs, first.condemned.pages), (1, 1));
    clock.advance(12 * HOUR);
    store.write(&key, root, Condition::Absent).await.unwrap();
    clock.advance(DAY);
    let second = collect(&volumes, &run(DAY)).await;
    assert_eq!((second.condemned, second.deleted), Default::default());
    assert_eq!(volumes.condemned().await.unwrap().unwrap().0.since, BTreeMap::new());
    assert_restores(&volumes, version, &self::model(2, 3), "the late one").await;
}

#[tokio::test]
async fn what_a_head_a_pin_an_origin_or_a_save_needs_is_not_given_up() {
    let (volumes, _store, clock) = timed_volumes();
    let mut versions = Vec::new();
    for seed in 0..5 {
        let parent = versions.last().copied();
        versions.push(capture(&volumes, &model(seed, 1), parent).await);
    }
    // 0 is pinned, 1 is nobody's, 2 is an origin, 3 is the head, 4 is about to become it.
    set_head(&volumes, versions[3]).await;
    volumes.pin(versions[0]).await.unwrap();
    let origin = super::Origin { branch: branch(), version: versions[2] };
    let other = BranchId::from_bytes([9; 16]);
    let fork = Head { branch: other, version: versions[3], origin: Some(origin), ..head(1) };
    volumes.create_head(&fork).await.unwrap();
    let request = Collect { given_up: versions.iter().copied().collect(), ..run(DAY) };
    collect(&volumes, &request).await;

    // Nothing new is made from what is condemned.
    let late = Head { branch: BranchId::from_bytes([8; 16]), version: versions[1], ..head(1) };
    let refused = volumes.create_head(&late).await;
    assert!(matches!(refused, Err(VolumeError::Condemned { version }) if version == versions[1]));
    assert!(matches!(volumes.head(late.branch).await, Err(VolumeError::NoHead { .. })));
    let refused = volumes.pin(versions[1]).await;
    assert!(matches!(refused, Err(VolumeError::Condemned { .. })), "{refused:?}");
    assert_eq!(volumes.pins().await.unwrap(), [versions[0]]);

    clock.advance(DAY);
    let ended = collect(&volumes, &request).await;
    assert_eq!(ended.versions, [versions[1]]);
    collect(&volumes, &request).await;
    let refused = volumes.create_head(&late).await;
    assert!(matches!(refused, Err(VolumeError::NoVersion { .. })), "{refused:?}");
    for place in [0, 2, 3, 4] {
        assert_restores(&volumes, versions[place], &model(place as u64, 1), "kept").await;
    }
}

#[tokio::test]
async fn a_capture_shares_nothing_with_a_condemned_parent() {
    let (volumes, _store, clock) = timed_volumes();
    let model = model(1, 2);
    let parent = capture(&volumes, &model, None).await;
    collect(&volumes, &run(DAY)).await;
    let child = capture(&volumes, &model, Some(parent)).await;
    set_head(&volumes, child).await;
    clock.advance(DAY);
    let request = Collect { given_up: HashSet::from([parent]), ..run(DAY) };
    assert_eq!(collect(&volumes, &request).await.versions, [parent]);
    assert_restores(&volumes, child, &model, "the child").await;
}

#[tokio::test]
async fn within_a_server_captures_are_waited_for_whatever_the_minimum_age() {
    let (volumes, _store, _clock) = timed_volumes();
    let version = capture(&volumes, &model(1, 1), None).await;
    let id = VersionId::generate(volumes.clock.now());
    let (running, shared) = volumes.begin_upload(id, Some(version)).await.unwrap();
    assert_eq!(shared, Some(version));
    for _ in 0..3 {
        let found = collect(&volumes, &run(Duration::ZERO)).await;
        assert_eq!((found.condemned.versions, found.deleted), (1, Tally::default()));
    }
    drop(running);
    assert_eq!(collect(&volumes, &run(Duration::ZERO)).await.versions, [version]);
}

#[tokio::test]
async fn as_long_as_a_version_cannot_be_read_nothing_goes() {
    for prefix in ["versions/", "pages/"] {
        let (volumes, store, clock) = timed_volumes();
        let dead = capture(&volumes, &model(1, 1), None).await;
        collect(&volumes, &run(DAY)).await;
        clock.advance(DAY);
        let known: HashSet<_> = objects(&store).await.into_keys().collect();
        let living = capture(&volumes, &model(2, 1), None).await;
        set_head(&volumes, living).await;
        let hurt = objects(&store)
            .await
            .into_keys()
            .find(|key| key.starts_with(prefix) && !known.contains(key));
        let hurt = hurt.unwrap();
        let key: Key = hurt.parse().unwrap();
        let object = store.read(&key).await.unwrap().bytes;
        let mut damaged = object.to_vec();
        damaged[40] ^= 1;
        store.write(&key, damaged.into(), Condition::Always).await.unwrap();
        let error = volumes.collect(&run(DAY), &|_| {}).await.unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(&hurt), "{error}");
        store.delete(&key).await.unwrap();
        let error = volumes.collect(&run(DAY), &|_| {}).await.unwrap_err();
        assert!(error.is_damage(), "{error}");
        assert!(volumes.version(dead).await.is_ok());
        store.write(&key, object, Condition::Absent).await.unwrap();
        let request = Collect { given_up: HashSet::from([dead]), ..run(DAY) };
        assert_eq!(collect(&volumes, &request).await.versions, [dead]);
    }
}

#[tokio::test]
async fn mostly_dead_packs_are_rewritten_and_versions_hold_what_they_held() {
    let (volumes, store, clock) = timed_volumes();
    let before = model(1, 40);
    let mut after = before.clone();
    let content = after.get_mut("collection.wt").unwrap().as_mut().unwrap();
    content[..30 * BLOCK_BYTES].copy_from_slice(&noise(&mut Random(9), 30 * BLOCK_BYTES));
    let first = capture(&volumes, &before, None).await;
    let second = capture(&volumes, &after, Some(first)).await;
    set_head(&volumes, second).await;
    let told = volumes.version(second).await.unwrap();
    let reader = volumes.index(second).await.unwrap();
    let request = Collect { given_up: HashSet::from([first]), ..run(DAY) };

    collect(&volumes, &request).await;
    clock.advance(DAY + HOUR);
    let rewriting = collect(&volumes, &request).await;
    assert_eq!(rewriting.versions, [first]);
    assert_eq!((rewriting.rewritten.packs, rewriting.rewritten.pages), (1, 0));
    assert!(rewriting.rewritten_as < rewriting.rewritten.bytes / 2);
    assert_eq!(volumes.version(second).await.unwrap(), told, "all but its pages is the same");
    assert_restores(&volumes, second, &after, "moved").await;

    // A capture that holds the old index ends now: it keeps the old pack alive.
    let old = reader.root.pages.clone();
    let child = capture(&volumes, &after, Some(second)).await;
    let mut root = volumes.root(child).await.unwrap();
    root.version.id = VersionId::generate(volumes.clock.now());
    root.pages = old;
    let key = keys::version(root.version.id);
    store.write(&key, root.seal().unwrap(), Condition::Absent).await.unwrap();
    for _ in 0..5 {
        clock.advance(DAY + HOUR);
        collect(&volumes, &request).await;
        for version in [second, child, root.version.id] {
            assert_restores(&volumes, version, &after, "of whichever index").await;
        }
    }
    // By now it was moved too, and the oldest packs are gone.
    let bytes: u64 = store.list("packs/", None).await.unwrap().iter().map(|e| e.bytes).sum();
    assert!(bytes < 55 * BLOCK_BYTES as u64, "{bytes}");
}

/// A store in which time passes while something is written.
#[derive(Debug)]
struct Slow {
    inner: TestStore,
    clock: Arc<ManualClock>,
    /// The prefix of what takes long.
    slow: &'static str,
}

#[async_trait]
impl Store for Slow {
    fn describe(&self) -> String {
        "a slow store".to_owned()
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        self.inner.read(key).await
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.read_range(key, range).await
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        if key.as_str().starts_with(self.slow) {
            self.clock.advance(UPLOAD_DEADLINE);
        }
        self.inner.write(key, bytes, condition).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        self.inner.write_file(key, file).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after).await
    }
}

#[tokio::test]
async fn an_upload_that_takes_too_long_writes_no_version() {
    for slow in ["packs/", "pages/", "versions/"] {
        let clock = ManualClock::new();
        let inner = TestStore::new();
        let store = Arc::new(Slow { inner, clock: clock.clone(), slow });
        let volumes = Volumes::new(store.clone(), clock);
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x"), "x").unwrap();
        let late = volumes.capture(directory.path(), request(None)).await.unwrap_err();
        assert!(matches!(late, VolumeError::TooLate { .. }) && late.is_retryable(), "{late}");
        assert_eq!(store.inner.count(["versions/"]).await, [0], "{slow}");
        assert_eq!(volumes.uploads.oldest(), None);
    }
}
