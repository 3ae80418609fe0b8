//! Volumes against a trivial model: a version is a map from paths to contents.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::testing::{Faults, Random, When, request, volumes};
use super::{VolumeError, Volumes};
use crate::base::ids::VersionId;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::{MountError, walk};
use crate::store::{Condition, Store};

/// Files by path, and directories with `None`.
pub(super) type Model = BTreeMap<String, Option<Vec<u8>>>;

pub(super) fn make(model: &Model, root: &Path) {
    fs::create_dir_all(root).unwrap();
    for (path, content) in model {
        match content {
            None => fs::create_dir(root.join(path)).unwrap(),
            Some(content) => fs::write(root.join(path), content).unwrap(),
        }
    }
}

pub(super) fn found(root: &Path) -> Model {
    let tree = walk(root).unwrap();
    let directories = tree.directories().iter().map(|entry| (entry.path.to_string(), None));
    let content = |path: &str| fs::read(root.join(path)).unwrap();
    let files = tree.files().iter();
    let files = files.map(|file| (file.path.to_string(), Some(content(file.path.as_str()))));
    directories.chain(files).collect()
}

/// Compares without printing megabytes.
pub(super) fn assert_same(found: &Model, wanted: &Model, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{what}");
    for (path, content) in wanted {
        assert!(found[path] == *content, "{what}: {path} differs");
    }
}

pub(super) async fn assert_restores(
    volumes: &Volumes,
    version: VersionId,
    wanted: &Model,
    what: &str,
) {
    let temporary = tempfile::tempdir().unwrap();
    let restored = volumes.restore(version, temporary.path()).await.unwrap();
    assert_same(&found(temporary.path()), wanted, what);
    let files: Vec<_> = wanted.values().flatten().collect();
    assert_eq!(restored.files, files.len() as u64);
    assert_eq!(restored.bytes, files.iter().map(|content| content.len() as u64).sum::<u64>());
    assert_eq!(volumes.check(version).await.unwrap().blocks, restored.blocks);
}

pub(super) fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    (0..bytes / 8 + 1).flat_map(|_| random.next().to_le_bytes()).take(bytes).collect()
}

/// Content of which some compresses and some does not.
fn content(random: &mut Random, bytes: usize) -> Vec<u8> {
    match random.below(2) {
        0 => noise(random, bytes),
        _ => (1..=bytes / 8 + 1).flat_map(|n| (n / 7).to_le_bytes()).take(bytes).collect(),
    }
}

pub(super) fn edit(model: &mut Model, random: &mut Random) {
    let files: Vec<_> = model
        .iter()
        .filter(|(_, content)| content.is_some())
        .map(|(path, _)| path.clone())
        .collect();
    let name = format!("f{}", random.below(1_000));
    let sizes = [0, 1, 21, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 200_000, 300_000];
    let size = sizes[random.below(sizes.len())];
    let Some(path) = files.get(random.below(files.len().max(1))).cloned() else {
        model.insert(name, Some(content(random, size)));
        return;
    };
    match random.below(9) {
        0 => drop(model.insert(name, Some(content(random, size)))),
        1 => {
            model.entry(format!("d-{name}")).or_insert(None);
            model.insert(format!("d-{name}/inner"), Some(content(random, size)));
        }
        2 => drop(model.entry(format!("empty-{name}")).or_insert(None)),
        3 => drop(model.remove(&path)),
        4 => {
            let content = model.remove(&path).unwrap();
            model.insert(name, content);
        }
        5 => {
            // Mostly a hole, over the end of an index page.
            let mut content = vec![0; 17 * 1024 * 1024 + random.below(9)];
            content[16_000_000] = 1;
            content[16_777_217] = 2;
            model.insert("sparse".to_owned(), Some(content));
        }
        operation => {
            let addition = content(random, size);
            let content = model.get_mut(&path).unwrap().as_mut().unwrap();
            let at = random.below(content.len() + 1);
            match operation {
                6 => content.truncate(at),
                7 => content.extend(addition),
                _ => content[at..].iter_mut().zip(&addition).for_each(|(old, new)| *old = *new),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_what_it_was_however_the_others_went_on() {
    for seed in [1, 2, 3] {
        let (volumes, _store) = volumes();
        let mut random = Random(seed);
        let mut versions: Vec<(VersionId, Model)> = Vec::new();
        for number in 0..12 {
            // Any version may be gone on from: that is a fork, or a time travel.
            let parent = (number > 0).then(|| versions[random.below(versions.len())].clone());
            let (parent, mut model) = parent.map_or((None, Model::new()), |(v, m)| (Some(v), m));
            (0..random.below(6)).for_each(|_| edit(&mut model, &mut random));
            let temporary = tempfile::tempdir().unwrap();
            make(&model, temporary.path());
            let version = volumes.capture(temporary.path(), request(parent)).await.unwrap();
            assert_eq!(volumes.version(version.id).await.unwrap(), version);
            versions.push((version.id, model));
        }
        for (number, (version, model)) in versions.iter().enumerate() {
            assert_restores(&volumes, *version, model, &format!("seed {seed}, {number}")).await;
        }
    }
}

fn small() -> Model {
    let mut random = Random(7);
    let mut model = Model::from([("journal".to_owned(), None), ("empty".to_owned(), None)]);
    for (path, bytes) in [("journal/log", 300_000), ("collection.wt", 1_000_000), ("lock", 0)] {
        model.insert(path.to_owned(), Some(noise(&mut random, bytes)));
    }
    model
}

#[tokio::test]
async fn a_version_costs_what_changed() {
    const PREFIXES: [&str; 3] = ["packs/", "pages/", "versions/"];
    let (volumes, store) = volumes();
    let temporary = tempfile::tempdir().unwrap();
    let mut model = small();
    make(&model, temporary.path());
    let first = volumes.capture(temporary.path(), request(None)).await.unwrap();
    assert_eq!((first.total_bytes, first.new_bytes), (1_300_000, 1_300_000));
    assert_eq!(store.count(PREFIXES).await, [1, 1, 1]);
    let size = |prefix: &'static str| {
        let store = &store;
        async move { store.list(prefix, None).await.unwrap().iter().map(|e| e.bytes).sum::<u64>() }
    };
    assert_eq!(first.stored_bytes, size("packs/").await + size("pages/").await);

    let same = volumes.capture(temporary.path(), request(Some(first.id))).await.unwrap();
    assert_eq!((same.total_bytes, same.new_bytes, same.stored_bytes), (1_300_000, 0, 0));
    assert_eq!(store.count(PREFIXES).await, [1, 1, 2]);

    // A renamed file is recognised by its blocks.
    fs::rename(temporary.path().join("journal/log"), temporary.path().join("rotated")).unwrap();
    let log = model.remove("journal/log").unwrap();
    model.insert("rotated".to_owned(), log);
    let renamed = volumes.capture(temporary.path(), request(Some(same.id))).await.unwrap();
    assert_eq!((renamed.new_bytes, store.count(PREFIXES).await), (0, [1, 2, 3]));

    // Two branches of one version: each pays for its own block only.
    for byte in [1, 2] {
        let mut model = model.clone();
        model.get_mut("collection.wt").unwrap().as_mut().unwrap()[500_000] ^= byte;
        fs::write(temporary.path().join("collection.wt"), model["collection.wt"].as_ref().unwrap())
            .unwrap();
        let fork = volumes.capture(temporary.path(), request(Some(renamed.id))).await.unwrap();
        assert_eq!(fork.new_bytes, BLOCK_BYTES as u64);
        assert!(fork.stored_bytes < 70_000, "{}", fork.stored_bytes);
        assert_restores(&volumes, fork.id, &model, "fork").await;
    }
    assert_eq!(store.count(PREFIXES).await, [3, 4, 5]);
    assert_restores(&volumes, first.id, &small(), "first").await;
}

#[tokio::test]
async fn whatever_write_fails_the_parent_stays_and_the_next_try_succeeds() {
    let before = small();
    let mut after = before.clone();
    after.insert("new".to_owned(), Some(noise(&mut Random(3), 9_000_000)));
    for when in [When::BeforeTheEffect, When::AfterTheEffect] {
        let mut failures = 0;
        for number in 1.. {
            let faults = Faults::new();
            let volumes = faults.volumes();
            let temporary = tempfile::tempdir().unwrap();
            make(&before, temporary.path());
            let parent = volumes.capture(temporary.path(), request(None)).await.unwrap();
            fs::write(temporary.path().join("new"), after["new"].as_ref().unwrap()).unwrap();

            faults.fail_write(number, when);
            let failed = volumes.capture(temporary.path(), request(Some(parent.id))).await;
            if faults.take_unused() {
                break;
            }
            failures += 1;
            let error = failed.unwrap_err();
            let named = ["write packs/", "write pages/", "write versions/"];
            assert!(named.iter().any(|name| error.to_string().starts_with(name)), "{error}");
            assert!(error.is_retryable());
            assert_restores(&volumes, parent.id, &before, "the parent").await;
            assert_same(&found(temporary.path()), &after, "the directory");
            let again = volumes.capture(temporary.path(), request(Some(parent.id))).await.unwrap();
            assert_restores(&volumes, again.id, &after, "the next try").await;
        }
        assert_eq!(failures, 4, "two packs, a pages object, the version");
    }
}

#[tokio::test]
async fn damage_is_named_and_never_restored() {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    const FLIP: Damage = |mut object| {
        object[40] ^= 1;
        object
    };
    const HALVE: Damage = |mut object| {
        object.truncate(object.len() / 2);
        object
    };
    for (prefix, damage, words) in [
        ("packs/", Some(FLIP), "block 0 of file `collection.wt`"),
        ("packs/", Some(HALVE), "of file `"),
        ("packs/", None, "from block 0 of file `collection.wt` on"),
        ("pages/", Some(FLIP), "index page 0 of file `collection.wt`"),
        ("pages/", Some(HALVE), "index page 0"),
        ("pages/", None, "from index page 0 of file `collection.wt` on"),
        ("versions/", Some(FLIP), "is damaged"),
        ("versions/", Some(HALVE), "is damaged"),
        ("versions/", None, "does not exist"),
    ] {
        let (volumes, store) = volumes();
        let temporary = tempfile::tempdir().unwrap();
        make(&small(), &temporary.path().join("from"));
        let version = volumes.capture(&temporary.path().join("from"), request(None)).await;
        let version = version.unwrap().id;
        let key = store.list(prefix, None).await.unwrap().remove(0).key;
        match damage {
            None => store.delete(&key).await.unwrap(),
            Some(damage) => {
                let object = damage(store.read(&key).await.unwrap().bytes.into());
                store.write(&key, object.into(), Condition::Always).await.unwrap();
            }
        }
        let into = temporary.path().join("into");
        let error = volumes.restore(version, &into).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(key.as_str().rsplit('/').next().unwrap()));
        assert!(!into.exists() || fs::read_dir(&into).unwrap().next().is_none(), "{text}");
        assert!(volumes.check(version).await.is_err(), "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_captured_or_restored_says_why() {
    let (volumes, store) = volumes();
    let temporary = tempfile::tempdir().unwrap();
    let from = temporary.path().join("from");
    make(&small(), &from);
    let first = request(None);
    let version = volumes.capture(&from, first.clone()).await.unwrap();
    fs::write(from.join("lock"), "changed").unwrap();
    let again = volumes.capture(&from, first).await;
    assert!(matches!(again, Err(VolumeError::VersionExists { .. })), "{again:?}");
    assert_restores(&volumes, version.id, &small(), "a version never changes").await;

    let occupied = volumes.restore(version.id, &from).await;
    assert!(matches!(occupied, Err(VolumeError::Mount(MountError::NotEmpty { .. }))));
    assert_eq!(fs::read(from.join("lock")).unwrap(), b"changed");

    let absent = request(None).id;
    for error in [
        volumes.version(absent).await.unwrap_err(),
        volumes.restore(absent, &temporary.path().join("x")).await.unwrap_err(),
        volumes.capture(&from, request(Some(absent))).await.unwrap_err(),
    ] {
        assert!(matches!(error, VolumeError::NoVersion { version } if version == absent));
    }

    std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
    let before = store.count([""]).await;
    let error = volumes.capture(&from, request(None)).await.unwrap_err();
    assert!(error.to_string().contains("link is a symbolic link"), "{error}");
    assert_eq!(store.count([""]).await, before);

    // A version of another id under this one's key is another object, not this one.
    let other = absent.to_string();
    let bytes = store.read(&format!("versions/{}", version.id).parse().unwrap()).await.unwrap();
    let key = format!("versions/{other}").parse().unwrap();
    store.write(&key, bytes.bytes, Condition::Absent).await.unwrap();
    let error = volumes.version(absent).await.unwrap_err();
    assert!(matches!(error, VolumeError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_pack_that_cannot_be_read_alone_is_found_by_a_check() {
    let (volumes, store) = volumes();
    let temporary = tempfile::tempdir().unwrap();
    make(&small(), temporary.path());
    let version = volumes.capture(temporary.path(), request(None)).await.unwrap().id;
    for prefix in ["packs/", "pages/"] {
        let key = store.list(prefix, None).await.unwrap().remove(0).key;
        let object = store.read(&key).await.unwrap().bytes;
        let mut damaged = object.to_vec();
        // In the table's last entry: a restore never looks there.
        damaged[object.len() - 60] ^= 1;
        store.write(&key, damaged.into(), Condition::Always).await.unwrap();
        let error = volumes.check(version).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{key} is damaged: its table"));
        assert_restores_unchecked(&volumes, version).await;
        store.write(&key, object, Condition::Always).await.unwrap();
    }
    volumes.check(version).await.unwrap();
}

async fn assert_restores_unchecked(volumes: &Volumes, version: VersionId) {
    let temporary = tempfile::tempdir().unwrap();
    volumes.restore(version, temporary.path()).await.unwrap();
    assert_same(&found(temporary.path()), &small(), "restored");
}

#[tokio::test]
async fn the_long_work_can_run_in_a_task_of_its_own() {
    let (volumes, _store) = volumes();
    let temporary = tempfile::tempdir().unwrap();
    let (from, into) = (temporary.path().join("from"), temporary.path().join("into"));
    make(&small(), &from);
    let work = async move {
        let version = volumes.capture(&from, request(None)).await.unwrap().id;
        volumes.check(version).await.unwrap();
        volumes.restore(version, &into).await.unwrap();
        found(&into)
    };
    assert_same(&tokio::spawn(work).await.unwrap(), &small(), "restored");
}
