//! Containers that are started ahead, on a real Docker engine: branches wake in them, and whatever is
//! done to one of them, before it is given to a branch or after, loses nothing and leaves nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Status, WakeBy, WakeTrace};
use proxy_tests::docker::{Engine, label, mounts_below};
use proxy_tests::driver;
use proxy_tests::machine::signal;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::{eventually, eventually_async};

fn status(server: &Server) -> Result<Status> {
    server.cli().json(&["status"])
}

/// Waits until one is parked, and gives its name. One that was given to a branch has such a name a
/// little longer, and so has one that is being removed.
async fn until_parked(engine: &Engine, server: &Server) -> Result<String> {
    let ask = || async {
        let now = status(server)?.parked;
        let mut names = engine.parked(server.data_dir()).unwrap_or_default();
        let one = now.parked == 1 && now.starting == 0 && names.len() == 1;
        Ok(one.then(|| names.remove(0)))
    };
    let waited = eventually_async("a container is parked", ask).await;
    waited.with_context(|| format!("{:?}, {:?}", status(server), engine.parked(server.data_dir())))
}

/// Waits until another than this one is parked, and this one is gone.
async fn until_replaced(engine: &Engine, server: &Server, old: &str) -> Result<()> {
    let ask = || async {
        let now = status(server)?.parked;
        let names = engine.parked(server.data_dir()).unwrap_or_default();
        let other = now.parked == 1 && names.len() == 1 && names[0] != old;
        Ok(other.then_some(()))
    };
    let waited = eventually_async(format!("another than {old} is parked"), ask).await;
    waited.with_context(|| format!("{:?}", status(server)))
}

fn last_wake(server: &Server) -> Result<WakeTrace> {
    let mut wakes: Vec<WakeTrace> = server.cli().json(&["branch", "wake-trace", "dev"])?;
    ensure!(!wakes.is_empty(), "it was not woken");
    Ok(wakes.remove(0))
}

fn woke_by_parked(server: &Server) -> Result<()> {
    let wake = last_wake(server)?;
    ensure!(wake.by == WakeBy::Parked, "{wake:?}");
    Ok(())
}

/// The number of a container's process on this machine.
fn process(engine: &Engine, container: &str) -> Result<u32> {
    let pid = engine.docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
    pid.parse().with_context(|| format!("read the process of {container}: {pid}"))
}

fn stop(mut server: Server, engine: &Engine) -> Result<()> {
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    let left = engine.containers(server.data_dir())?;
    ensure!(left.is_empty(), "containers are left: {left:?}");
    let mounts = mounts_below(server.data_dir());
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_wakes_in_the_parked_container_and_another_takes_its_place() -> Result<()> {
    let Some(engine) = Engine::shared("parked containers")? else { return Ok(()) };
    let server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&dev.uri).await?;
    let mut texts = Vec::new();
    for round in 0..4 {
        let parked = until_parked(&engine, &server).await?;
        let labels = engine.docker(&["inspect", "--format", "{{.Config.Labels}}", &parked])?;
        ensure!(labels.contains("argon.parked:true") && !labels.contains("branch"), "{labels}");
        let pid = process(&engine, &parked)?;
        texts.push(format!("in round {round}"));
        insert(&client, &texts[round]).await?;
        woke_by_parked(&server)?;
        // People see whose it is.
        let now = engine.container_of(server.data_dir(), "demo", "dev")?;
        ensure!(now == format!("{parked}-demo-dev"), "{parked} is called {now}");
        ensure!(process(&engine, &now)? == pid, "it is another one");
        // Every other one wakes before its upload is done, with its writes.
        let words: &[&str] = if round % 2 == 0 { &["--wait"] } else { &[] };
        server.cli().run(&[&["branch", "suspend", "dev"], words].concat())?;
        let gone = || Ok((!engine.containers(server.data_dir())?.contains(&now)).then_some(()));
        eventually("the container ends with the life", gone)?;
        let log = server.data_dir().join("work").join(&dev.id).join("mongod.log");
        let log = std::fs::read_to_string(log).context("read the branch's log")?;
        ensure!(log.contains("Transition to primary complete"), "its log is of this life:\n{log}");
    }
    assert_eq!(changes(&client).await?, texts);
    stop(server, &engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_while_one_is_started_leaves_none() -> Result<()> {
    let Some(engine) = Engine::shared("a server's end beside a start")? else { return Ok(()) };
    // From the engine's first word of it until it is parked, or about to be.
    for after_ms in [0, 50, 150, 300, 600] {
        let server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        stop(server, &engine).with_context(|| format!("after {after_ms} ms"))?;
    }
    Ok(())
}

/// What is done to a container that waits for a branch.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// `docker kill`
    Kill,
    /// `docker stop`
    Stop,
    /// `docker rm --force`
    Remove,
    /// `docker pause`: an engine may not be able to.
    Pause,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_container_that_somebody_ends_is_replaced() -> Result<()> {
    let Some(engine) = Engine::shared("the end of parked containers")? else { return Ok(()) };
    let server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    let mut texts = Vec::new();
    for fault in [Fault::Kill, Fault::Stop, Fault::Remove, Fault::Pause] {
        let parked = until_parked(&engine, &server).await?;
        // What waits for its dbpath ends when it is turned away: the engine may give up before.
        let done = match fault {
            Fault::Kill => engine.docker(&["kill", &parked]),
            Fault::Stop => engine.docker(&["stop", "-t", "1", &parked]),
            Fault::Remove => engine.docker(&["rm", "--force", &parked]),
            Fault::Pause => engine.docker(&["pause", &parked]),
        };
        println!("{fault:?}: {done:?}");
        if !matches!(fault, Fault::Pause) || done.is_ok() {
            until_replaced(&engine, &server, &parked).await?;
        }
        texts.push(format!("after {fault:?}"));
        insert(&client, &texts[texts.len() - 1]).await?;
        woke_by_parked(&server)?;
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    }
    // Killed just before a wake: nobody waits for it.
    let parked = until_parked(&engine, &server).await?;
    signal(process(&engine, &parked)?, libc::SIGKILL)?;
    texts.push("after all".to_owned());
    insert(&client, &texts[texts.len() - 1]).await?;
    ensure!(last_wake(&server)?.by == WakeBy::Cold, "{:?}", last_wake(&server));
    until_replaced(&engine, &server, &parked).await?;
    assert_eq!(changes(&client).await?, texts);
    stop(server, &engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_goes_takes_parked_containers_along_and_they_come_back() -> Result<()> {
    let Some(mut engine) = Engine::start("an engine with parked containers")? else {
        return Ok(());
    };
    let server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    let mut texts = Vec::new();
    for restart in [Engine::restart, Engine::crash] {
        // One serves a branch, and one waits.
        let admitted = until_parked(&engine, &server).await?;
        texts.push(format!("in {admitted}"));
        insert(&client, &texts[texts.len() - 1]).await?;
        woke_by_parked(&server)?;
        let parked = until_parked(&engine, &server).await?;
        restart(&mut engine)?;
        until_replaced(&engine, &server, &parked).await?;
        assert_eq!(changes(&client).await?, texts, "the next command finds all of it");
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        until_parked(&engine, &server).await?;
        assert_eq!(changes(&client).await?, texts);
        woke_by_parked(&server)?;
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    }
    stop(server, &engine)
}

/// What a program leaves that fails when it was let in.
const TRACE: &str = "somebody-was-here";

/// Makes an image whose mongod is the real one, except where it is parked: then it goes up to where a
/// mongod waits, writes into what it is let in to, and ends.
fn failing_when_let_in(engine: &Engine, folder: &Path, name: &str) -> Result<()> {
    let text = format!(
        "#!/bin/sh\nif busybox grep -q /parked- /proc/self/mountinfo && [ \"$1\" != --version ]; then\n\
         exec 3<>/data/db/mongod.lock\n\
         echo 17 >>/data/db/WiredTiger.lock\n\
         echo 17 >/data/db/mongod.lock\n\
         echo 17 >/data/db/{TRACE}\n\
         exit 9\nfi\nexec /usr/bin/mongod \"$@\"\n"
    );
    engine.image_with_program(folder, &text, name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_when_it_is_let_in_costs_time_and_nothing_else() -> Result<()> {
    let Some(engine) = Engine::shared("parked containers that fail")? else { return Ok(()) };
    let (folder, image) = (tempfile::tempdir()?, "argon-tests/mongo:failing");
    failing_when_let_in(&engine, folder.path(), image)?;
    let server = Setup::new()?
        .docker(&engine)
        .arguments(&["--parked", "1"])
        .variable("ARGON_IMAGE", image)
        .start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    for round in 0..2 {
        until_parked(&engine, &server).await?;
        insert(&client, &format!("in round {round}")).await?;
        let wake = last_wake(&server)?;
        let why = wake.cold_because.unwrap_or_default();
        ensure!(wake.by == WakeBy::Cold && why.contains("exit code 9"), "{why}");
        let mounts = mounts_below(server.data_dir());
        let traces: Vec<_> = mounts.iter().filter(|mount| mount.join(TRACE).exists()).collect();
        ensure!(traces.is_empty(), "what it wrote is gone: {traces:?}");
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    }
    assert_eq!(changes(&client).await?, ["in round 0", "in round 1"]);
    stop(server, &engine)?;
    engine.docker(&["rmi", image]).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_no_parked_container_to_the_next_one() -> Result<()> {
    let Some(engine) = Engine::shared("a killed server's parked containers")? else {
        return Ok(());
    };
    let mut server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    until_parked(&engine, &server).await?;
    insert(&client, "before").await?;
    until_parked(&engine, &server).await?;
    let filter = format!("label={}", label(server.data_dir()));
    let ids = || engine.docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
    let first = ids()?;
    server.kill()?;
    drop(client);
    server.start_again()?;
    let now = ids()?;
    ensure!(first.lines().all(|id| !now.contains(id)), "{first} are still there: {now}");
    let client = driver::connect(&server.show("dev")?.uri).await?;
    assert_eq!(changes(&client).await?, ["before"]);
    until_parked(&engine, &server).await?;
    stop(server, &engine)
}
