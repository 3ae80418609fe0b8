//! `cargo bench --bench wake`: from a sleeping branch to the reply of its client's first command: with a
//! parked mongod, without one, and with twenty clients at twenty branches at once.
//!
//! `-- --quick` shows in a minute that everything runs; its figures are noise. `-- --trace` prints where
//! the time of the slowest wake went. docs/performance.md says what came of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argon_admin::client::{Client as Admin, Step};
use argon_admin::types::{BranchSource, CreateBranch, IdleTimeout, Until, WakeBy, WakeTrace};
use bson::{Document, doc};
use futures_util::future::try_join_all;
use mongodb::Collection;
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually;
use proxy_tests::{binary, driver, machine};
use serde_json::{Value, json};

const PROJECT: &str = "bench";
const MB: f64 = 1e6;

/// How much is measured.
struct Effort {
    /// Wakes by a parked mongod, and others.
    wakes: [usize; 2],
    /// How often many branches wake at once, and how many.
    storms: usize,
    crowd: usize,
    trace: bool,
}

fn main() -> Result<()> {
    let mut effort = Effort { wakes: [100, 25], storms: 3, crowd: 20, trace: false };
    for argument in std::env::args().skip(1) {
        match &*argument {
            // What `cargo bench` itself adds.
            "--bench" => {}
            "--quick" => effort = Effort { wakes: [5, 2], storms: 1, ..effort },
            "--trace" => effort.trace = true,
            other => bail!("unknown argument {other}; there are --quick and --trace"),
        }
    }
    println!("measuring {}", binary::argon_release()?.display());
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let mut rows = Vec::new();
    println!("| what | figure | bar |\n| --- | --- | --- |");
    runtime.block_on(async {
        one_by_one(WakeBy::Parked, &effort, &mut rows).await?;
        one_by_one(WakeBy::Cold, &effort, &mut rows).await?;
        at_once(&effort, &mut rows).await
    })?;
    let path = machine::target().join("bench-wake.json");
    fs::write(&path, serde_json::to_string_pretty(&rows)?)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

fn tell(rows: &mut Vec<Value>, what: &str, unit: &str, value: f64, bar: f64) {
    println!("| {what} | {value:.1} {unit} | {bar} {unit} |");
    rows.push(json!({ "what": what, "unit": unit, "value": value, "bar": bar }));
}

/// The value that so much of all is not above, milliseconds.
fn quantile(mut all: Vec<Duration>, share: f64) -> f64 {
    all.sort();
    let place = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len().max(1)) - 1;
    all.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
}

struct Bench {
    server: Server,
    admin: Admin,
}

impl Bench {
    fn start(parked: &str) -> Result<Self> {
        let arguments = ["--parked", parked, "--snapshot-every", "off"];
        let server = Setup::new()?.arguments(&arguments).start()?;
        let admin = Admin::new(format!("http://{}", server.admin).parse()?);
        server.project(PROJECT)?;
        Ok(Self { server, admin })
    }

    /// A branch of the sample base, with a client that has a connection.
    async fn branch(&self, name: &str) -> Result<Collection<Document>> {
        let request = CreateBranch {
            name: name.to_owned(),
            source: BranchSource::Base,
            idle_timeout: Some(IdleTimeout::Never),
            snapshot_every: None,
            keep_warm: None,
        };
        let operation = self.admin.create_branch(PROJECT, &request)?;
        self.admin.follow(operation)?;
        let uri = self.admin.branch(PROJECT, name)?.uri;
        let documents = driver::connect(&uri).await?.database("bench").collection("some");
        documents.insert_one(doc! { "_id": 1 }).await.context("write to the new branch")?;
        Ok(documents)
    }

    fn suspend(&self, name: &str) -> Result<()> {
        let operation = self.admin.step(PROJECT, name, Step::Suspend(Until::Saved))?;
        self.admin.follow(operation).map(drop).map_err(Into::into)
    }

    fn last_wake(&self, name: &str) -> Result<WakeTrace> {
        let mut wakes = self.admin.wakes(PROJECT, name)?;
        ensure!(!wakes.is_empty(), "{name} was not woken");
        Ok(wakes.remove(0))
    }

    /// Waits until a mongod is parked, where any are.
    fn settle(&self) -> Result<()> {
        eventually("a mongod is parked", || {
            let parked = self.admin.status()?.parked;
            Ok((parked.parked == parked.wanted && parked.starting == 0).then_some(()))
        })
    }
}

/// Reads what is there. The driver's own connection is not what is measured: it has one.
async fn first_command(documents: &Collection<Document>) -> Result<Duration> {
    let begun = Instant::now();
    ensure!(documents.find_one(doc! { "_id": 1 }).await?.is_some(), "it is missing");
    Ok(begun.elapsed())
}

/// One branch, woken again and again.
async fn one_by_one(by: WakeBy, effort: &Effort, rows: &mut Vec<Value>) -> Result<()> {
    let (parked, wakes) = match by {
        WakeBy::Parked => ("1", effort.wakes[0]),
        WakeBy::Cold => ("0", effort.wakes[1]),
    };
    let bench = Bench::start(parked)?;
    let documents = bench.branch("dev").await?;
    let (mut took, mut slowest) = (Vec::new(), None::<(Duration, WakeTrace)>);
    for _ in 0..wakes {
        bench.suspend("dev")?;
        bench.settle()?;
        let time = first_command(&documents).await?;
        let wake = bench.last_wake("dev")?;
        ensure!(wake.by == by, "it woke otherwise than it should: {wake:?}");
        took.push(time);
        if slowest.as_ref().is_none_or(|(slowest, _)| *slowest < time) {
            slowest = Some((time, wake));
        }
    }
    let name = format!("first command to its reply, {}", by.as_str());
    let bars = match by {
        WakeBy::Parked => [100.0, 250.0],
        WakeBy::Cold => [800.0, 2000.0],
    };
    tell(rows, &format!("{name}, p50"), "ms", quantile(took.clone(), 0.5), bars[0]);
    tell(rows, &format!("{name}, p99"), "ms", quantile(took, 0.99), bars[1]);
    if let (true, Some((time, wake))) = (effort.trace, slowest) {
        println!("the slowest took {time:?}: {wake:?}");
    }
    if by == WakeBy::Parked {
        memory(&bench, rows)?;
    }
    Ok(())
}

/// Memory of a parked mongod: beside a branch that is awake, with which it shares the program, and alone.
fn memory(bench: &Bench, rows: &mut Vec<Value>) -> Result<()> {
    bench.settle()?;
    tell(rows, "PSS of a parked mongod, one branch awake", "MB", parked_bytes(bench)?, 60.0);
    bench.suspend("dev")?;
    tell(rows, "PSS of a parked mongod, alone", "MB", parked_bytes(bench)?, 60.0);
    Ok(())
}

fn parked_bytes(bench: &Bench) -> Result<f64> {
    // Of the two that live below the pool's folder, the one that was started last waits.
    let places = bench.server.data_dir().join("work/parked");
    let waiting = machine::mongods_below(&places).into_iter().max().context("none is parked")?;
    let rollup = fs::read_to_string(format!("/proc/{waiting}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes * 1024.0 / MB)
}

/// Many clients at as many sleeping branches, with one mongod parked.
async fn at_once(effort: &Effort, rows: &mut Vec<Value>) -> Result<()> {
    let bench = Bench::start("1")?;
    let mut all = Vec::new();
    for number in 0..effort.crowd {
        let name = format!("b{number}");
        all.push(bench.branch(&name).await?);
        bench.suspend(&name)?;
    }
    let mut took = Vec::new();
    for _ in 0..effort.storms {
        bench.settle()?;
        let begun = Instant::now();
        try_join_all(all.iter().map(first_command)).await?;
        took.push(begun.elapsed());
        for number in 0..effort.crowd {
            bench.suspend(&format!("b{number}"))?;
        }
    }
    let what = format!("{} clients at as many sleeping branches, all answered", effort.crowd);
    tell(rows, &format!("{what}, p50"), "ms", quantile(took.clone(), 0.5), 8_000.0);
    tell(rows, &format!("{what}, the slowest"), "ms", quantile(took, 1.0), 8_000.0);
    Ok(())
}
