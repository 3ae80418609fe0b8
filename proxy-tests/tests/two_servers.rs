//! Several servers on one store: one writes a branch at a time, and what one acknowledged is kept
//! whatever becomes of it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Branch, BranchState, Version};
use bson::{Document, doc};
use mongodb::Client;
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR};
use proxy_tests::driver;
use proxy_tests::machine::signal;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;
use proxy_tests::writer::{Writer, check_all_there};
use tempfile::TempDir;

fn server(store: &Path, lease_ttl: &str) -> Result<Server> {
    let store = store.to_string_lossy();
    Setup::new()?.arguments(&["--store-dir", &store, "--lease-ttl", lease_ttl]).start()
}

fn store() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("store-").tempdir()?)
}

/// A client of a branch that another server made, as soon as this one knows it.
async fn client(server: &Server, branch: &str) -> Result<Client> {
    let known = || async { Ok(server.show(branch).ok()) };
    let branch = eventually_async(format!("{branch} is known"), known).await?;
    driver::connect(&branch.uri).await
}

async fn insert_at_last(client: &Client, text: &str) -> Result<()> {
    let ask = || async { Ok(insert(client, text).await.ok()) };
    eventually_async(format!("\"{text}\" is inserted"), ask).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_that_live_one_has_a_branch_until_it_lets_go() -> Result<()> {
    let store = store()?;
    let first = server(store.path(), "10m")?;
    first.project("demo")?;
    let here = driver::connect(&first.branch("dev", &["--empty"])?.uri).await?;
    insert(&here, "one").await?;

    let second = server(store.path(), "10m")?;
    let there = client(&second, "dev").await?;
    for _ in 0..2 {
        let things = there.database("demo").collection::<Document>("things");
        let error = things.insert_one(doc! {}).await.expect_err("the first server has it");
        ensure!(error.contains_label(RETRYABLE_WRITE_ERROR), "{error:?}");
        let ErrorKind::Command(command) = &*error.kind else { panic!("{error:?}") };
        ensure!(command.message.contains("held by server"), "{}", command.message);
        ensure!(command.message.contains(&first.listen), "{}", command.message);
    }
    let failure = second.cli().fail(&["branch", "resume", "dev"])?;
    ensure!(failure.stderr.contains("argon branch suspend dev"), "{}", failure.stderr);
    // Neither can it be deleted under the one that has it.
    second.cli().fail(&["branch", "delete", "dev"])?;
    assert_eq!(second.show("dev")?.state, BranchState::Suspended);
    insert(&here, "two").await?;

    first.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    insert_at_last(&there, "three").await?;
    assert_eq!(changes(&there).await?, ["one", "two", "three"]);
    insert(&here, "no").await.expect_err("the second server has it");
    second.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    insert_at_last(&here, "four").await?;
    assert_eq!(changes(&here).await?, ["one", "two", "three", "four"]);

    // A branch that is made while both run is found by its name.
    first.branch("later", &["--empty"])?;
    insert_at_last(&client(&second, "later").await?, "found").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_is_outlived_and_finds_its_writes_in_a_branch_of_their_own()
-> Result<()> {
    let store = store()?;
    let mut first = server(store.path(), "1s")?;
    first.project("demo")?;
    let here = driver::connect(&first.branch("dev", &["--empty"])?.uri).await?;
    insert(&here, "saved").await?;
    first.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    insert(&here, "only on the first server's disk").await?;
    drop(here);
    first.kill()?;

    let second = server(store.path(), "1s")?;
    let there = client(&second, "dev").await?;
    insert_at_last(&there, "by the second server").await?;
    assert_eq!(changes(&there).await?, ["saved", "by the second server"]);

    first.start_again()?;
    let rescued = client(&first, "dev-rescued-2").await?;
    assert_eq!(changes(&rescued).await?, ["saved", "only on the first server's disk"]);
    let dev = first.show("dev")?;
    ensure!(dev.error.as_ref().is_some_and(|error| error.contains("dev-rescued-2")), "{dev:?}");
    let versions: Vec<Version> = first.cli().json(&["branch", "list-versions", "dev-rescued-2"])?;
    assert_eq!(versions.last().map(|version| version.cause.as_str()), Some("recovery"));
    insert(&there, "undisturbed").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_was_brought_back_elsewhere_cannot_be_purged() -> Result<()> {
    let store = store()?;
    let first = server(store.path(), "10m")?;
    first.project("demo")?;
    let here = driver::connect(&first.branch("dev", &["--empty"])?.uri).await?;
    insert(&here, "kept").await?;
    first.cli().run(&["branch", "delete", "dev"])?;
    let second = server(store.path(), "10m")?;
    second.cli().run(&["branch", "undelete", "dev"])?;
    let failure = first.cli().fail(&["branch", "purge", "dev"])?;
    ensure!(failure.stderr.contains("is not deleted"), "{}", failure.stderr);
    assert_eq!(changes(&client(&second, "dev").await?).await?, ["kept"]);
    second.cli().run(&["branch", "delete", "dev"])?;
    first.cli().run(&["branch", "purge", "dev"]).map(drop)
}

/// Freezes a server past its lease while a client writes, `with_mongod` or without, and wakes it
/// when another has taken its branch over.
async fn frozen(with_mongod: bool) -> Result<()> {
    let store = store()?;
    let (first, second) = (server(store.path(), "1s")?, server(store.path(), "1s")?);
    first.project("demo")?;
    let here = driver::connect(&first.branch("dev", &["--empty"])?.uri).await?;
    let writer = Writer::start(&here);
    writer.until_written(50).await?;

    let mut processes = vec![first.pid()];
    if with_mongod {
        processes.extend(first.mongods());
    }
    processes.iter().try_for_each(|pid| signal(*pid, libc::SIGSTOP))?;
    let there = client(&second, "dev").await?;
    insert_at_last(&there, "by the second server").await?;
    processes.iter().try_for_each(|pid| signal(*pid, libc::SIGCONT))?;

    let lost = |branch: &Branch| {
        branch.state == BranchState::Suspended
            && branch.error.as_ref().is_some_and(|error| error.contains("dev-rescued-1"))
    };
    first.until("dev", lost).await.context("the first server gives the branch up")?;
    let acknowledged = writer.finish().await?;
    let rescued = driver::connect(&first.show("dev-rescued-1")?.uri).await?;
    check_all_there(&rescued, &acknowledged).await?;

    // The other one goes on, and sees nothing of that.
    insert(&there, "undisturbed").await?;
    assert_eq!(changes(&there).await?, ["by the second server", "undisturbed"]);
    assert_eq!(driver::count(&there, "demo", "numbers").await?, 0);
    insert(&here, "no").await.expect_err("the second server has it");
    second.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    insert_at_last(&here, "the first server has it again").await?;
    assert_eq!(changes(&here).await?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_that_wakes_moves_no_head_and_loses_no_write() -> Result<()> {
    frozen(false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_frozen_with_its_mongod_does_neither() -> Result<()> {
    frozen(true).await
}
