//! Idle clients of three drivers and their heartbeats: the branch falls asleep once, nothing wakes
//! it, and no client sees an error when it goes on. `ARGON_SOAK=full` takes 200 clients and ten
//! minutes instead of 60 clients and 40 seconds.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use argon_admin::types::{BranchState, Version};
use proxy_tests::drivers::{DRIVERS, Line, Program, soakers};
use proxy_tests::machine::cannot_run;
use proxy_tests::server::Server;

struct Scale {
    clients: u64,
    idle_limit: &'static str,
    asleep: Duration,
}

const SHORT: Scale = Scale { clients: 60, idle_limit: "5s", asleep: Duration::from_secs(40) };
const FULL: Scale = Scale { clients: 200, idle_limit: "10s", asleep: Duration::from_secs(600) };

/// How often drivers send heartbeats unless they are told otherwise.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_of_idle_clients_wake_nothing() -> Result<()> {
    let needed = DRIVERS.iter().filter(|driver| ["pymongo", "node"].contains(&driver.key));
    for driver in needed {
        if let Some(why) = driver.missing() {
            cannot_run("the soak", &why);
            return Ok(());
        }
    }
    let full = std::env::var("ARGON_SOAK").is_ok_and(|value| value == "full");
    let scale = if full { FULL } else { SHORT };
    let server = Server::start()?;
    server.project("demo")?;
    let branch = server.branch("soak", &["--empty", "--idle-timeout", scale.idle_limit])?;

    let soakers = soakers()?;
    let (kinds, mut programs, mut begun) = (soakers.len() as u64, Vec::new(), 0);
    for (number, (key, mut command)) in (1..).zip(soakers) {
        let clients = scale.clients * number / kinds - begun;
        begun += clients;
        command.env("SOAK_CLIENTS", clients.to_string());
        let program = Program::start(command, &format!("soak-{key}"), &branch.uri)?;
        programs.push((key, clients, program));
    }
    ensure!(begun == scale.clients, "{begun} clients");
    for (key, _, program) in &mut programs {
        ensure!(program.line()? == Some(Line::Suspend), "{key} did not begin");
    }

    let asleep = server.until("soak", |now| now.state == BranchState::Suspended).await?;
    let versions = |server: &Server| -> Result<usize> {
        let listed: Vec<Version> = server.cli().json(&["branch", "list-versions", "soak"])?;
        Ok(listed.len())
    };
    let versions_asleep = versions(&server)?;
    let since = Instant::now();
    while since.elapsed() < scale.asleep {
        let now = server.show("soak")?;
        ensure!(now.state == BranchState::Suspended, "woke after {:?}", since.elapsed());
        ensure!(now.clients >= scale.clients, "only {} connections are left", now.clients);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(server.show("soak")?.epoch == asleep.epoch && versions(&server)? == versions_asleep);
    ensure!(server.mongods().is_empty(), "a mongod runs");

    let beats = scale.asleep.as_secs() / HEARTBEAT.as_secs() - 1;
    for (key, clients, program) in &mut programs {
        program.go_on()?;
        let Some(Line::Cell(_, heartbeats)) = program.line()? else {
            anyhow::bail!("{key} counts no heartbeats");
        };
        println!("{key}: {clients} clients, {heartbeats} heartbeats");
        ensure!(heartbeats.parse::<u64>()? >= *clients * beats, "{key}: {heartbeats} heartbeats");
    }
    for (key, _, program) in &mut programs {
        let ok = Line::Cell("soak".to_owned(), "ok".to_owned());
        ensure!(program.line()? == Some(ok), "{key} does not go on");
        ensure!(program.line()?.is_none());
    }
    ensure!(server.show("soak")?.epoch == asleep.epoch + 1, "it woke more than once");
    Ok(())
}
