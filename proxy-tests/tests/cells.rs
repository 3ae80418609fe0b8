//! Each branch's mongod in a cell of its own: it sees its own files and no network, takes no more than
//! it may, and many of them stand next to each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use argon_admin::types::BranchState;
use futures_util::future::try_join_all;
use proxy_tests::driver;
use proxy_tests::machine::{cannot_run, is_stopped, mongods_below, repository};
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::Setup;
use proxy_tests::wait::eventually;

/// Branches that wake at once: as many as a machine with 24 GB is to hold.
const MANY: usize = 50;

/// What a process sees below a directory.
fn seen(pid: u32, directory: &Path) -> Result<BTreeSet<String>> {
    let inside = format!("/proc/{pid}/root{}", directory.display());
    let entries = fs::read_dir(&inside).with_context(|| inside)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongod_sees_its_own_files_and_no_network() -> Result<()> {
    let server = Setup::new()?.start()?;
    server.project("demo")?;
    let mut clients = Vec::new();
    for name in ["one", "two"] {
        let branch = server.branch(name, &["--empty"])?;
        clients.push((driver::connect(&branch.uri).await?, branch));
    }
    for (client, _) in &clients {
        insert(client, "it works").await?;
    }
    let work = server.data_dir().join("work").canonicalize()?;
    let processes = mongods_below(&work);
    ensure!(processes.len() == 2, "{processes:?}");
    let told = server.cli().run(&["status"])?;
    if !told.contains("file system") {
        cannot_run("mongods in a root of their own", &told);
        return Ok(());
    }
    let mut all = BTreeSet::new();
    for pid in &processes {
        // Of the data directory nothing but the way to its own dbpath, and of that nothing beside.
        let ways = ["run", "work"].map(str::to_owned);
        assert_eq!(seen(*pid, server.data_dir())?, BTreeSet::from(ways));
        assert_eq!(seen(*pid, &server.data_dir().join("run"))?.len(), 1);
        let own = seen(*pid, &work)?;
        ensure!(own.len() == 1, "{own:?}");
        let below = seen(*pid, &work.join(own.first().context("it has one")?))?;
        assert_eq!(below, BTreeSet::from(["db".to_owned()]));
        all.extend(own);
        let repository = repository().display().to_string();
        for secret in ["/etc/shadow", "/var", "/run", &repository] {
            ensure!(!Path::new(&format!("/proc/{pid}/root{secret}")).exists(), "{secret}");
        }
        // In its own namespaces there is one network, which ends in itself.
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
        assert_eq!(devices.lines().filter(|line| line.contains(':')).count(), 1, "{devices}");
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
            ensure!(status.contains(line), "{status}");
        }
        for kind in ["net", "mnt", "user", "ipc"] {
            let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
            ensure!(space(&pid.to_string())? != space("self")?, "{kind}");
        }
    }
    assert_eq!(all.len(), 2, "each sees another");
    let first = |kind| fs::read_link(format!("/proc/{}/ns/{kind}", processes[0]));
    let second = |kind| fs::read_link(format!("/proc/{}/ns/{kind}", processes[1]));
    for kind in ["net", "mnt", "user", "ipc"] {
        ensure!(first(kind)? != second(kind)?, "{kind}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_more_memory_than_it_may_is_killed_alone_and_recovered() -> Result<()> {
    let setup = Setup::new()?.arguments(&["--branch-memory", "256MiB", "--branch-pids", "500"]);
    let server = match setup.start() {
        Ok(server) => server,
        Err(error) => {
            let refused = format!("{error:#}");
            ensure!(refused.contains("control group") && refused.contains("Delegate"), "{refused}");
            cannot_run("limits of mongods", &refused);
            return Ok(());
        }
    };
    server.project("demo")?;
    let calm = driver::connect(&server.branch("calm", &["--empty"])?.uri).await?;
    insert(&calm, "calm").await?;
    let calm_one = server.mongods();
    let hungry = driver::connect(&server.branch("hungry", &["--empty"])?.uri).await?;
    insert(&hungry, "hungry").await?;
    let rows = hungry.database("big").collection("rows");
    for _ in 0..90 {
        rows.insert_one(bson::doc! { "filling": "x".repeat(1 << 20) }).await?;
    }
    // So that what it must recover afterwards is little.
    server.cli().run(&["branch", "suspend", "--wait", "hungry"])?;
    // Each holds all of it, which is just below mongod's own limit for one.
    let all = || async {
        let group = bson::doc! { "$group": { "_id": null, "all": { "$push": "$filling" } } };
        let count = bson::doc! { "$project": { "count": { "$size": "$all" } } };
        let mut found = rows.aggregate([group, count]).await?;
        ensure!(found.advance().await?, "one group");
        Ok(())
    };
    let ended = try_join_all((0..6).map(|_| all())).await;
    ensure!(ended.is_err(), "540 MB fit into 256 MiB");
    let noticed = || Ok(server.log().contains("took more memory than it may have").then_some(()));
    eventually("its end is noticed", noticed)?;
    assert_eq!(changes(&hungry).await?, ["hungry"], "the next command recovers it");
    assert_eq!(changes(&calm).await?, ["calm"]);
    let left = server.mongods();
    ensure!(calm_one.iter().all(|pid| left.contains(pid)), "{calm_one:?} {left:?}");
    Ok(())
}

/// A storm: all sleep, all are wanted at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_that_are_woken_at_once_are_all_answered_and_stay_awake_together() -> Result<()> {
    let server = Setup::new()?.arguments(&["--idle-timeout", "10m"]).start()?;
    server.project("demo")?;
    let mut branches = Vec::new();
    for number in 0..MANY {
        branches.push(server.branch(&format!("b{number}"), &["--empty"])?);
    }
    let answered = try_join_all(branches.iter().map(|branch| async {
        let client = driver::connect(&branch.uri).await?;
        insert(&client, &branch.name).await?;
        Ok::<_, anyhow::Error>(client)
    }));
    let clients = answered.await?;
    assert_eq!(server.mongods().len(), MANY);
    for (client, branch) in clients.iter().zip(&branches) {
        assert_eq!(changes(client).await?, [&*branch.name]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_mongod_stands_still_goes_on_at_a_command_and_sleeps_in_the_end() -> Result<()> {
    let warm = ["--idle-timeout", "1s", "--keep-warm", "10m"];
    let mut server = Setup::new()?.arguments(&warm).start()?;
    server.project("demo")?;
    let dev = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&dev, "before").await?;
    let [mongod] = server.mongods()[..] else { panic!("{:?}", server.mongods()) };
    for turn in ["first", "second"] {
        let stands = || Ok(is_stopped(mongod)?.then_some(()));
        eventually("its mongod stands still", stands)?;
        assert_eq!(server.show("dev")?.state, BranchState::Running);
        insert(&dev, turn).await?;
        assert_eq!(server.mongods(), [mongod], "it is the same process");
    }
    assert_eq!(changes(&dev).await?, ["before", "first", "second"]);
    eventually("it stands still again", || Ok(is_stopped(mongod)?.then_some(())))?;
    // One that stands still can be suspended like any other, and the server can end.
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    insert(&dev, "woken").await?;
    let [mongod] = server.mongods()[..] else { panic!("{:?}", server.mongods()) };
    eventually("the next one too", || Ok(is_stopped(mongod)?.then_some(())))?;
    let status = server.stop(libc::SIGTERM)?;
    ensure!(status.success(), "{status}");
    server.start_again()?;
    assert_eq!(server.show("dev")?.state, BranchState::Suspended);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stood_still_for_long_enough_is_suspended_by_itself() -> Result<()> {
    let warm = ["--idle-timeout", "1s", "--keep-warm", "2s"];
    let server = Setup::new()?.arguments(&warm).start()?;
    server.project("demo")?;
    let dev = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&dev, "before").await?;
    server.until("dev", |branch| branch.state == BranchState::Suspended).await?;
    ensure!(server.log().contains("frozen until it is used"), "{}", server.log());
    assert_eq!(changes(&dev).await?, ["before"]);
    Ok(())
}

/// Whose mongod is whose is told by what stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_may_be_kept_warm_while_its_neighbour_is_not() -> Result<()> {
    let server = Setup::new()?.arguments(&["--idle-timeout", "1s"]).start()?;
    server.project("demo")?;
    let warm = server.branch("warm", &["--empty", "--keep-warm", "10m"])?;
    let cold = server.branch("cold", &["--empty"])?;
    let (warm, cold) = (driver::connect(&warm.uri).await?, driver::connect(&cold.uri).await?);
    let own = |name: &str| Ok::<_, anyhow::Error>(server.show(name)?.keep_warm.to_string());
    assert_eq!((own("warm")?, own("cold")?), ("10m".into(), "off".into()));
    insert(&warm, "first").await?;
    insert(&cold, "first").await?;

    let frozen = server.until("warm", |branch| branch.frozen).await?;
    assert_eq!(frozen.state, BranchState::Running);
    let asleep = server.until("cold", |branch| branch.state == BranchState::Suspended).await?;
    ensure!(!asleep.frozen);
    let [mongod] = server.mongods()[..] else { panic!("{:?}", server.mongods()) };
    ensure!(is_stopped(mongod)?);
    insert(&warm, "thawed").await?;
    assert_eq!(server.mongods(), [mongod], "it is the same process");

    // What is changed holds at once, for one that stands still too.
    server.until("warm", |branch| branch.frozen).await?;
    server.cli().run(&["branch", "set", "warm", "--keep-warm", "off"])?;
    server.until("warm", |branch| branch.state == BranchState::Suspended).await?;
    insert(&cold, "second").await?;
    server.cli().run(&["branch", "set", "cold", "--keep-warm", "10m"])?;
    server.until("cold", |branch| branch.frozen).await?;

    // `default` is what the server says, and that is off.
    server.cli().run(&["branch", "set", "cold", "--keep-warm", "default"])?;
    server.until("cold", |branch| branch.state == BranchState::Suspended).await?;
    assert_eq!(changes(&warm).await?, ["first", "thawed"]);
    assert_eq!(changes(&cold).await?, ["first", "second"]);

    // A fork says nothing of its own, as with every such setting.
    server.cli().run(&["branch", "set", "warm", "--keep-warm", "5m"])?;
    server.branch("fork", &["--from", "warm"])?;
    assert_eq!((own("warm")?, own("fork")?), ("5m".into(), "off".into()));
    Ok(())
}
