//! mongods that are started ahead: branches wake on them, each on one of its own, and nothing is lost
//! or left over whatever happens to them.
//!
//! `ARGON_CYCLES=1000` suspends and resumes so often under a client that writes; else 15 times.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use argon::compute::mongod::Search;
use argon_admin::types::{Branch, BranchState, Status, WakeBy, WakeTrace};
use futures_util::future::try_join_all;
use proxy_tests::driver;
use proxy_tests::machine::{mongods_below, signal};
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::{eventually, eventually_async};
use proxy_tests::writer::{Writer, check_all_there};

fn server(parked: &str) -> Result<Server> {
    let server = Setup::new()?.arguments(&["--parked", parked]).start()?;
    server.project("demo")?;
    Ok(server)
}

/// Where they wait, and where the branches are mounted that got one.
fn places(server: &Server) -> PathBuf {
    server.data_dir().join("work/parked")
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
    Ok(mongods_below(&places(server)))
}

fn last_wake(server: &Server, branch: &str) -> Result<WakeTrace> {
    let mut wakes: Vec<WakeTrace> = server.cli().json(&["branch", "wake-trace", branch])?;
    ensure!(!wakes.is_empty(), "{branch} was not woken");
    Ok(wakes.remove(0))
}

fn suspend(server: &Server, branch: &str) -> Result<()> {
    server.cli().run(&["branch", "suspend", "--wait", branch]).map(drop)
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
        suspend(&server, "dev")?;
        ensure!(!mongods_below(server.data_dir()).contains(&parked[0]), "it ends with the life");
    }
    assert_eq!(changes(&client).await?, ["in round 0", "in round 1", "in round 2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_is_woken_before_it_is_uploaded_moves_before_the_next_parked_one()
-> Result<()> {
    let server = server("1")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    let mut texts = Vec::new();
    for round in 0..3 {
        until_parked(&server, 1).await?;
        texts.push(format!("in round {round}"));
        insert(&client, &texts[round]).await?;
        // Returns before the upload is done, or when it has only begun.
        server.cli().run(&["branch", "suspend", "dev"])?;
    }
    until_parked(&server, 1).await?;
    assert_eq!(changes(&client).await?, texts);
    suspend(&server, "dev")?;
    assert_eq!(changes(&client).await?, texts, "and the versions have it");
    let mounts = argon::mount::lazy::mounts_below(server.data_dir())?;
    ensure!(mounts.len() <= 2, "the branch's and a parked one's: {mounts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_killed_is_replaced_and_no_wake_waits_for_it() -> Result<()> {
    let server = server("2")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    let parked = until_parked(&server, 2).await?;
    // Stopped or killed: neither shows as long as it waits.
    signal(parked[0], libc::SIGSTOP)?;
    signal(parked[1], libc::SIGKILL)?;
    insert(&client, "first").await?;
    let wake = last_wake(&server, "dev")?;
    ensure!(!mongods_below(&places(&server)).contains(&parked[1]), "it has ended: {wake:?}");
    let others = until_parked(&server, 2).await?;
    ensure!(others.iter().all(|pid| !parked.contains(pid)), "{others:?} and {parked:?}");
    suspend(&server, "dev")?;
    assert_eq!(changes(&client).await?, ["first"]);
    assert_eq!(last_wake(&server, "dev")?.by, WakeBy::Parked);
    Ok(())
}

/// What a program leaves that fails when it was let in.
const TRACE: &str = "somebody-was-here";

/// A program that starts the real mongod, except where it is to be parked: then it goes up to where a
/// mongod waits, opens what it is let in to, writes into it and ends.
fn failing_when_let_in(folder: &Path) -> Result<PathBuf> {
    let named = std::env::var_os("ARGON_MONGOD").map(|path| (path.into(), "ARGON_MONGOD".into()));
    let mongod = Search::of_this_process(named)?.find_or_fetch(&mut |_| {})?.path;
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *--unixSocketPrefix*/parked-*)\n\
         for word; do [ \"$last\" = --dbpath ] && db=$word; last=$word; done\n\
         exec 3<>\"$db/mongod.lock\"\n\
         echo 17 >>\"$db/WiredTiger.lock\"\n\
         echo 17 >\"$db/mongod.lock\"\n\
         echo 17 >\"$db/{TRACE}\"\n\
         exit 9;;\nesac\nexec {} \"$@\"\n",
        mongod.display()
    );
    let path = folder.join("mongod");
    fs::write(&path, text).context("write the program")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_when_it_is_let_in_costs_time_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = failing_when_let_in(folder.path())?;
    let server = Setup::new()?
        .arguments(&["--parked", "1", "--mongod", &program.to_string_lossy()])
        .start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    for round in 0..2 {
        until_parked(&server, 1).await?;
        insert(&client, &format!("in round {round}")).await?;
        let wake = last_wake(&server, "dev")?;
        let why = wake.cold_because.unwrap_or_default();
        ensure!(wake.by == WakeBy::Cold && why.contains("parked failed"), "{why}");
        let mut mounts = argon::mount::lazy::mounts_below(server.data_dir())?;
        // Whoever looks into the next one that waits, waits with it.
        mounts.retain(|mount| !mount.starts_with(places(&server)));
        ensure!(mounts.iter().any(|mount| mount.join("WiredTiger").exists()), "{mounts:?}");
        let traces: Vec<_> = mounts.iter().filter(|mount| mount.join(TRACE).exists()).collect();
        ensure!(traces.is_empty(), "what it wrote is gone: {traces:?}");
        suspend(&server, "dev")?;
    }
    // On writes that are here and nowhere else it is as a mongod that was killed.
    insert(&client, "in the end").await?;
    until_parked(&server, 1).await?;
    server.cli().run(&["branch", "suspend", "dev"])?;
    assert_eq!(changes(&client).await?, ["in round 0", "in round 1", "in the end"]);
    suspend(&server, "dev")?;
    until_parked(&server, 1).await?;
    let left = argon::mount::lazy::mounts_below(server.data_dir())?;
    assert_eq!(left.len(), 1, "only the parked one's: {left:?}");
    assert_eq!(fs::read_dir(places(&server))?.count(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_branches_wake_at_once_and_one_of_them_on_the_parked_one() -> Result<()> {
    let server = server("1")?;
    let mut clients = Vec::new();
    for number in 0..6 {
        let uri = server.branch(&format!("b{number}"), &["--empty"])?.uri;
        clients.push(driver::connect(&uri).await?);
    }
    until_parked(&server, 1).await?;
    let texts = ["0", "1", "2", "3", "4", "5"];
    try_join_all(clients.iter().zip(texts).map(|(client, text)| insert(client, text))).await?;
    let mut by_parked = 0;
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(changes(client).await?, [texts[number]], "each has its own");
        by_parked += usize::from(last_wake(&server, &format!("b{number}"))?.by == WakeBy::Parked);
    }
    assert_eq!(by_parked, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_leaves_nothing_parked() -> Result<()> {
    let mut server = server("2")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    until_parked(&server, 2).await?;
    insert(&client, "before the crash").await?;
    server.kill()?;
    eventually("its mongods end with it", || Ok(server.mongods().is_empty().then_some(())))?;
    server.start_again()?;
    until_parked(&server, 2).await?;
    let left = || argon::mount::lazy::mounts_below(&places(&server));
    assert_eq!(left()?.len(), 2, "none of the one that was killed");
    let client = driver::connect(&server.show("dev")?.uri).await?;
    assert_eq!(changes(&client).await?, ["before the crash"]);
    let status = server.stop(libc::SIGTERM)?;
    ensure!(status.success(), "{status}");
    assert_eq!(server.mongods(), Vec::<u32>::new());
    let mounts = argon::mount::lazy::mounts_below(server.data_dir())?;
    ensure!(mounts.is_empty(), "{mounts:?}");
    Ok(())
}

/// What a server holds of this machine.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    mounts: usize,
    mongods: usize,
    places: usize,
    memory_kb: u64,
}

impl Held {
    /// Holds no more than `early`, but for what comes and goes: connections, the runtime's blocking
    /// threads.
    fn is_no_more_than(&self, early: &Self) -> bool {
        self.descriptors <= early.descriptors + 16
            && self.threads <= early.threads + 8
            && self.memory_kb <= early.memory_kb + 40_000
    }
}

fn held(server: &Server) -> Result<Held> {
    let process = PathBuf::from(format!("/proc/{}", server.pid()));
    let count = |path: &Path| -> Result<usize> { Ok(fs::read_dir(path)?.count()) };
    // What a branch that is awake has open of its overlay is what its mongod has written to by now.
    let of_overlay = |one: &fs::DirEntry| {
        let target = fs::read_link(one.path()).unwrap_or_default();
        target.components().any(|part| part.as_os_str() == "overlay")
    };
    let open = fs::read_dir(process.join("fd"))?.flatten();
    let rollup = fs::read_to_string(process.join("smaps_rollup"))?;
    let memory = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let memory = memory.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    Ok(Held {
        descriptors: open.filter(|one| !of_overlay(one)).count(),
        threads: count(&process.join("task"))?,
        mounts: argon::mount::lazy::mounts_below(server.data_dir())?.len(),
        mongods: server.mongods().len(),
        places: count(&places(server))?,
        memory_kb: memory.context("no Pss of the server")?,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_writes_through_many_suspends_and_nothing_is_lost_or_left_over() -> Result<()> {
    let cycles = match std::env::var("ARGON_CYCLES") {
        Ok(number) => number.parse().context("ARGON_CYCLES is a number")?,
        Err(_) => 15,
    };
    let server = server("1")?;
    let arguments = ["--empty", "--idle-timeout", "never", "--snapshot-every", "off"];
    let client = driver::connect(&server.branch("dev", &arguments)?.uri).await?;
    let writer = Writer::start(&client);
    let mut early = None;
    let (begun, mut parked) = (Instant::now(), 0);
    for cycle in 0..cycles {
        until_parked(&server, 1).await?;
        writer.until_written(5).await?;
        // Every other one wakes before its upload is done.
        let words: &[&str] = if cycle % 2 == 0 { &["--wait"] } else { &[] };
        server.cli().run(&[&["branch", "suspend", "dev"], words].concat())?;
        writer.until_written(1).await?;
        parked += usize::from(last_wake(&server, "dev")?.by == WakeBy::Parked);
        if cycle == cycles / 3 {
            until_parked(&server, 1).await?;
            early = Some(held(&server)?);
        }
    }
    until_parked(&server, 1).await?;
    let early = early.context("no cycle")?;
    // What leaks never falls, while a blocking thread ends when it had nothing to do for ten seconds.
    let settled = || async {
        let now = held(&server)?;
        Ok(now.is_no_more_than(&early).then_some(now))
    };
    let late = eventually_async("it holds no more than early on", settled).await;
    let late = late.with_context(|| format!("{early:?}, {:?}", held(&server)))?;
    println!("{cycles} cycles in {:?}, {parked} wakes by a parked mongod", begun.elapsed());
    println!("{early:?}\n{late:?}");
    let acknowledged = writer.finish().await?;
    let all: Vec<i64> = (0..acknowledged.len() as i64).collect();
    assert_eq!(acknowledged, all, "no write failed");
    check_all_there(&client, &acknowledged).await?;
    suspend(&server, "dev")?;
    check_all_there(&client, &acknowledged).await?;

    assert_eq!(late.mongods, 2, "the branch's and the parked one");
    assert_eq!((late.mounts, late.places), (2, 2), "one each");
    ensure!(parked * 10 >= cycles * 9, "{parked} of {cycles} wakes by a parked mongod");
    let dev: Branch = server.show("dev")?;
    ensure!(dev.error.is_none() && dev.state == BranchState::Running, "{dev:?}");
    Ok(())
}
