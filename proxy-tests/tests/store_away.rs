//! A store that cannot be reached for a while: what runs goes on, what is to be saved waits.

use std::fs;

use anyhow::{Result, ensure};
use argon_admin::types::{Branch, BranchState};
use proxy_tests::driver;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::Setup;
use proxy_tests::wait::eventually_async;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_branches_go_on_and_suspends_wait() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("store-").tempdir()?;
    let (store, away) = (folder.path().join("store"), folder.path().join("away"));
    let server = Setup::new()?.arguments(&["--store-dir", &store.to_string_lossy()]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    let sleeping = driver::connect(&server.branch("asleep", &["--empty"])?.uri).await?;

    fs::rename(&store, &away)?;
    insert(&client, "while it is away").await?;
    let failure = server.cli().fail(&["branch", "suspend", "--wait", "dev"])?;
    ensure!(failure.stderr.contains("its writes are kept in"), "{}", failure.stderr);
    ensure!(failure.stderr.contains("tried again by itself"), "{}", failure.stderr);
    let waiting = server.show("dev")?;
    assert_eq!(waiting.state, BranchState::Saving);
    ensure!(waiting.saving_since.is_some() && waiting.error.is_some(), "{waiting:?}");
    let listed = server.cli().run(&["branch", "list"])?;
    ensure!(listed.contains("saving since"), "{listed}");
    // What is needed of the store is told, and nothing is taken for gone.
    let error = insert(&sleeping, "no").await.expect_err("its data is in the store");
    ensure!(!format!("{error:#}").contains("does not exist"), "{error:#}");

    // Its writes are here, so it wakes from them.
    insert(&client, "woken from the disk").await?;
    let running = server.show("dev")?;
    assert_eq!((running.state, running.saving_since), (BranchState::Running, None));
    server.cli().fail(&["branch", "suspend", "--wait", "dev"])?;

    fs::rename(&away, &store)?;
    let saved = |branch: &Branch| branch.state == BranchState::Suspended;
    let dev = server.until("dev", saved).await?;
    assert_eq!((dev.error, dev.saving_since), (None, None));
    assert_eq!(changes(&client).await?, ["before", "while it is away", "woken from the disk"]);
    insert(&sleeping, "it was only away").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_longer_than_the_lease_silences_its_branches() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("store-").tempdir()?;
    let (store, away) = (folder.path().join("store"), folder.path().join("away"));
    let store_dir = store.to_string_lossy();
    let arguments = ["--store-dir", &store_dir, "--lease-ttl", "1s"];
    let server = Setup::new()?.arguments(&arguments).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    fs::rename(&store, &away)?;
    let silent = || async {
        let refused = insert(&client, "after the lease, or not").await.err();
        Ok(refused.filter(|error| format!("{error:#}").contains("lease")))
    };
    eventually_async("the lease ends", silent).await?;
    // It is not stopped for that: nobody else can have taken it over.
    assert_eq!(server.show("dev")?.state, BranchState::Running);
    fs::rename(&away, &store)?;
    let heard = || async { Ok(insert(&client, "it is back").await.ok()) };
    eventually_async("it is answered for again", heard).await?;
    let found = changes(&client).await?;
    assert_eq!((found.first(), found.last()), (Some(&"before".into()), Some(&"it is back".into())));
    assert_eq!(server.show("dev")?.epoch, 1, "it is the same life");
    Ok(())
}
