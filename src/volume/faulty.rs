//! Versions and heads on a store with faults: each call fails once in each way, and nothing is
//! lost, nothing half there and nothing wrong.

use std::fs;
use std::sync::Arc;

use super::model::{assert_restores, assert_same, found, make, small};
use super::testing::{TestStore, add_version, head, request};
use super::{Head, VolumeError, Volumes};
use crate::base::clock::SystemClock;
use crate::base::ids::{Epoch, VersionId};
use crate::store::faults::{Call, Fault, Faults};
use crate::store::{ETag, LocalStore};

fn faulty(seed: u64) -> (Volumes, Arc<Faults>, TestStore) {
    let store = TestStore::new();
    let inner: &LocalStore = &store;
    let faults = Faults::new(Arc::new(inner.clone()), seed);
    (Volumes::new(faults.clone(), Arc::new(SystemClock::default())), faults, store)
}

/// All faults of all calls, each at the first call, the second, and so on until it does not come.
async fn capture_with(call: Call, fault: Fault) {
    let (volumes, faults, _store) = faulty(1);
    let temporary = tempfile::tempdir().unwrap();
    make(&small(), temporary.path());
    let parent = volumes.capture(temporary.path(), request(None)).await.unwrap().id;
    for number in 1.. {
        let mut model = small();
        model.insert("new".into(), Some(format!("{fault:?} {number}").repeat(50_000).into()));
        fs::write(temporary.path().join("new"), model["new"].as_ref().unwrap()).unwrap();
        let asked = request(Some(parent));
        faults.once(call, number, fault);
        let captured = volumes.capture(temporary.path(), asked.clone()).await;
        let came = !faults.calm();
        let what = format!("{fault:?} at {call:?} {number}");
        match (captured, volumes.version(asked.id).await) {
            (Ok(version), _) => assert_restores(&volumes, version.id, &model, &what).await,
            // Written, and the answer was lost.
            (Err(_), Ok(version)) => assert_restores(&volumes, version.id, &model, &what).await,
            (Err(_), Err(VolumeError::NoVersion { .. })) => {}
            (captured, version) => panic!("{what}: {captured:?} {version:?}"),
        }
        assert_same(&found(temporary.path()), &model, &what);
        assert_restores(&volumes, parent, &small(), &what).await;
        let again = volumes.capture(temporary.path(), request(Some(parent))).await.unwrap();
        assert_restores(&volumes, again.id, &model, &what).await;
        if !came {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_survives_every_fault() {
    for call in [Call::Read, Call::Write] {
        for fault in Fault::ALL {
            capture_with(call, fault).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_right_or_fails_and_leaves_nothing() {
    let (volumes, faults, _store) = faulty(1);
    let temporary = tempfile::tempdir().unwrap();
    make(&small(), temporary.path());
    let version = volumes.capture(temporary.path(), request(None)).await.unwrap().id;
    for fault in Fault::ALL {
        for number in 1.. {
            let into = temporary.path().join("into");
            faults.once(Call::Read, number, fault);
            let restored = volumes.restore(version, &into).await;
            let came = !faults.calm();
            let what = format!("{fault:?} at {number}");
            match restored {
                Ok(_) => assert_same(&found(&into), &small(), &what),
                Err(error) => {
                    let empty = !into.exists() || fs::read_dir(&into).unwrap().next().is_none();
                    assert!(came && empty, "{what}: {error}");
                }
            }
            fs::remove_dir_all(&into).ok();
            if !came {
                break;
            }
        }
    }
    assert_restores(&volumes, version, &small(), "afterwards").await;
}

/// One of two servers that move one head, and what it believes.
struct Mover {
    head: Head,
    expected: ETag,
}

/// Two servers move one head in turns while every third call fails somehow.
#[tokio::test]
async fn a_head_never_is_what_nobody_wrote() {
    for seed in 0..60 {
        let (volumes, faults, store) = faulty(seed);
        add_version(&*store).await;
        let first = head(1);
        let tag = volumes.create_head(&first).await.unwrap();
        let mut current = first.clone();
        let mut movers = [0, 1].map(|_| Mover { head: first.clone(), expected: tag.clone() });
        for round in 0..40_u8 {
            let mover = &mut movers[usize::from(round % 3 == 0)];
            let mut id = [round; 16];
            id[0] = seed as u8;
            let next = Head {
                version: VersionId::from_bytes(id),
                epoch: Epoch(mover.head.epoch.0 + u64::from(round % 5 == 0)),
                ..mover.head.clone()
            };
            faults.often(333, &Fault::ALL);
            let moved = volumes.move_head(&next, &mover.expected).await;
            faults.calm();
            let (now, tag) = volumes.head(first.branch).await.unwrap();
            let what = format!("seed {seed}, round {round}: {moved:?}");
            match moved {
                Ok(_) => assert_eq!(now, next, "{what}"),
                Err(VolumeError::Fenced { .. }) => assert!(now == current || now == next, "{what}"),
                Err(_) => assert!(now == current || now == next, "{what}"),
            }
            assert!(now.epoch >= current.epoch, "{what}");
            // Who did not know the newest state cannot have moved it.
            if mover.expected == tag {
                assert_eq!(now, current, "{what}");
            }
            (mover.head, mover.expected) = (now.clone(), tag);
            current = now;
        }
        assert!(faults.happened() > 5, "seed {seed}: {}", faults.happened());
    }
}
