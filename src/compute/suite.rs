//! What every compute must do, over a real mongod.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptions, InspectContainerOptions,
    RemoveImageOptionsBuilder,
};
use bson::{Bson, doc};
use tempfile::TempDir;

use super::docker::{Engine, Image, Setup};
use super::mongod::Search;
use super::{
    Build, Cell, Choice, Compute, ComputeError, DockerCompute, Limits, Owner, ProcessCompute, User,
    was_stopped_cleanly,
};
use crate::wire::Client;

/// Names the socket of a container engine that tests may use, and an image with a mongod that it
/// has; `cargo verify` sets both.
const ENGINE: &str = "ARGON_TEST_DOCKER";
const IMAGE: &str = "ARGON_TEST_IMAGE";

/// See `proxy_tests::machine::cannot_run`, which has the same rule.
fn cannot_run(why: &str) {
    let line = format!("NOT RUN: the compute suite in containers: {why}");
    writeln!(std::io::stderr(), "{line}").ok();
    if let Some(path) = std::env::var_os("ARGON_TESTS_NOT_RUN") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).ok();
    }
    assert!(!std::env::var("CI").is_ok_and(|value| value == "true"), "{line}");
}

async fn process_compute() -> ProcessCompute {
    let mongod = tokio::task::spawn_blocking(|| {
        let setting =
            std::env::var_os("ARGON_MONGOD").map(|path| (path.into(), "ARGON_MONGOD".into()));
        let search = Search::of_this_process(setting).unwrap();
        search.find_or_fetch(&mut |_| {}).unwrap()
    });
    ProcessCompute::new(mongod.await.unwrap()).await.unwrap()
}

/// Containers of one test, and the folder that stands for the data directory.
struct Containers {
    compute: DockerCompute,
    engine: Engine,
    home: TempDir,
}

async fn containers(limits: Limits) -> Option<Containers> {
    let setting = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(socket), Some(image)) = (setting(ENGINE), setting(IMAGE)) else {
        cannot_run("there is no engine for tests; `cargo verify` starts one");
        return None;
    };
    let engine = Engine::connect(Path::new(&socket)).await.unwrap();
    let image = engine.image(&image).await.unwrap().expect("the engine has the tests' image");
    let home = tempfile::tempdir().unwrap();
    let setup = Setup { limits, user: User::of_this_process() };
    let compute = DockerCompute::open(engine.clone(), image, setup, home.path()).await.unwrap();
    Some(Containers { compute, engine, home })
}

impl Containers {
    /// The names of those that are there.
    async fn there(&self) -> Vec<String> {
        self.compute.containers().await.unwrap()
    }
}

fn cell(dir: &Path) -> Cell {
    let (dbpath, socket_dir) = (dir.join("db"), dir.join("run"));
    for dir in [&dbpath, &socket_dir] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let owner = Owner { project: "shop".into(), branch: "dev".into(), epoch: 1 };
    Cell {
        dbpath,
        socket_dir,
        log: dir.join("mongod.log"),
        cache_gb: 0.25,
        oplog_mb: 16,
        owner,
        mongod: Choice::Server,
    }
}

async fn a_kill_loses_nothing_acknowledged(compute: &dyn Compute) {
    let dir = tempfile::tempdir().unwrap();
    let first = compute.start(cell(dir.path())).await.unwrap();
    assert!(first.facts().hello.get_bool("isWritablePrimary").unwrap());
    assert!(first.facts().fcv.starts_with(|c: char| c.is_ascii_digit()));
    let version = first.facts().build_info.get_str("version").unwrap();
    assert_eq!(version, compute.mongod_version());
    let mut client = Client::connect(first.socket()).await.unwrap();
    let insert = doc! { "insert": "things", "documents": [{ "_id": 1 }],
    "writeConcern": { "w": "majority", "j": true } };
    client.command("test", insert).await.unwrap();
    first.kill().await;
    let exit = first.wait().await;
    assert!(!exit.is_clean(), "{exit}");
    assert!(exit.to_string().contains("signal"), "{exit}");
    assert!(exit.log_tail().contains('\n'), "{}", exit.log_tail());
    assert!(!was_stopped_cleanly(&dir.path().join("db")));

    // The same volume, a second life: the socket that the killed one left is no obstacle.
    let second = compute.start(cell(dir.path())).await.unwrap();
    let mut client = Client::connect(second.socket()).await.unwrap();
    let count = client.command("test", doc! { "count": "things" }).await.unwrap();
    assert_eq!(count.get("n"), Some(&Bson::Int32(1)));
    let exit = second.stop().await;
    assert!(exit.is_clean(), "{exit}");
    assert!(was_stopped_cleanly(&dir.path().join("db")));
}

async fn two_branches_share_no_network(compute: &dyn Compute) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let cells = [0, 1].map(|index| {
        let mut cell = cell(dirs[index].path());
        cell.socket_dir = dirs[index].path().join(format!("run{index}"));
        std::fs::create_dir(&cell.socket_dir).unwrap();
        cell
    });
    let [a, b] = cells.map(|cell| compute.start(cell));
    let (a, b) = tokio::join!(a, b);
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_ne!(a.socket(), b.socket());
    for instance in [a, b] {
        let mut client = Client::connect(instance.socket()).await.unwrap();
        let dbs = client.command("admin", doc! { "listDatabases": 1 }).await.unwrap();
        assert_eq!(dbs.get_array("databases").unwrap().len(), 3, "admin, config, local");
        instance.kill().await;
    }
}

async fn a_mongod_that_cannot_start_says_why(compute: &dyn Compute) {
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

#[tokio::test]
async fn in_processes_a_kill_loses_nothing_acknowledged() {
    a_kill_loses_nothing_acknowledged(&process_compute().await).await;
}

#[tokio::test]
async fn in_processes_two_branches_share_no_network() {
    two_branches_share_no_network(&process_compute().await).await;
}

#[tokio::test]
async fn in_processes_a_mongod_that_cannot_start_says_why() {
    a_mongod_that_cannot_start_says_why(&process_compute().await).await;
}

#[tokio::test]
async fn in_containers_a_kill_loses_nothing_acknowledged() {
    let Some(containers) = containers(Limits::default()).await else { return };
    a_kill_loses_nothing_acknowledged(&containers.compute).await;
    assert_eq!(containers.there().await, [""; 0]);
}

#[tokio::test]
async fn in_containers_two_branches_share_no_network() {
    let Some(containers) = containers(Limits::default()).await else { return };
    two_branches_share_no_network(&containers.compute).await;
    assert_eq!(containers.there().await, [""; 0]);
}

#[tokio::test]
async fn in_containers_a_mongod_that_cannot_start_says_why() {
    let Some(containers) = containers(Limits::default()).await else { return };
    a_mongod_that_cannot_start_says_why(&containers.compute).await;
    assert_eq!(containers.there().await, [""; 0]);
}

#[tokio::test]
async fn a_container_without_memory_says_so() {
    let limits = Limits { memory_bytes: Some(16 << 20), ..Limits::default() };
    let Some(containers) = containers(limits).await else { return };
    let dir = tempfile::tempdir().unwrap();
    match containers.compute.start(cell(dir.path())).await {
        Err(ComputeError::Exited { exit, .. }) => {
            assert!(exit.to_string().contains("out of memory: its limit is 16 MiB"), "{exit}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(containers.there().await, [""; 0]);
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_no_container() {
    let Some(containers) = containers(Limits::default()).await else { return };
    let dir = tempfile::tempdir().unwrap();
    // A new volume whose first start is given up may never have a replica set: nobody goes on with it.
    let first = containers.compute.start(cell(dir.path())).await.unwrap();
    assert!(first.stop().await.is_clean());
    for wait_ms in [0, 20, 200, 700] {
        let start = containers.compute.start(cell(dir.path()));
        let waited = tokio::time::timeout(std::time::Duration::from_millis(wait_ms), start).await;
        drop(waited);
    }
    // Whatever is still being made makes room for the next one.
    let instance = containers.compute.start(cell(dir.path())).await.unwrap();
    assert!(instance.stop().await.is_clean());
    let begun = std::time::Instant::now();
    while !containers.there().await.is_empty() {
        assert!(begun.elapsed().as_secs() < 30, "{:?}", containers.there().await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A paused process gets no signal: it is let go on, and ends.
#[tokio::test]
async fn what_somebody_does_to_a_container_is_noticed() {
    let Some(containers) = containers(Limits::default()).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let docker = &containers.engine.docker();
    let paused = containers.compute.start(cell(dir.path())).await.unwrap();
    let name = containers.there().await.remove(0);
    docker.pause_container(&name).await.unwrap();
    let exit = paused.stop().await;
    assert!(exit.is_clean(), "{exit}");

    let removed = containers.compute.start(cell(dir.path())).await.unwrap();
    containers.engine.remove(&name).await.unwrap();
    let exit = removed.wait().await;
    // The engine kills it first, and either may be what is heard of.
    let said = exit.to_string();
    assert!(said.contains("was removed by somebody") || said.contains("by signal 9"), "{exit}");
    assert_eq!(containers.there().await, [""; 0]);
}

/// An image of the same content with another id, as after a pull of a tag that has moved.
async fn another_image(containers: &Containers) -> Image {
    let docker = containers.engine.docker();
    let body = ContainerCreateBody {
        image: Some(containers.compute.own_image().id.clone()),
        cmd: Some(vec!["true".to_owned()]),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap();
    let options = CommitContainerOptionsBuilder::new().container(&made.id).build();
    let label = HashMap::from([("another".to_owned(), made.id.clone())]);
    let config = ContainerConfig { labels: Some(label), ..Default::default() };
    let id = docker.commit_container(options, config).await.unwrap().id;
    containers.engine.remove(&made.id).await.unwrap();
    containers.engine.image(&id).await.unwrap().expect("it was just made")
}

#[tokio::test]
async fn a_volume_goes_on_with_the_image_that_wrote_it() {
    let Some(containers) = containers(Limits::default()).await else { return };
    let compute = &containers.compute;
    let other = another_image(&containers).await;
    let own = compute.own_image().reference();
    assert_ne!(other.reference(), own);
    let build = |version: &str, image: &str| Build {
        version: version.to_owned(),
        image: Some(image.to_owned()),
    };
    let version = compute.mongod_version();
    let absent = format!("sha256:{}", "0".repeat(64));
    for (written_by, opens) in [
        (build(version, own), true),
        (build(version, &absent), true),
        (build("5.0.1", &absent), false),
        (build("5.0.1", "../../x"), false),
        // Whatever its number is: it is the one that wrote it.
        (build("5.0.1", other.reference()), true),
    ] {
        assert_eq!(compute.opens(&written_by).await.unwrap(), opens, "{written_by:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let wrote = |image: &str| Choice::WroteIt(build(version, image));
    for (mongod, expected) in [
        (Choice::Server, own),
        (wrote(other.reference()), other.reference()),
        (wrote(&absent), own),
        (Choice::Image(other.reference().to_owned()), other.reference()),
        (Choice::Image(own.to_owned()), own),
    ] {
        let cell = Cell { mongod, ..cell(dir.path()) };
        let instance = compute.start(cell).await.unwrap();
        assert_eq!(instance.image(), Some(expected));
        let name = containers.there().await.remove(0);
        let docker = containers.engine.docker();
        let found = docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
        assert_eq!(found.image.as_deref(), Some(expected));
        assert!(instance.stop().await.is_clean());
    }
    let forced = RemoveImageOptionsBuilder::new().force(true).build();
    containers.engine.docker().remove_image(&other.id, Some(forced), None).await.unwrap();
}

#[tokio::test]
async fn the_next_server_removes_what_the_last_one_left() {
    let Some(Containers { compute, engine, home }) = containers(Limits::default()).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let left = Arc::new(compute.start(cell(dir.path())).await.unwrap());
    let (image, setup) = (compute.own_image().clone(), compute.setup());
    // A server that is gone hears of no container of the next one.
    drop(compute);
    let next = DockerCompute::open(engine, image, setup, home.path()).await.unwrap();
    assert_eq!(next.containers().await.unwrap(), [""; 0]);
    let exit = left.wait().await;
    assert!(!exit.is_clean(), "{exit}");
}
