//! Branches on lazy mounts: they wake, are copied and saved without anybody waiting for bytes, and
//! whatever breaks loses nothing.
//!
//! `ARGON_LAZY=full` takes a branch of 1 GB, 20 versions and 100 kills; else everything is smaller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Branch, BranchState, Version};
use bson::{Binary, Document, doc, spec::BinarySubtype};
use futures_util::TryStreamExt;
use mongodb::Client;
use proxy_tests::driver;
use proxy_tests::machine::signal;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually;
use proxy_tests::writer::{Writer, check_all_there, numbers};

/// The first where all is asked for.
fn effort<T>(full: T, short: T) -> T {
    if std::env::var("ARGON_LAZY").is_ok_and(|value| value == "full") { full } else { short }
}

fn objects(store: &Path, kind: &str) -> Result<usize> {
    Ok(fs::read_dir(store.join(kind)).with_context(|| format!("list {kind}"))?.count())
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Binary {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(bytes);
    Binary { subtype: BinarySubtype::Generic, bytes: out }
}

async fn fill(client: &Client, megabytes: u64) -> Result<()> {
    let into = client.database("demo").collection::<Document>("noise");
    for first in (0..megabytes * 10).step_by(100) {
        let some = (first..first + 100).map(|n| doc! { "_id": n as i64, "b": noise(n, 100_000) });
        into.insert_many(some).await.context("fill the branch")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_is_copied_a_hundred_times_for_a_hundred_heads() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let dev = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    fill(&dev, effort(1_000, 50)).await?;
    insert(&dev, "in every copy").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let store = server.data_dir().join("store");
    let count = |kinds: [&str; 3]| kinds.map(|kind| objects(&store, kind));
    let before = count(["packs", "pages", "versions"]).into_iter().collect::<Result<Vec<_>>>()?;
    let heads = objects(&store, "heads")?;
    let begun = Instant::now();
    for number in 0..100 {
        server.branch(&format!("copy-{number}"), &["--from", "dev"])?;
    }
    println!("100 copies by the command line: {:?} each", begun.elapsed() / 100);
    // Each follows the answer.
    let all = || Ok((objects(&store, "heads")? == heads + 100).then_some(()));
    eventually("every copy has its head", all)?;
    let after = count(["packs", "pages", "versions"]).into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(after, before, "packs, pages, versions");
    let last = driver::connect(&server.show("copy-99")?.uri).await?;
    assert_eq!(changes(&last).await?, ["in every copy"]);
    Ok(())
}

/// Every collection of every database, as mongod itself checks it.
async fn validate(client: &Client) -> Result<()> {
    for database in client.list_database_names().await? {
        let database = client.database(&database);
        for collection in database.list_collection_names().await? {
            let command = doc! { "validate": &collection, "full": true };
            let outcome = database.run_command(command).await;
            // Views and the like have nothing to check.
            let Ok(outcome) = outcome else { continue };
            let sound = outcome.get_bool("valid")?;
            ensure!(sound, "{}.{collection}: {outcome}", database.name());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_made_under_load_hold_a_prefix_of_what_was_acknowledged() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let uri = server.branch("dev", &["--empty", "--idle-timeout", "never"])?.uri;
    let dev = driver::connect(&uri).await?;
    let writer = Writer::start(&dev);
    writer.until_written(20).await?;
    let mut made = Vec::new();
    for _ in 0..effort(20, 5) {
        let before = writer.acknowledged();
        let version: Version = server.cli().json(&["branch", "snapshot", "dev"])?;
        made.push((version.id, before, writer.acknowledged()));
        // The pace of this load, not a wait for something.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let acknowledged = writer.finish().await?;
    assert_eq!(server.show("dev")?.epoch, 1, "it was never stopped for a version");
    check_all_there(&dev, &acknowledged).await?;
    for (number, (version, before, after)) in made.iter().enumerate() {
        let name = format!("then-{number}");
        let then = server.branch(&name, &["--from", &format!("dev@{version}")])?;
        let client = driver::connect(&then.uri).await?;
        validate(&client).await.with_context(|| name.clone())?;
        let found = numbers(&client).find(doc! {}).sort(doc! { "_id": 1 }).await?;
        let found: Vec<Document> = found.try_collect().await?;
        let found: Vec<i64> = found.iter().map(|n| n.get_i64("_id")).collect::<Result<_, _>>()?;
        let count = found.len();
        assert_eq!(found, (0..count as i64).collect::<Vec<_>>(), "{name} has no gap");
        // One may have been written and not yet acknowledged.
        ensure!(*before <= count && count <= after + 1, "{name}: {before}, {count}, {after}");
        server.cli().run(&["branch", "delete", &name])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_under_load_no_journaled_write_is_lost() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty", "--snapshot-every", "1s", "--idle-timeout", "never"])?;
    let (mut next, mut all) = (0, Vec::new());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..effort(100, 6) {
        let client = driver::connect(&server.show("dev")?.uri).await?;
        let writer = Writer::start_at(&client, next);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        writer.until_written(10 + (random >> 40) as usize % 200).await?;
        let what = ["mongod", "the mount", "the server"][round % 3];
        match what {
            "mongod" => {
                let [mongod] = server.mongods()[..] else { panic!("{:?}", server.mongods()) };
                signal(mongod, libc::SIGKILL)?;
                writer.until_written(10).await?;
                all.extend(writer.finish().await?);
            }
            "the mount" => {
                server.break_mounts()?;
                writer.until_written(10).await?;
                all.extend(writer.finish().await?);
            }
            _ => {
                server.kill()?;
                // One after the other, and none failed before the server died.
                let acknowledged = i64::try_from(writer.abandon())?;
                all.extend(next..next + acknowledged);
                server.start_again()?;
            }
        }
        // Beyond whatever may have been written without an answer.
        next = all.last().map_or(0, |last| last + 1_000);
        let client = driver::connect(&server.show("dev")?.uri).await?;
        check_all_there(&client, &all).await.with_context(|| format!("{round}: {what}"))?;
    }
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let client = driver::connect(&server.show("dev")?.uri).await?;
    check_all_there(&client, &all).await?;
    validate(&client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspend_waits_for_no_store_and_a_client_that_returns_for_no_upload() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("store-").tempdir()?;
    let (store, away) = (folder.path().join("store"), folder.path().join("away"));
    let server = Setup::new()?.arguments(&["--store-dir", &store.to_string_lossy()]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    fs::rename(&store, &away)?;
    let told = server.cli().run(&["branch", "suspend", "dev"])?;
    ensure!(server.mongods().is_empty(), "{told}");
    assert_eq!(server.show("dev")?.state, BranchState::Saving);
    insert(&client, "from this machine").await?;
    server.cli().run(&["branch", "suspend", "dev"])?;
    fs::rename(&away, &store)?;
    server.until("dev", |branch| branch.state == BranchState::Suspended).await?;
    assert_eq!(changes(&client).await?, ["before", "from this machine"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_made_while_a_branch_runs_and_a_lost_machine_takes_little() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    let quick = ["--empty", "--snapshot-every", "1s", "--idle-timeout", "never"];
    let uri = server.branch("dev", &quick)?.uri;
    let client = driver::connect(&uri).await?;
    insert(&client, "first").await?;
    let periodic = |server: &Server| -> Result<usize> {
        let versions: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
        Ok(versions.iter().filter(|version| version.cause == "periodic").count())
    };
    for text in ["second", "third"] {
        let before = periodic(&server)?;
        insert(&client, text).await?;
        let made = || async { Ok((periodic(&server)? > before).then_some(())) };
        proxy_tests::wait::eventually_async("a version is made", made).await?;
    }
    let running = server.show("dev")?;
    assert_eq!((running.state, running.epoch), (BranchState::Running, 1));
    drop(client);
    server.kill()?;
    // The machine is gone: all but the store, with the catalog that would be made again.
    fs::remove_dir_all(server.data_dir().join("work")).or_else(|_| {
        argon::mount::lazy::unmount_stale(server.data_dir()).map_err(std::io::Error::other)?;
        fs::remove_dir_all(server.data_dir().join("work"))
    })?;
    server.start_again()?;
    let client = driver::connect(&server.show("dev")?.uri).await?;
    assert_eq!(changes(&client).await?, ["first", "second", "third"]);
    Ok(())
}

/// The overlay of the only branch that has one.
fn overlay(server: &Server) -> Result<PathBuf> {
    let work = fs::read_dir(server.data_dir().join("work"))?;
    let places = work.map(|entry| Ok(entry?.path().join("overlay"))).collect::<Result<Vec<_>>>()?;
    places.into_iter().find(|place| place.is_dir()).context("no branch has an overlay")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_overlay_holds_its_branch_until_somebody_decides() -> Result<()> {
    for (how, kept) in [("--last-version", true), ("--salvage", false)] {
        let mut server = Server::start()?;
        server.project("demo")?;
        let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
        insert(&client, "in a version").await?;
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        insert(&client, "only here").await?;
        server.kill()?;
        let log = overlay(&server)?.join("log");
        let mut bytes = fs::read(&log)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&log, bytes)?;
        server.start_again()?;
        let held = server.until("dev", |branch| branch.state == BranchState::Held).await?;
        ensure!(held.error.is_some(), "{held:?}");
        let client = driver::connect(&held.uri).await?;
        let refused = format!("{:#}", insert(&client, "no").await.expect_err("it is held"));
        ensure!(refused.contains("argon branch recover dev"), "{refused}");
        server.cli().fail(&["branch", "suspend", "dev"])?;
        // The last version stays usable.
        let copy = format!("dev@{}", held.head_version);
        let copy = driver::connect(&server.branch("copy", &["--from", &copy])?.uri).await?;
        assert_eq!(changes(&copy).await?, ["in a version"]);

        server.cli().run(&["branch", "recover", "dev", how])?;
        let usable = |branch: &Branch| branch.state != BranchState::Held;
        server.until("dev", usable).await?;
        if kept {
            assert_eq!(changes(&client).await?, ["in a version"]);
            assert_eq!(fs::read_dir(server.data_dir().join("kept"))?.count(), 1);
        } else {
            // As much as was there before the damage; mongod says whether it can use that.
            let versions: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
            ensure!(versions.len() >= 2, "{versions:?}");
        }
        server.cli().fail(&["branch", "recover", "dev", how])?;
    }
    Ok(())
}
