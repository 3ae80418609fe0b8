//! What every compute must do, over a real mongod.

use std::path::Path;
use std::sync::Arc;

use bson::{Bson, doc};

use super::mongod::Search;
use super::{Cell, Compute, ComputeError, ProcessCompute, was_stopped_cleanly};
use crate::wire::Client;

async fn process_compute() -> ProcessCompute {
    let mongod = tokio::task::spawn_blocking(|| {
        let setting =
            std::env::var_os("ARGON_MONGOD").map(|path| (path.into(), "ARGON_MONGOD".into()));
        let search = Search::of_this_process(setting).unwrap();
        search.find_or_fetch(&mut |_| {}).unwrap()
    });
    ProcessCompute::new(mongod.await.unwrap()).await.unwrap()
}

fn cell(dir: &Path) -> Cell {
    let (dbpath, socket_dir) = (dir.join("db"), dir.join("run"));
    for dir in [&dbpath, &socket_dir] {
        std::fs::create_dir_all(dir).unwrap();
    }
    Cell { dbpath, socket_dir, log: dir.join("mongod.log"), cache_gb: 0.25, oplog_mb: 16 }
}

#[tokio::test]
async fn a_start_ends_with_a_writable_primary_and_a_kill_loses_nothing_acknowledged() {
    let compute = process_compute().await;
    let dir = tempfile::tempdir().unwrap();
    let first = compute.start(cell(dir.path())).await.unwrap();
    assert!(first.facts().hello.get_bool("isWritablePrimary").unwrap());
    assert!(first.facts().fcv.starts_with(|c: char| c.is_ascii_digit()));
    let mut client = Client::connect(first.socket()).await.unwrap();
    let insert = doc! { "insert": "things", "documents": [{ "_id": 1 }],
    "writeConcern": { "w": "majority", "j": true } };
    client.command("test", insert).await.unwrap();
    first.kill().await;
    assert!(!first.wait().await.is_clean());
    assert!(!was_stopped_cleanly(&dir.path().join("db")));

    // The same volume, a second life: the socket that the killed one left is no obstacle.
    let second = compute.start(cell(dir.path())).await.unwrap();
    let mut client = Client::connect(second.socket()).await.unwrap();
    let count = client.command("test", doc! { "count": "things" }).await.unwrap();
    assert_eq!(count.get("n"), Some(&Bson::Int32(1)));
    assert!(second.stop().await.is_clean());
    assert!(was_stopped_cleanly(&dir.path().join("db")));
}

#[tokio::test]
async fn two_branches_share_no_network() {
    let compute = Arc::new(process_compute().await);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (a, b) =
        tokio::join!(compute.start(cell(dirs[0].path())), compute.start(cell(dirs[1].path())));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_ne!(a.socket(), b.socket());
    for instance in [a, b] {
        let mut client = Client::connect(instance.socket()).await.unwrap();
        let dbs = client.command("admin", doc! { "listDatabases": 1 }).await.unwrap();
        assert_eq!(dbs.get_array("databases").unwrap().len(), 3, "admin, config, local");
        instance.kill().await;
    }
}

#[tokio::test]
async fn a_mongod_that_cannot_start_says_why() {
    let compute = process_compute().await;
    let dir = tempfile::tempdir().unwrap();
    let cell = cell(dir.path());
    std::fs::write(cell.dbpath.join("storage.bson"), "not BSON").unwrap();
    match compute.start(cell).await {
        Err(ComputeError::Exited { log, .. }) => {
            assert!(log.contains("storage engine metadata file"), "{log}")
        }
        other => panic!("{other:?}"),
    }
}
