//! A real mongod on a mount.

use std::path::Path;
use std::sync::Arc;

use bson::{Bson, doc};

use super::super::{Access, LazyMount, Reading};
use super::source::{Memory, works};
use crate::compute::mongod::Search;
use crate::compute::{Cell, Choice, Compute, ProcessCompute};
use crate::wire::Client;

async fn compute() -> ProcessCompute {
    let mongod = tokio::task::spawn_blocking(|| {
        let search = Search::of_this_process(None).unwrap();
        search.find_or_fetch(&mut |_| {}).unwrap()
    });
    ProcessCompute::new(mongod.await.unwrap()).await.unwrap()
}

fn cell(root: &Path, dbpath: &Path) -> Cell {
    let socket_dir = root.join("run");
    std::fs::create_dir_all(&socket_dir).unwrap();
    let (dbpath, log) = (dbpath.to_owned(), root.join("mongod.log"));
    Cell {
        dbpath,
        socket_dir,
        log,
        cache_gb: 0.25,
        oplog_mb: 16,
        owner: Default::default(),
        mongod: Choice::Server,
    }
}

async fn insert(client: &mut Client, from: i32) {
    let documents: Vec<_> =
        (from..from + 500).map(|id| doc! { "_id": id, "text": "x".repeat(1_000) }).collect();
    let insert = doc! { "insert": "things", "documents": documents,
    "writeConcern": { "w": "majority", "j": true } };
    client.command("test", insert).await.unwrap();
}

async fn count(client: &mut Client) -> Option<Bson> {
    let reply = client.command("test", doc! { "count": "things" }).await.unwrap();
    let valid = client.command("test", doc! { "validate": "things", "full": true }).await.unwrap();
    assert_eq!(valid.get("valid"), Some(&Bson::Boolean(true)), "{valid:?}");
    reply.get("n").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongod_is_killed_sealed_and_found_again() {
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    let (overlay, mnt) = (root.join("overlay"), root.join("mnt"));
    let compute = compute().await;
    let empty = Arc::new(Memory::new(1, &[], &[]));
    let mount = LazyMount::create(Access::Server, empty.clone(), &overlay, &mnt).unwrap();
    let first = compute.start(cell(root, &mnt)).await.unwrap();
    let mut client = Client::connect(first.socket()).await.unwrap();
    insert(&mut client, 0).await;

    // A version of a running mongod, which goes on writing.
    let sealed = mount.seal().await.unwrap();
    insert(&mut client, 500).await;
    let version = Memory::capture(2, &empty, &sealed).await;
    mount.rebase(&sealed, version.clone()).await.unwrap();
    insert(&mut client, 1_000).await;
    first.kill().await;
    first.wait().await;
    mount.unmount().await.unwrap();
    drop(mount);

    // What was acknowledged is in the overlay, on the new version.
    let mount = LazyMount::recover(Access::Server, version.clone(), &overlay, &mnt, Reading::Whole)
        .unwrap();
    let second = compute.start(cell(root, &mnt)).await.unwrap();
    let mut client = Client::connect(second.socket()).await.unwrap();
    assert_eq!(count(&mut client).await, Some(Bson::Int32(1_500)));
    assert!(second.stop().await.is_clean());
    mount.unmount().await.unwrap();

    // And the version holds what was acknowledged before its seal, nothing torn.
    let (overlay, mnt) = (root.join("overlay2"), root.join("mnt2"));
    let mount = LazyMount::create(Access::Server, version, &overlay, &mnt).unwrap();
    let third = compute.start(cell(root, &mnt)).await.unwrap();
    mount.boot_done();
    let mut client = Client::connect(third.socket()).await.unwrap();
    assert_eq!(count(&mut client).await, Some(Bson::Int32(500)));
    assert!(third.stop().await.is_clean());
    mount.unmount().await.unwrap();
}
