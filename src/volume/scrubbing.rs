//! Scrub, fault by fault.

use super::model::{Model, make, noise};
use super::testing::{Random, TestStore, head, request, volumes};
use super::{Capture, Hurt, Project, Scrubbed, Volumes, keys};
use crate::base::ids::{BranchId, VersionId};
use crate::base::limits::BLOCK_BYTES;
use crate::store::{Condition, Key, Store};

async fn scrub(volumes: &Volumes) -> Scrubbed {
    volumes.scrub(&|_| {}).await.unwrap()
}

/// Two versions of branch dev: `new` differs in one block of `b` from `old`, and shares the rest.
struct Bench {
    volumes: Volumes,
    store: TestStore,
    old: VersionId,
    new: VersionId,
}

async fn bench() -> Bench {
    let (volumes, store) = volumes();
    let mut random = Random(1);
    let mut model = Model::new();
    for path in ["a", "b"] {
        model.insert(path.to_owned(), Some(noise(&mut random, 3 * BLOCK_BYTES)));
    }
    let branch = Some(head(1).branch);
    let directory = tempfile::tempdir().unwrap();
    make(&model, directory.path());
    let old = Capture { branch, ..request(None) };
    let old = volumes.capture(directory.path(), old).await.unwrap().id;
    let content = model.get_mut("b").unwrap().as_mut().unwrap();
    content[..10].fill(7);
    std::fs::write(directory.path().join("b"), content).unwrap();
    let new = Capture { branch, ..request(Some(old)) };
    let new = volumes.capture(directory.path(), new).await.unwrap().id;
    volumes.create_head(&super::Head { version: new, ..head(1) }).await.unwrap();
    Bench { volumes, store, old, new }
}

impl Bench {
    /// The oldest, or the newest, object under a prefix.
    async fn object(&self, prefix: &str, newest: bool) -> Key {
        let mut listed = self.store.list(prefix, None).await.unwrap();
        listed.sort_by_key(|entry| (entry.modified, entry.key.to_string()));
        listed.remove(if newest { listed.len() - 1 } else { 0 }).key
    }

    async fn change(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        let mut object: Vec<u8> = self.store.read(key).await.unwrap().bytes.into();
        change(&mut object);
        self.store.write(key, object.into(), Condition::Always).await.unwrap();
    }

    fn hurt(&self, version: VersionId, files: &[&str]) -> Hurt {
        let files = files.iter().map(|&file| file.to_owned()).collect();
        Hurt { version, names: vec!["shop/dev".to_owned()], files }
    }
}

#[tokio::test]
async fn a_sound_store_is_found_sound() {
    let bench = bench().await;
    let found = scrub(&bench.volumes).await;
    assert_eq!((found.versions, found.objects, found.frames), (2, 4, 3 + 7), "{found:?}");
    assert_eq!(found.damages, []);
}

#[tokio::test]
async fn each_fault_is_found_and_those_it_hurts_are_named() {
    type Change = fn(&mut Vec<u8>);
    const FIRST_BLOCK: Change = |object| object[40] ^= 1;
    const TABLE: Change = |object| *object.iter_mut().rev().nth(60).unwrap() ^= 1;
    const CUT: Change = |object| object.truncate(object.len() / 2);
    // In the pack of `old`: block 0 of `a`, which `new` shares.
    for (prefix, newest, change, problem, old, new) in [
        (
            "packs/",
            false,
            Some(FIRST_BLOCK),
            "at 32: its checksum",
            Some(&["a"][..]),
            Some(&["a"][..]),
        ),
        ("packs/", false, Some(TABLE), "its table", None, None),
        ("packs/", false, Some(CUT), "its table", Some(&["b"]), Some(&["b"])),
        ("packs/", false, None, "does not exist", Some(&["a", "b"]), Some(&["a", "b"])),
        ("packs/", true, Some(FIRST_BLOCK), "at 32", None, Some(&["b"])),
        (
            "pages/",
            false,
            Some(FIRST_BLOCK),
            "index page 0 of file `a`",
            Some(&["a"]),
            Some(&["a"]),
        ),
        ("pages/", true, Some(CUT), "index page 0 of file `b`", None, Some(&["b"])),
        ("pages/", true, None, "does not exist", None, Some(&["b"])),
    ] {
        let bench = bench().await;
        let key = bench.object(prefix, newest).await;
        match change {
            Some(change) => bench.change(&key, change).await,
            None => bench.store.delete(&key).await.unwrap(),
        }
        let found = scrub(&bench.volumes).await;
        let [damage] = &found.damages[..] else { panic!("{problem}: {found:?}") };
        assert_eq!(damage.object, key);
        assert!(damage.problem.contains(problem), "{problem}: {damage:?}");
        let old = old.map(|files| bench.hurt(bench.old, files));
        let new = new.map(|files| bench.hurt(bench.new, files));
        let mut wanted: Vec<_> = old.into_iter().chain(new).collect();
        wanted.sort_by_key(|hurt| hurt.version);
        assert_eq!(damage.hurts, wanted, "{problem}");
    }
}

#[tokio::test]
async fn a_version_that_is_gone_or_damaged_is_told_to_whom_it_belongs() {
    let bench = bench().await;
    let project = Project {
        id: head(1).project,
        name: "shop".parse().unwrap(),
        created: head(1).created,
        base: Some(bench.old),
        retention: Default::default(),
        image: None,
    };
    bench.volumes.save_project(&project).await.unwrap();
    bench.store.delete(&keys::version(bench.old)).await.unwrap();
    bench.change(&keys::version(bench.new), |object| object[30] ^= 1).await;
    let head_key = keys::head(BranchId::from_bytes([7; 16]));
    bench.store.write(&head_key, "junk".into(), Condition::Absent).await.unwrap();
    let found = scrub(&bench.volumes).await;
    let told: Vec<_> = found
        .damages
        .iter()
        .map(|damage| (damage.object.clone(), damage.hurts.first().map(|hurt| hurt.names.clone())))
        .collect();
    let base = vec!["the base of project shop".to_owned()];
    let mut wanted = vec![
        (head_key, None),
        (keys::version(bench.old), Some(base)),
        (keys::version(bench.new), Some(vec!["shop/dev".to_owned()])),
    ];
    wanted.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    assert_eq!(told, wanted);
}
