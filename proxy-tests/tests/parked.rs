//! mongods that are started ahead: branches wake on them, each on one of its own, and nothing is lost
//! or left over whatever happens to them.
//!
//! `ARGON_CYCLES=1000` suspends and resumes so often under a client that writes; else 15 times.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Status, WakeBy, WakeTrace};
use proxy_tests::driver;
use proxy_tests::machine::{mongods_below, signal};
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;

fn server(parked: &str) -> Result<Server> {
    let server = Setup::new()?.arguments(&["--parked", parked]).start()?;
    server.project("demo")?;
    Ok(server)
}

fn status(server: &Server) -> Result<Status> {
    server.cli().json(&["status"])
}

/// Waits until so many mongods are parked, and gives their processes.
async fn until_parked(server: &Server, count: u64) -> Result<Vec<u32>> {
    let ask = || async {
        let now = status(server)?.parked;
        Ok((now.parked == count && now.starting == 0).then_some(()))
    };
    let waited = eventually_async(format!("{count} mongods are parked"), ask).await;
    waited.with_context(|| format!("{:?}", status(server)))?;
    Ok(mongods_below(&server.data_dir().join("work/parked")))
}

fn last_wake(server: &Server, branch: &str) -> Result<WakeTrace> {
    let mut wakes: Vec<WakeTrace> = server.cli().json(&["branch", "wake-trace", branch])?;
    ensure!(!wakes.is_empty(), "{branch} was not woken");
    Ok(wakes.remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_wakes_on_the_parked_mongod_and_another_takes_its_place() -> Result<()> {
    let server = server("1")?;
    let dev = server.branch("dev", &[])?;
    let client = driver::connect(&dev.uri).await?;
    let mut served = Vec::new();
    for round in 0..3 {
        let parked = until_parked(&server, 1).await?;
        assert_eq!(parked.len(), 1, "{parked:?}");
        ensure!(!served.contains(&parked[0]), "a process serves one life of one branch");
        insert(&client, &format!("in round {round}")).await?;
        let wake = last_wake(&server, "dev")?;
        assert_eq!((wake.by, wake.cold_because), (WakeBy::Parked, None));
        let log = server.data_dir().join("work").join(&dev.id).join("mongod.log");
        let log = fs::read_to_string(log).context("read the branch's log")?;
        ensure!(log.contains(&format!("\"pid\":{}", parked[0])), "its log is of this process");
        ensure!(log.contains("Transition to primary complete"), "and of this life");
        served.push(parked[0]);
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        ensure!(!mongods_below(server.data_dir()).contains(&parked[0]), "it ends with the life");
    }
    assert_eq!(changes(&client).await?, ["in round 0", "in round 1", "in round 2"]);
    Ok(())
}
