//! A disk that fills up under branches on lazy mounts: the cache gives way first, then no branch is
//! woken, and those that run can be saved all the same.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use argon_admin::types::{BranchState, Version};
use bson::{Document, doc};
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR};
use proxy_tests::driver;
use proxy_tests::machine::cannot_run;
use proxy_tests::noise::fill;
use proxy_tests::obstacle::Disk;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::{eventually, eventually_async};

const MB: u64 = 1 << 20;
/// What the branch that sleeps holds: less than twice [`LEAST`], so that all of it can go at once.
const MEGABYTES: u64 = 80;
/// What the server is told to keep free.
const LEAST: u64 = 64 * MB;

/// Bytes of disk that the cache of blocks takes.
fn cached(server: &Server) -> Result<u64> {
    let blocks = server.data_dir().join("cache").join("blocks");
    let facts = blocks.metadata().with_context(|| format!("look at {}", blocks.display()))?;
    Ok(facts.blocks() * 512)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_gives_way_then_no_branch_is_woken_and_what_runs_can_be_saved() -> Result<()> {
    let Some(disk) = Disk::mount(1500, "a disk that fills up")? else { return Ok(()) };
    let setup = Setup::new()?.data_dir(&disk.path().join("data"));
    let store = setup.home().join("store");
    let least = LEAST.to_string();
    let store = store.to_string_lossy().into_owned();
    let server = setup
        .arguments(&["--store-dir", &store, "--min-free", &least])
        .arguments(&["--idle-timeout", "never", "--snapshot-every", "off"])
        .start()?;
    if cached(&server).is_err() {
        cannot_run("a full disk under lazy mounts", "FUSE does not work here");
        return Ok(());
    }
    server.project("demo")?;
    let sleeper = driver::connect(&server.branch("sleeper", &["--empty"])?.uri).await?;
    insert(&sleeper, "before").await?;
    let noise = sleeper.database("demo").collection::<Document>("noise");
    fill(&noise, MEGABYTES * MB).await?;
    let filled = noise.count_documents(doc! {}).await?;
    let suspend = |name: &str| server.cli().run(&["branch", "suspend", "--wait", name]).map(drop);
    suspend("sleeper")?;
    let busy = driver::connect(&server.branch("busy", &["--empty"])?.uri).await?;
    insert(&busy, "before").await?;
    let full = cached(&server)?;
    ensure!(full > MEGABYTES * MB, "what was saved is in the cache: {full}");

    // Too little for comfort: the cache gives what is missing, without anybody's waking a branch.
    let mut fillers = vec![disk.fill(LEAST + LEAST / 2)?];
    let gave_way = || async { Ok((cached(&server)? < full - LEAST / 4).then_some(())) };
    eventually_async("the cache gives way", gave_way).await?;
    ensure!(cached(&server)? > 0, "and no more than is missing");
    assert_eq!(changes(&sleeper).await?, ["before"], "there is room for a wake");
    suspend("sleeper")?;

    // What is left of it is not enough either. A suspended branch gives its disk back a little later.
    eventually("all of the cache is given back", || {
        fillers.push(disk.fill(LEAST / 2)?);
        Ok((cached(&server)? == 0).then_some(()))
    })?;
    fillers.push(disk.fill(LEAST / 2)?);
    let error = changes(&sleeper).await.expect_err("there is no room");
    let text = format!("{error:#}");
    for word in ["free", &disk.path().to_string_lossy(), "make room", "--min-free"] {
        ensure!(text.contains(word), "`{word}` in {text}");
    }
    let things = sleeper.database("demo").collection::<Document>("things");
    let error = things.insert_one(doc! {}).await.expect_err("there is no room");
    ensure!(error.contains_label(RETRYABLE_WRITE_ERROR), "{error:?}");
    let ErrorKind::Command(command) = &*error.kind else { panic!("{error:?}") };
    assert_eq!(command.code, 6, "HostUnreachable, which drivers try again");
    let failure = server.cli().fail(&["branch", "resume", "sleeper"])?;
    ensure!(failure.stderr.contains("make room on"), "{}", failure.stderr);
    assert_eq!(server.show("sleeper")?.state, BranchState::Suspended);

    // What runs goes on, and can be saved.
    insert(&busy, "when it was full").await?;
    let version: Version = server.cli().json(&["branch", "snapshot", "busy"])?;
    insert(&busy, "after the snapshot").await?;
    suspend("busy")?;
    let asleep = server.show("busy")?;
    assert_eq!((asleep.state, asleep.error.as_deref()), (BranchState::Suspended, None));
    changes(&busy).await.expect_err("it is not woken either");

    drop(fillers);
    // The last refusal is repeated for a moment.
    let woken = || async { Ok(changes(&sleeper).await.ok()) };
    assert_eq!(eventually_async("it is woken", woken).await?, ["before"]);
    assert_eq!(noise.count_documents(doc! {}).await?, filled);
    let woken = || async { Ok(changes(&busy).await.ok()) };
    let found = eventually_async("the other one too", woken).await?;
    assert_eq!(found, ["before", "when it was full", "after the snapshot"]);
    let then = server.branch("then", &["--from", &format!("busy@{}", version.id)])?;
    let then = driver::connect(&then.uri).await?;
    assert_eq!(changes(&then).await?, ["before", "when it was full"]);
    Ok(())
}
