//! Branches in containers of a real Docker engine, from the outside: the demo scenario, what is
//! chosen and what is said of it, and everything that can be done to a container or to the engine
//! under a branch. `ARGON_DOCKER_ROUNDS=100` makes as many rounds of that instead of a few.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use argon::mount::lazy;
use argon_admin::types::{Branch, BranchState, Status};
use bson::doc;
use futures_util::future::join_all;
use proxy_tests::docker::{Engine, IMAGE, label, mounts_below};
use proxy_tests::driver;
use proxy_tests::machine;
use proxy_tests::scenario::{self, changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::steps::Steps;
use proxy_tests::wait::{eventually, eventually_async};
use proxy_tests::writer::{Writer, check_all_there};

fn nothing_is_left(engine: &Engine, server: &Server) -> Result<()> {
    nothing_is_left_but(&[], engine, server)
}

/// Of a server that runs: one waits for a branch, or is about to.
fn nothing_of_a_branch_is_left(engine: &Engine, server: &Server) -> Result<()> {
    let parked = engine.parked(server.data_dir())?;
    ensure!(parked.len() <= 1, "more are parked than are asked for: {parked:?}");
    nothing_is_left_but(&parked, engine, server)
}

fn nothing_is_left_but(parked: &[String], engine: &Engine, server: &Server) -> Result<()> {
    let ours = || {
        let mut names = engine.containers(server.data_dir())?;
        names.retain(|name| !parked.contains(name));
        anyhow::Ok(names)
    };
    eventually("no container is left", || Ok(ours()?.is_empty().then_some(())))
        .with_context(|| format!("there are {:?}", ours()))?;
    // Of whichever server: no container here may have one for longer than it runs.
    eventually("no volume is left", || Ok(engine.volumes()?.is_empty().then_some(())))
        .with_context(|| format!("there are {:?}", engine.volumes()))?;
    let mounts = mounts_below(server.data_dir());
    ensure!(mounts.len() <= parked.len(), "mounts are left: {mounts:?}");
    Ok(())
}

/// The container of the branch `dev`.
fn the_container(engine: &Engine, server: &Server) -> Result<String> {
    engine.container_of(server.data_dir(), "demo", "dev")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_scenario_holds_in_containers() -> Result<()> {
    let Some(engine) = Engine::shared("the demo scenario in containers")? else { return Ok(()) };
    let limits = ["--branch-memory=1GiB", "--branch-cpus=1.5", "--branch-pids=4000"];
    let mut server = Setup::new()?.docker(&engine).arguments(&limits).start()?;
    let mut steps = Steps::default();
    scenario::run(&server, &mut steps).await?;
    ensure!(steps.count() >= 12, "only {} steps", steps.count());
    let status: Status = server.cli().json(&["status"])?;
    ensure!(status.compute.contains("Docker containers of argon-tests/mongo"), "{status:?}");
    ensure!(status.mongod.path == IMAGE, "{status:?}");
    // Where mounts work at all, containers are let in.
    ensure!(!fuse_works()? || status.compute.contains("mounted lazily"), "{status:?}");

    confined(&engine, &server).await?;
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    nothing_is_left(&engine, &server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_container_stands_still_goes_on_at_a_command_and_sleeps_in_the_end() -> Result<()> {
    let Some(engine) = Engine::shared("containers that stand still")? else { return Ok(()) };
    let warm = ["--idle-timeout", "3s", "--keep-warm", "10m", "--parked", "0"];
    let mut server = Setup::new()?.docker(&engine).arguments(&warm).start()?;
    server.project("demo")?;
    let dev = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&dev, "before").await?;
    let container = the_container(&engine, &server)?;
    let process = engine.docker(&["inspect", "--format", "{{.State.Pid}}", &container])?;
    let process: u32 = process.trim().parse().context("the container has no process")?;
    for turn in ["first", "second"] {
        let stands = || Ok(machine::is_stopped(process)?.then_some(()));
        eventually("its mongod stands still", stands)?;
        ensure!(server.show("dev")?.state == BranchState::Running);
        insert(&dev, turn).await?;
        ensure!(the_container(&engine, &server)? == container, "it is another container");
    }
    eventually("again", || Ok(machine::is_stopped(process)?.then_some(())))?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    ensure!(changes(&dev).await? == ["before", "first", "second"]);
    server.cli().run(&["branch", "set", "dev", "--keep-warm", "1s"])?;
    server.until("dev", |branch| branch.state == BranchState::Suspended).await?;
    ensure!(changes(&dev).await? == ["before", "first", "second"]);
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    nothing_is_left(&engine, &server)
}

fn fuse_works() -> Result<bool> {
    let place = tempfile::tempdir()?;
    let probe = || lazy::probe(place.path(), lazy::Access::Server, &|_| Ok(()));
    Ok(tokio::task::block_in_place(probe).is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_containers_see_no_mounts_branches_are_restored_whole() -> Result<()> {
    let Some(engine) = Engine::start_apart("an engine that sees no mounts")? else { return Ok(()) };
    let mut server = Setup::new()?.docker(&engine).start()?;
    let status: Status = server.cli().json(&["status"])?;
    ensure!(status.compute.contains("restored whole"), "{status:?}");
    let log = server.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("no lazy mounts")).collect();
    ensure!(said.len() == 1, "expected one line: {said:?}");
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "whole").await?;
    server.cli().run(&["branch", "suspend", "dev"])?;
    ensure!(changes(&client).await? == ["whole"]);
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    nothing_is_left(&engine, &server)?;
    if fuse_works()? {
        ensure!(said[0].contains("in a container: "), "{said:?}");
        let (code, said) = Setup::new()?.docker(&engine).arguments(&["--mount", "lazy"]).fail()?;
        ensure!(code == Some(1) && said.contains("in a container: "), "{code:?} {said}");
    }
    Ok(())
}

/// What the engine says of a container that a branch runs in.
async fn confined(engine: &Engine, server: &Server) -> Result<()> {
    let branch = server.branch("confined", &["--empty"])?;
    insert(&driver::connect(&branch.uri).await?, "here").await?;
    let id = engine.container_of(server.data_dir(), "demo", "confined")?;
    let ask = |what: &str| engine.docker(&["inspect", "--format", what, &id]);
    for (what, expected) in [
        ("{{.HostConfig.NetworkMode}}", "none"),
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.HostConfig.CapDrop}}", "[ALL]"),
        ("{{.HostConfig.SecurityOpt}}", "[no-new-privileges]"),
        ("{{.HostConfig.RestartPolicy.Name}}", "no"),
        ("{{.HostConfig.PidsLimit}}", "4000"),
        ("{{.HostConfig.Memory}}", "1073741824"),
        ("{{.HostConfig.MemorySwap}}", "1073741824"),
        ("{{.HostConfig.NanoCpus}}", "1500000000"),
        ("{{.HostConfig.LogConfig.Type}}", "json-file"),
        ("{{index .HostConfig.LogConfig.Config \"max-size\"}}", "4m"),
        ("{{index .HostConfig.LogConfig.Config \"max-file\"}}", "2"),
        ("{{range .Mounts}}{{.Type}} {{.Propagation}} {{end}}", "bind rprivate bind rprivate"),
        ("{{index .Config.Labels \"argon.project\"}}", "demo"),
        ("{{index .Config.Labels \"argon.epoch\"}}", "1"),
        ("{{len .Mounts}}", "2"),
    ] {
        let found = ask(what)?;
        ensure!(found == expected, "{what} is {found}, expected {expected}");
    }
    // No way out: nothing but its own loopback, no rights, nothing to write to.
    for (what, expected) in [
        ("ls /sys/class/net", "lo"),
        ("grep -h CapEff /proc/1/status", "CapEff:\t0000000000000000"),
        ("grep -h CapBnd /proc/1/status", "CapBnd:\t0000000000000000"),
        ("grep -h NoNewPrivs /proc/1/status", "NoNewPrivs:\t1"),
        ("grep -h Seccomp: /proc/1/status", "Seccomp:\t2"),
        ("grep -h Uid: /proc/1/status", "Uid:\t999\t999\t999\t999"),
        ("touch /x 2>/dev/null || echo refused", "refused"),
    ] {
        let words = ["exec", &id, "busybox", "sh", "-c", what];
        let found = engine.docker(&words)?;
        ensure!(found == expected, "`{what}` says {found}, expected {expected}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_chosen_is_said_with_its_reason() -> Result<()> {
    let Some(engine) = Engine::shared("the choice of what mongods run in")? else { return Ok(()) };
    let socket = engine.socket().display().to_string();
    let nowhere = format!("{socket}.none");
    for (more, expected) in [
        (["--docker-socket", &socket, "--image", IMAGE], "has the image"),
        (["--docker-socket", &socket, "--image", "absent:1"], "has no image absent:1"),
        (["--docker-socket", &nowhere, "--image", IMAGE], "no container engine answers at"),
    ] {
        let mut setup = Setup::new()?.arguments(&["--compute", "auto"]).arguments(&more);
        setup = setup.variable("ARGON_MONGOD", "");
        let server = setup.start()?;
        let status: Status = server.cli().json(&["status"])?;
        ensure!(status.compute.contains(expected), "{more:?}: {}", status.compute);
    }
    // Where containers are asked for, nothing else is put in their place. Nobody listens there.
    let absent = "127.0.0.1:1/absent/mongo:1";
    let without = "argon-tests/without:1";
    engine.another_image("ENV PATH=/nowhere", without)?;
    for (more, expected) in [
        (
            ["--docker-socket", &socket, "--image", without],
            "run `mongod --version` in the image argon-tests/without:1",
        ),
        (["--docker-socket", &socket, "--image", absent], "pull the image 127.0.0.1:1/absent"),
        (["--docker-socket", &socket, "--image", "mongo:"], "`mongo:` is not the name of an image"),
        (["--docker-socket", &nowhere, "--image", IMAGE], "no container engine answers at"),
    ] {
        let setup = Setup::new()?.arguments(&["--compute", "docker"]).arguments(&more);
        let (code, said) = setup.fail()?;
        ensure!(code == Some(1) && said.contains(expected), "{more:?}: {code:?} {said}");
        ensure!(said.contains("hint: "), "{said}");
    }
    engine.docker(&["rmi", without])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_its_containers_to_the_next_one() -> Result<()> {
    let Some(engine) = Engine::shared("a killed server's containers")? else { return Ok(()) };
    // On a plain directory mongod does not notice that the server has gone.
    let mut server = Setup::new()?.docker(&engine).arguments(&["--mount", "eager"]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    let left = the_container(&engine, &server)?;
    let first = engine.docker(&["inspect", "--format", "{{.Id}}", &left])?;
    server.kill()?;
    drop(client);
    ensure!(engine.docker(&["inspect", "--format", "{{.State.Running}}", &left])? == "true");
    server.start_again()?;
    let running = engine.docker(&["ps", "--all", "--quiet", "--no-trunc"])?;
    ensure!(!running.contains(&first), "the old container is still there");
    let client = driver::connect(&server.show("dev")?.uri).await?;
    ensure!(changes(&client).await? == ["before"]);

    // Nor does one stay that somebody else labels as this server's.
    let label = label(server.data_dir());
    let foreign = engine.docker(&["create", "--network=none", "--label", &label, IMAGE])?;
    let gone = || Ok(engine.docker(&["inspect", &foreign]).is_err().then_some(()));
    eventually("the container that no branch owns is removed", gone)?;
    ensure!(changes(&client).await? == ["before"], "the branch's own is still there");
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    nothing_is_left(&engine, &server)
}

/// The reason is at hand at once, with mongod's last words, and the next command goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_container_ended_is_in_the_branchs_status() -> Result<()> {
    let Some(engine) = Engine::shared("the end of containers")? else { return Ok(()) };
    // In one that was started ahead it is no other.
    let limits = ["--branch-memory=256MiB", "--parked=1"];
    let mut server = Setup::new()?.docker(&engine).arguments(&limits).start()?;
    server.project("demo")?;
    let uri = server.branch("dev", &["--empty"])?.uri;
    let client = driver::connect(&uri).await?;
    let says = |branch: &Branch, what: &str| {
        branch.error.as_ref().is_some_and(|error| error.contains(what))
    };
    insert(&client, "before").await?;
    engine.docker(&["kill", &the_container(&engine, &server)?])?;
    let dead = server.until("dev", |branch| says(branch, "ended by signal 9")).await?;
    ensure!(says(&dead, "its last log lines:\n") && says(&dead, " NETWORK "), "{dead:?}");
    ensure!(changes(&client).await? == ["before"]);

    // Each holds more in memory than mongod counts.
    let greedy = driver::connect(&format!("{uri}&retryReads=false")).await?;
    let words = doc! { "$map": { "input": { "$range": [0, 500_000] }, "in":
    { "$concat": ["x".repeat(100), { "$toString": "$$this" }] } } };
    let pipeline =
        [doc! { "$documents": [{}] }, doc! { "$project": { "size": { "$size": words } } }];
    let held = (0..8).map(|_| {
        let (database, pipeline) = (greedy.database("demo"), pipeline.clone());
        async move { database.aggregate(pipeline).await.map(drop) }
    });
    let ended = join_all(held).await;
    ensure!(ended.iter().any(Result::is_err), "there was enough memory for all of them");
    let what = "out of memory: its limit is 256 MiB";
    server.until("dev", |branch| says(branch, what)).await?;
    ensure!(changes(&client).await? == ["before"]);
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    nothing_is_left(&engine, &server)
}

/// What is done to a running branch.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    /// `docker kill`
    Kill,
    /// `docker pause`, and nobody unpauses it.
    Pause,
    /// `docker rm --force`
    Remove,
    /// The engine is restarted, as after an upgrade.
    Restart,
    /// The engine is killed, and comes back.
    Crash,
}

const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Restart, Fault::Pause, Fault::Crash, Fault::Remove, Fault::Nothing];

/// In CI every fault once; else as many rounds as asked for, each with any of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_is_done_to_containers_and_engine() -> Result<()> {
    let Some(mut engine) = Engine::start("faults of containers and engine")? else { return Ok(()) };
    let asked = std::env::var("ARGON_DOCKER_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: usize = asked.unwrap_or(FAULTS.len());
    let mut server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
    server.project("demo")?;
    let uri = server.branch("dev", &["--empty"])?.uri;
    let client = driver::connect(&uri).await?;
    let (mut acknowledged, mut next, mut dice) = (Vec::new(), 0, 0x9e37_79b9_u64);
    for round in 0..rounds {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let any = (dice >> 33) as usize % FAULTS.len();
        let fault = FAULTS[if asked.is_some() { any } else { round }];
        let begun = std::time::Instant::now();
        let writer = Writer::start_at(&client, next);
        writer.until_written(20).await?;
        strike(&mut engine, &server, fault).await?;
        if !matches!(fault, Fault::Pause) {
            // The same client goes on, in another container where the first is gone.
            writer.until_written(20).await?;
        }
        let suspended = || async {
            // As long as the engine is coming back, it may be refused.
            server.cli().run(&["branch", "suspend", "dev"]).ok();
            Ok((server.show("dev")?.state == BranchState::Suspended).then_some(()))
        };
        // The write that a pause held up may wake the branch once more.
        let written = tokio::time::timeout(Duration::from_secs(120), async {
            let written = writer.finish();
            let (written, suspend) =
                tokio::join!(written, eventually_async("it suspends", suspended));
            suspend.map(|()| written)
        });
        let written = written.await.context("wait for the suspend")???;
        eventually_async("it is suspended in the end", suspended).await?;
        next = written.last().map_or(next, |last| last + 1) + 1000;
        acknowledged.extend(written);
        nothing_of_a_branch_is_left(&engine, &server)?;
        println!("round {round}: {fault:?}, {} writes, {:?}", acknowledged.len(), begun.elapsed());
    }
    check_all_there(&client, &acknowledged).await?;
    ensure!(server.show("dev")?.error.is_none());
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    nothing_is_left(&engine, &server)
}

async fn strike(engine: &mut Engine, server: &Server, fault: Fault) -> Result<()> {
    let container = |engine: &Engine| the_container(engine, server);
    match fault {
        Fault::Nothing => Ok(()),
        Fault::Kill => engine.docker(&["kill", &container(engine)?]).map(drop),
        Fault::Pause => engine.docker(&["pause", &container(engine)?]).map(drop),
        Fault::Remove => engine.docker(&["rm", "--force", &container(engine)?]).map(drop),
        Fault::Restart => engine.restart(),
        Fault::Crash => engine.crash(),
    }
}
