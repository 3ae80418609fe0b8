//! Whatever is killed, whenever: nothing that was acknowledged is lost, nothing runs on.

use anyhow::{Result, ensure};
use argon_admin::types::{BranchState, Version};
use proxy_tests::driver;
use proxy_tests::machine::{mongods_below, signal};
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::Server;
use proxy_tests::wait::eventually;
use proxy_tests::writer::{Writer, check_all_there};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mongod_loses_nothing_and_is_replaced() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    let writer = Writer::start(&client);
    writer.until_written(50).await?;
    for _ in 0..2 {
        let [mongod] = server.mongods()[..] else { panic!("{:?}", server.mongods()) };
        signal(mongod, libc::SIGKILL)?;
        // The same client goes on writing, to another mongod.
        writer.until_written(50).await?;
        assert!(!server.mongods().contains(&mongod));
    }
    let acknowledged = writer.finish().await?;
    check_all_there(&client, &acknowledged).await?;
    // What was recovered can be suspended and woken like everything else.
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    assert_eq!(server.show("dev")?.state, BranchState::Suspended);
    check_all_there(&client, &acknowledged).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_no_mongod_and_loses_nothing() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    let resting = driver::connect(&server.branch("resting", &["--empty"])?.uri).await?;
    insert(&resting, "in a version").await?;
    server.cli().run(&["branch", "suspend", "--wait", "resting"])?;
    let client = driver::connect(&server.branch("busy", &["--empty"])?.uri).await?;
    let writer = Writer::start(&client);
    writer.until_written(50).await?;
    assert_eq!(server.mongods().len(), 1);
    server.kill()?;
    let gone = || Ok(mongods_below(server.data_dir()).is_empty().then_some(()));
    eventually("no mongod survives the server", gone)?;
    // The writer's client would look for the server for half a minute.
    drop(client);
    let acknowledged = i64::try_from(writer.abandon())?;

    server.start_again()?;
    let client = driver::connect(&server.show("busy")?.uri).await?;
    // One after the other, and none failed before the server died: they are the first ones.
    check_all_there(&client, &(0..acknowledged).collect::<Vec<_>>()).await?;
    insert(&client, "goes on").await?;
    assert_eq!(changes(&client).await?, ["goes on"]);
    let resting = driver::connect(&server.show("resting")?.uri).await?;
    assert_eq!(changes(&resting).await?, ["in a version"]);
    for branch in ["busy", "resting"] {
        server.cli().run(&["branch", "suspend", "--wait", branch])?;
        assert_eq!(server.show(branch)?.error, None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_asked_to_end_saves_everything_first() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    let mut expected = Vec::new();
    for (text, with) in [("first", libc::SIGTERM), ("second", libc::SIGINT)] {
        let client = driver::connect(&server.show("dev")?.uri).await?;
        insert(&client, text).await?;
        expected.push(text.to_owned());
        let before: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
        let status = server.stop(with)?;
        ensure!(status.success(), "it ended with {status}:\n{}", server.log());
        assert!(mongods_below(server.data_dir()).is_empty());

        server.start_again()?;
        let dev = server.show("dev")?;
        assert_eq!((dev.state, dev.error), (BranchState::Suspended, None));
        let versions: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
        assert_eq!(versions.len(), before.len() + 1, "{versions:?}");
        let client = driver::connect(&dev.uri).await?;
        assert_eq!(changes(&client).await?, expected);
    }
    Ok(())
}
