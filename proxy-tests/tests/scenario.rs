//! The demo scenario, and what it says of crowds and of sleep, from the outside.

use anyhow::{Result, ensure};
use argon_admin::types::BranchState;
use futures_util::future::try_join_all;
use proxy_tests::driver;
use proxy_tests::obstacle::Gate;
use proxy_tests::scenario::{self, CROWD, changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::steps::Steps;
use proxy_tests::wait::eventually_async;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_scenario_holds() -> Result<()> {
    let server = Server::start()?;
    let mut steps = Steps::default();
    scenario::run(&server, &mut steps).await?;
    ensure!(steps.count() >= 12, "only {} steps", steps.count());
    Ok(())
}

/// Counted by what stands in front of mongod, so that the server's own record is not believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_a_suspended_branch_starts_one_mongod() -> Result<()> {
    let gate = Gate::new()?;
    let server = Setup::new()?.variable("ARGON_MONGOD", gate.path()).start()?;
    server.project("demo")?;
    let branch = server.branch("crowd", &["--empty"])?;
    let held = gate.hold()?;
    let before = gate.starts();
    let crowd = try_join_all((0..CROWD).map(|number| {
        let uri = &branch.uri;
        async move {
            let client = driver::connect(uri).await?;
            insert(&client, &format!("from client {number}")).await
        }
    }));
    let open = async {
        // All of them are there, each with its monitor, before the first mongod may start.
        server.until("crowd", |now| now.clients >= 2 * CROWD as u64).await?;
        drop(held);
        Ok(())
    };
    futures_util::future::try_join(crowd, open).await?;
    assert_eq!(gate.starts() - before, 1);
    let client = driver::connect(&branch.uri).await?;
    assert_eq!(changes(&client).await?.len(), CROWD);
    Ok(())
}

/// A client that only keeps its connection does not keep the branch awake; work does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_neither_wake_a_branch_nor_keep_it_awake() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let branch = server.branch("nap", &["--empty", "--idle-timeout", "500ms"])?;
    let uri = format!("{}&heartbeatFrequencyMS=500", branch.uri);
    let (client, connections) = driver::connect_watched(&uri).await?;
    insert(&client, "one").await?;
    let asleep = server.until("nap", |now| now.state == BranchState::Suspended).await?;
    let seen = connections.heartbeats();
    let more = || async { Ok((connections.heartbeats() >= seen + 3).then_some(())) };
    eventually_async("three more heartbeats are answered", more).await?;
    let later = server.show("nap")?;
    assert_eq!((later.state, later.epoch), (BranchState::Suspended, asleep.epoch));
    assert_eq!(changes(&client).await?, ["one"]);
    assert_eq!(server.show("nap")?.epoch, asleep.epoch + 1);
    assert_eq!(connections.closed(), 0, "a client never loses its connection");
    Ok(())
}
