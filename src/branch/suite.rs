//! Branches over real parts: a local store, a real mongod.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use argon_admin::types::{
    At, BranchSource, BranchState, CreateBranch, IdleTimeout, Retention, Until,
};
use bson::{Bson, doc};

use super::state::State;
use super::{BranchError, BranchHandle, Branches, Deleted, Parts, Settings, Use, Writers};
use crate::base::clock::SystemClock;
use crate::base::ids::VersionId;
use crate::catalog::Catalog;
use crate::compute::ProcessCompute;
use crate::compute::mongod::Search;
use crate::store::LocalStore;
use crate::volume::{Capture, Cause, Head, VolumeError};
use crate::wire::Client;

async fn open(data_dir: &Path) -> Branches {
    let mongod = tokio::task::spawn_blocking(|| {
        let setting =
            std::env::var_os("ARGON_MONGOD").map(|path| (path.into(), "ARGON_MONGOD".into()));
        Search::of_this_process(setting).unwrap().find_or_fetch(&mut |_| {}).unwrap()
    });
    let parts = Parts {
        catalog: Catalog::open(&data_dir.join("catalog.sqlite")).unwrap(),
        store: Arc::new(LocalStore::open(data_dir.join("store")).unwrap()),
        compute: Arc::new(ProcessCompute::new(mongod.await.unwrap()).await.unwrap()),
        clock: Arc::new(SystemClock::default()),
        metrics: Arc::default(),
    };
    let settings = Settings {
        data_dir: data_dir.to_owned(),
        idle_timeout: IdleTimeout::Never,
        snapshot_every: argon_admin::types::SnapshotEvery::Off,
        keep_warm: argon_admin::types::KeepWarm::Off,
        mounts: Default::default(),
        address: "127.0.0.1:0".into(),
        base_key: "base/dump.archive".parse().unwrap(),
        sample_base: include_bytes!("../../data/base_dump.archive"),
        parked: 0,
        cache_gb: 0.25,
        oplog_mb: 16,
        clients_max: 100,
        garbage: Default::default(),
        writers: Writers::Several { lease_ttl: Duration::from_secs(60) },
    };
    Branches::open(parts, settings).await.unwrap()
}

fn request(name: &str, source: BranchSource) -> CreateBranch {
    CreateBranch {
        name: name.into(),
        source,
        idle_timeout: None,
        snapshot_every: None,
        keep_warm: None,
    }
}

fn at_version(branch: &str, version: &str) -> BranchSource {
    BranchSource::Branch { branch: branch.into(), at: Some(At::Version(version.into())) }
}

fn route(branches: &Branches, name: &str) -> BranchHandle {
    branches.route(None, &name.parse().unwrap()).unwrap()
}

async fn insert(handle: &BranchHandle, id: i32) {
    let lease = handle.acquire(Use::Work, 0).await.unwrap();
    let mut client = Client::connect(lease.socket()).await.unwrap();
    let insert = doc! { "insert": "things", "documents": [{ "_id": id }],
    "writeConcern": { "w": "majority", "j": true } };
    client.command("test", insert).await.unwrap();
}

async fn count(handle: &BranchHandle) -> i32 {
    let lease = handle.acquire(Use::Work, 0).await.unwrap();
    let mut client = Client::connect(lease.socket()).await.unwrap();
    let reply = client.command("test", doc! { "count": "things" }).await.unwrap();
    match reply.get("n") {
        Some(Bson::Int32(n)) => *n,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_wakes_once_sleeps_and_travels() {
    let dir = tempfile::tempdir().unwrap();
    let branches = open(dir.path()).await;
    branches.create_project("demo", None, &|_| ()).await.unwrap();
    branches.create("demo", request("dev", BranchSource::Empty)).await.unwrap();
    let dev = route(&branches, "dev");

    let waits = (0..50).map(|_| async { drop(dev.acquire(Use::Work, 0).await.unwrap()) });
    futures_util::future::join_all(waits).await;
    assert_eq!(dev.acquire(Use::Work, 0).await.unwrap().epoch().0, 1, "one wake for fifty");

    insert(&dev, 1).await;
    let first = branches.suspend("demo", "dev", Until::Saved).await.unwrap();
    assert_eq!(first.state, BranchState::Suspended);
    insert(&dev, 2).await;
    let second = branches.suspend("demo", "dev", Until::Saved).await.unwrap();
    assert_ne!(first.head_version, second.head_version);
    assert_eq!(branches.versions("demo", "dev").unwrap().len(), 3, "its start and two suspends");

    branches.create("demo", request("old", at_version("dev", &first.head_version))).await.unwrap();
    assert_eq!(count(&route(&branches, "old")).await, 1);
    assert_eq!(count(&dev).await, 2);

    branches.delete("demo", "dev").await.unwrap();
    assert!(matches!(dev.acquire(Use::Work, 0).await, Err(BranchError::Deleted { .. })));
    branches.undelete("demo", "dev").await.unwrap();
    assert_eq!(count(&route(&branches, "dev")).await, 2);
    assert!(branches.close().await.is_empty());
    assert!(matches!(dev.acquire(Use::Work, 0).await, Err(BranchError::Closing)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_vanished_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let branches = open(dir.path()).await;
    branches.create_project("demo", None, &|_| ()).await.unwrap();
    branches.create("demo", request("dev", BranchSource::Base)).await.unwrap();
    let dev = route(&branches, "dev");
    insert(&dev, 1).await;
    // As a crash does it: the process is gone, and the catalog says what it said.
    let life = dev.cell.life().unwrap();
    life.ended.cancel();
    life.instance.kill().await;
    drop((life, dev, branches));

    let branches = open(dir.path()).await;
    let dev = route(&branches, "dev");
    assert_eq!(count(&dev).await, 1);
    let saved = branches.suspend("demo", "dev", Until::Saved).await.unwrap();
    assert_eq!(saved.error, None);
    assert_eq!(count(&dev).await, 1);
    branches.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mongod_that_died_is_recovered_by_the_next_command() {
    let dir = tempfile::tempdir().unwrap();
    let branches = open(dir.path()).await;
    branches.create_project("demo", None, &|_| ()).await.unwrap();
    branches.create("demo", request("dev", BranchSource::Empty)).await.unwrap();
    let dev = route(&branches, "dev");
    insert(&dev, 1).await;
    let life = dev.cell.life().unwrap();
    life.instance.kill().await;
    let died = tokio::time::timeout(Duration::from_secs(30), async {
        while dev.cell.state() == State::Running {
            tokio::task::yield_now().await;
        }
    });
    died.await.unwrap();
    assert!(branches.show("demo", "dev").unwrap().error.unwrap().contains("mongod died"));
    assert_eq!(count(&dev).await, 1);
    branches.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_gives_up_what_nothing_needs_and_purges_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let branches = open(dir.path()).await;
    branches.create_project("demo", None, &|_| ()).await.unwrap();
    branches.create("demo", request("dev", BranchSource::Empty)).await.unwrap();
    let mut made = Vec::new();
    for label in ["a", "b", "c", "d", "e"] {
        made.push(branches.snapshot("demo", "dev", Some(label)).await.unwrap().id);
    }
    branches.create("demo", request("child", at_version("dev", &made[1]))).await.unwrap();
    branches.pin(&made[2]).await.unwrap();
    // Only the object in the store counts.
    branches.shared.catalog.unpin_version(made[2].parse().unwrap()).unwrap();
    assert_eq!(branches.retain().await.unwrap(), [].into(), "the usual rules keep all of it");

    let rules = Retention {
        keep_last: Some(1),
        keep_for_ms: Some(0),
        keep_deleted_ms: Some(3_600_000),
        ..Retention::default()
    };
    let leaving = branches.preview_retention("demo", rules).unwrap();
    let labels: Vec<_> =
        leaving.iter().map(|one| one.version.as_ref().unwrap().label.clone().unwrap()).collect();
    assert_eq!(labels, ["a", "d"]);
    let none = Retention { keep_last: Some(0), ..rules };
    assert!(matches!(branches.preview_retention("demo", none), Err(BranchError::KeepNone)));

    branches.set_retention("demo", rules).await.unwrap();
    let given_up = branches.retain().await.unwrap();
    assert_eq!(given_up, [&made[0], &made[3]].map(|id| id.parse().unwrap()).into());
    assert_eq!(branches.versions("demo", "dev").unwrap().len(), 6, "they are still there");

    // As garbage collection does it: cut off before the rows were told, or not.
    let store = branches.shared.store.clone();
    let collect = async |id: &str| {
        store.delete(&format!("versions/{id}").parse().unwrap()).await.unwrap();
    };
    collect(&made[0]).await;
    assert_eq!(branches.retain().await.unwrap(), [made[3].parse().unwrap()].into());
    collect(&made[3]).await;
    branches.forget(&[made[3].parse().unwrap(), made[1].parse().unwrap()]).unwrap();
    let left: Vec<_> =
        branches.versions("demo", "dev").unwrap().into_iter().map(|one| one.label).collect();
    assert_eq!(left, ["b", "c", "e"].map(|label| Some(label.to_owned())));

    // As a save leaves it that was cut off before its head moved.
    let parent: VersionId = made[4].parse().unwrap();
    let dev = branches.show("demo", "dev").unwrap().id.parse().unwrap();
    let known = branches.shared.volumes.version(parent).await.unwrap();
    let cut_off = Capture {
        id: VersionId::generate(branches.shared.clock.now()),
        parent: Some(parent),
        branch: Some(dev),
        cause: Cause::Suspend,
        mongod: known.mongod,
        label: None,
    };
    let cut_off = branches.shared.volumes.repeat(cut_off).await.unwrap().id;
    branches.retain().await.unwrap();
    let last = branches.versions("demo", "dev").unwrap().pop().unwrap();
    assert_eq!(last.id, cut_off.to_string(), "it is known, and the rules hold for it");
    branches.snapshot("demo", "dev", None).await.unwrap();
    assert_eq!(branches.retain().await.unwrap(), [cut_off, parent].into());

    // A deleted branch goes when its time is over, and not where it lives in the store.
    branches.delete("demo", "child").await.unwrap();
    branches.retain().await.unwrap();
    assert_eq!(branches.list("demo", Deleted::Only).unwrap().len(), 1);
    let now = Retention { keep_deleted_ms: Some(0), ..rules };
    let leaving = branches.preview_retention("demo", now).unwrap();
    let whole: Vec<_> = leaving.iter().filter(|one| one.version.is_none()).collect();
    assert_eq!(whole.iter().map(|one| &*one.branch).collect::<Vec<_>>(), ["child"]);
    branches.set_retention("demo", now).await.unwrap();
    let child = branches.list("demo", Deleted::Only).unwrap()[0].id.parse().unwrap();
    let volumes = &branches.shared.volumes;
    let (head, etag) = volumes.head(child).await.unwrap();
    let etag = volumes.move_head(&Head { deleted: None, ..head.clone() }, &etag).await.unwrap();
    branches.retain().await.unwrap();
    assert_eq!(branches.list("demo", Deleted::Only).unwrap().len(), 1);
    volumes.move_head(&head, &etag).await.unwrap();
    let given_up = branches.retain().await.unwrap();
    assert_eq!(given_up, [made[1].parse().unwrap(), cut_off, parent].into());
    assert_eq!(branches.list("demo", Deleted::Only).unwrap(), []);
    assert!(matches!(volumes.head(child).await, Err(VolumeError::NoHead { .. })));
    branches.close().await;
    drop(branches);

    let branches = open(dir.path()).await;
    assert_eq!(branches.projects()[0].retention, now, "rules outlive the server");
    assert_eq!(branches.shared.volumes.projects().await.unwrap()[0].retention.keep_last, Some(1));
    branches.close().await;
}
