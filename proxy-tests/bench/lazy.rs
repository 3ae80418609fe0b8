//! `cargo bench --bench lazy`: what lazy mounts cost and save, with a store in a directory and with one
//! whose every request takes 30 ms, and mongod on a lazy mount next to mongod on a plain directory.
//!
//! `-- --quick` takes little data; `-- --large` takes 10 GB; `-- --stores` and `-- --beside` do only one of
//! the two halves. docs/performance.md says what came of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argon_admin::client::{Client as Admin, Step};
use argon_admin::types::{
    At, BranchSource, CreateBranch, IdleTimeout, TakeSnapshot, Until, Version, Wake,
};
use bson::{Document, doc};
use mongodb::Collection;
use proxy_tests::buckets::{ACCESS_KEY, BUCKET, Buckets, SECRET_KEY};
use proxy_tests::noise::{DOCUMENT_BYTES, Noise, fill};
use proxy_tests::server::{Server, Setup};
use proxy_tests::tamper::Tamper;
use proxy_tests::{binary, driver, machine};
use serde_json::{Value, json};

const MB: u64 = 1_000_000;
/// What a request to a store far away takes.
const FAR: Duration = Duration::from_millis(30);
const PROJECT: &str = "bench";

/// How much is measured.
struct Effort {
    sizes_mb: Vec<u64>,
    rounds: usize,
    copies: usize,
    turns: usize,
    /// Which halves: the stores, mongod beside a plain directory.
    halves: [bool; 2],
}

fn main() -> Result<()> {
    let (sizes_mb, halves) = (vec![100, 1_000], [true; 2]);
    let mut effort = Effort { sizes_mb, rounds: 5, copies: 30, turns: 15, halves };
    for argument in std::env::args().skip(1) {
        match &*argument {
            // What `cargo bench` itself adds.
            "--bench" => {}
            "--quick" => {
                effort = Effort { sizes_mb: vec![20], rounds: 2, copies: 5, turns: 2, halves };
            }
            "--stores" => effort.halves = [true, false],
            "--beside" => effort.halves = [false, true],
            "--large" => effort.sizes_mb = vec![10_000],
            other => {
                bail!("unknown argument {other}; there are --quick, --large, --stores and --beside")
            }
        }
    }
    println!("measuring {}", binary::argon_release()?.display());
    let mut told = Told::default();
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        if effort.halves[0] {
            told.head("store", "data");
            one_store("directory", Setup::new()?, &effort, &mut told).await?;
        }
        if effort.halves[0]
            && let Some(buckets) = Buckets::s3s_fs("a store that is far away")?
        {
            let far = Tamper::before(&buckets.address)?;
            far.delay(FAR);
            let setup = Setup::new()?
                // It lets several win a race of conditional writes.
                .arguments(&["--s3-endpoint", &far.endpoint(), "--single-writer"])
                .variable("S3_BUCKET", BUCKET)
                .variable("AWS_ACCESS_KEY_ID", ACCESS_KEY)
                .variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
            one_store("30 ms", setup, &effort, &mut told).await?;
        }
        match effort.halves[1] {
            true => beside_a_directory(&effort, &mut told).await,
            false => Ok(()),
        }
    })?;
    let path = machine::target().join("bench-lazy.json");
    fs::write(&path, serde_json::to_string_pretty(&told.rows)?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("\nall of it: {}", path.display());
    Ok(())
}

/// What was measured, as it is printed and kept.
#[derive(Default)]
struct Told {
    rows: Vec<Value>,
}

impl Told {
    fn head(&self, one: &str, two: &str) {
        println!("| {one} | {two} | what | figure |\n| --- | --- | --- | --- |");
    }

    fn row(&mut self, place: &str, size: &str, what: &str, figure: &str, value: f64) {
        println!("| {place} | {size} | {what} | {figure} |");
        self.rows.push(json!({ "place": place, "data": size, "what": what, "value": value }));
    }

    fn time(&mut self, place: &str, size: &str, what: &str, took: Duration) {
        let ms = took.as_secs_f64() * 1e3;
        self.row(place, size, what, &format!("{ms:.1} ms"), ms);
    }

    fn bytes(&mut self, place: &str, size: &str, what: &str, bytes: u64) {
        let megabytes = bytes as f64 / MB as f64;
        self.row(place, size, what, &format!("{megabytes:.2} MB"), megabytes);
    }
}

/// The value that so much of all is not above.
fn quantile(mut all: Vec<Duration>, share: f64) -> Duration {
    all.sort();
    let place = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len().max(1)) - 1;
    all.get(place).copied().unwrap_or_default()
}

struct Bench {
    server: Server,
    admin: Admin,
}

impl Bench {
    fn start(setup: Setup) -> Result<Self> {
        let server = setup.start()?;
        let admin = Admin::new(format!("http://{}", server.admin).parse()?);
        server.project(PROJECT)?;
        Ok(Self { server, admin })
    }

    /// Starts the server anew, with nothing in its cache.
    fn forget(&mut self) -> Result<()> {
        let status = self.server.stop(machine::TERMINATE)?;
        ensure!(status.success(), "the server ended with {status}");
        fs::remove_dir_all(self.server.data_dir().join("cache")).ok();
        self.server.start_again()?;
        self.admin = Admin::new(format!("http://{}", self.server.admin).parse()?);
        Ok(())
    }

    fn create(&self, name: &str, source: BranchSource) -> Result<Duration> {
        let request = CreateBranch {
            name: name.to_owned(),
            source,
            idle_timeout: Some(IdleTimeout::Never),
            snapshot_every: None,
            keep_warm: None,
        };
        let begun = Instant::now();
        let operation = self.admin.create_branch(PROJECT, &request)?;
        self.admin.follow(operation)?;
        Ok(begun.elapsed())
    }

    fn step(&self, name: &str, step: Step) -> Result<Duration> {
        let begun = Instant::now();
        let operation = self.admin.step(PROJECT, name, step)?;
        self.admin.follow(operation)?;
        Ok(begun.elapsed())
    }

    async fn documents(&self, name: &str) -> Result<Collection<Document>> {
        let uri = self.admin.branch(PROJECT, name)?.uri;
        Ok(driver::connect(&uri).await?.database("bench").collection("some"))
    }

    fn newest(&self, name: &str) -> Result<Version> {
        self.admin.versions(PROJECT, name)?.pop().context("it has a version")
    }

    fn last_wake(&self, name: &str) -> Result<Wake> {
        self.admin.branch(PROJECT, name)?.last_wake.context("it woke")
    }

    /// Resident memory of the server, bytes.
    fn memory(&self) -> Result<u64> {
        machine::anonymous_memory(self.server.pid())
    }
}

async fn one_store(place: &str, setup: Setup, effort: &Effort, told: &mut Told) -> Result<()> {
    let mut bench = Bench::start(setup)?;
    for &megabytes in &effort.sizes_mb {
        let (name, size) = (format!("of-{megabytes}"), format!("{megabytes} MB"));
        let before = bench.memory()?;
        bench.create(&name, BranchSource::Empty)?;
        let documents = bench.documents(&name).await?;
        fill(&documents, megabytes * MB).await?;
        let asleep = bench.step(&name, Step::Suspend(Until::Asleep))?;
        told.time(place, &size, "suspend of all that is new, answered", asleep);
        bench.step(&name, Step::Suspend(Until::Saved))?;
        instant(&bench, place, &size, &name, effort, told)?;
        resume(&mut bench, place, &size, &name, effort, told).await?;
        let grown = bench.memory()?.saturating_sub(before.min(bench.memory()?));
        told.bytes(place, &size, "memory of the server, branch awake, beside before", grown);
        some_changes(&bench, place, &size, &name, megabytes, told).await?;
        pauses(&bench, place, &size, &name, effort, told).await?;
        bench.step(&name, Step::Suspend(Until::Saved))?;
    }
    Ok(())
}

/// Create, fork, time travel.
fn instant(
    bench: &Bench,
    place: &str,
    size: &str,
    name: &str,
    effort: &Effort,
    told: &mut Told,
) -> Result<()> {
    let version = bench.newest(name)?.id;
    let of = |at| BranchSource::Branch { branch: name.to_owned(), at };
    let sources = [
        ("create", BranchSource::Base),
        ("fork", of(None)),
        ("time-travel", of(Some(At::Version(version)))),
    ];
    for (what, source) in sources {
        let took = (0..effort.copies)
            .map(|number| bench.create(&format!("{name}-{what}-{number}"), source.clone()))
            .collect::<Result<Vec<_>>>()?;
        told.time(place, size, &format!("{what}, p50"), quantile(took, 0.5));
    }
    Ok(())
}

/// From a sleeping branch to the reply of its first command: nothing cached, and all of it.
async fn resume(
    bench: &mut Bench,
    place: &str,
    size: &str,
    name: &str,
    effort: &Effort,
    told: &mut Told,
) -> Result<()> {
    let (mut cold, mut warm, mut own, mut untouched) = (vec![], vec![], vec![], vec![]);
    for _ in 0..effort.rounds {
        bench.forget()?;
        for times in [&mut cold, &mut warm] {
            // The driver's own connection is not what is measured.
            let documents = bench.documents(name).await?;
            let begun = Instant::now();
            ensure!(documents.find_one(doc! { "_id": 1 }).await?.is_some(), "it is missing");
            times.push(begun.elapsed());
            let wake = bench.last_wake(name)?;
            own.push(Duration::from_millis(wake.mongod_start_ms + wake.primary_ms));
            bench.step(name, Step::Suspend(Until::Saved))?;
            untouched.push(bench.newest(name)?.new_bytes);
        }
    }
    let own = *own.iter().min().context("it woke")?;
    let (cold, warm) = (quantile(cold, 0.5), quantile(warm, 0.5));
    told.time(place, size, "resume to the first reply, nothing cached", cold);
    told.time(place, size, "the same, without mongod's own start", cold.saturating_sub(own));
    told.time(place, size, "resume to the first reply, all cached", warm);
    untouched.sort_unstable();
    told.bytes(place, size, "suspend with nothing done", untouched[untouched.len() / 2]);
    let documents = bench.documents(name).await?;
    ensure!(documents.find_one(doc! { "_id": 2 }).await?.is_some(), "it is missing");
    Ok(())
}

/// What a suspend stores next to what was changed, both before compression.
async fn some_changes(
    bench: &Bench,
    place: &str,
    size: &str,
    name: &str,
    megabytes: u64,
    told: &mut Told,
) -> Result<()> {
    const COUNT: u64 = 200;
    let documents = bench.documents(name).await?;
    let all = megabytes * MB / DOCUMENT_BYTES as u64;
    for number in 0..COUNT {
        let id = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % all;
        documents.update_one(doc! { "_id": id as i64 }, doc! { "$set": { "changed": 1 } }).await?;
    }
    bench.step(name, Step::Suspend(Until::Saved))?;
    let log = bench.server.log();
    let line = log.lines().rfind(|line| line.contains("uploaded") && line.contains(name));
    let line = line.context("no upload was logged")?;
    let changed = logged(line, "changed_blocks").context("changed_blocks")? * 65_536;
    let new = bench.newest(name)?.new_bytes;
    told.bytes(place, size, "200 documents changed: blocks changed", changed);
    let ratio = new as f64 / changed as f64;
    told.row(place, size, "the same: stored / changed", &format!("{ratio:.2}"), ratio);
    Ok(())
}

/// A number of a line of the log.
fn logged(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("{name}="))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How long writes wait while a version is made under load.
async fn pauses(
    bench: &Bench,
    place: &str,
    size: &str,
    name: &str,
    effort: &Effort,
    told: &mut Told,
) -> Result<()> {
    let documents = bench.documents(name).await?;
    let writer = tokio::spawn(async move {
        let mut noise = Noise(7);
        for number in 0_i64.. {
            let one = doc! { "_id": -1 - number, "noise": noise.bytes(DOCUMENT_BYTES) };
            documents.insert_one(one).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    for _ in 0..effort.rounds * 10 {
        let request = TakeSnapshot::default();
        let operation = bench.admin.snapshot(PROJECT, name, &request)?;
        bench.admin.follow(operation)?;
    }
    writer.abort();
    let log = bench.server.log();
    let pauses = log.lines().filter(|line| line.contains("uploaded") && line.contains(name));
    let pauses = pauses.filter_map(|line| logged(line, "pause_us")).map(Duration::from_micros);
    let pauses: Vec<_> = pauses.collect();
    ensure!(!pauses.is_empty(), "no pause was logged");
    told.time(place, size, "pause of writes for a version under load, p99", quantile(pauses, 0.99));
    Ok(())
}

/// mongod on a lazy mount and on a plain directory, in turns.
async fn beside_a_directory(effort: &Effort, told: &mut Told) -> Result<()> {
    println!();
    told.head("lazy / plain directory", "data");
    let megabytes = if effort.turns > 2 { 600 } else { 50 };
    let size = format!("{megabytes} MB");
    let mut places = Vec::new();
    for kind in ["lazy", "eager"] {
        // Versions made meanwhile are another figure.
        let arguments = ["--mount", kind, "--snapshot-every", "off"];
        let bench = Bench::start(Setup::new()?.arguments(&arguments))?;
        bench.create("dev", BranchSource::Empty)?;
        let documents = bench.documents("dev").await?;
        fill(&documents, megabytes * MB).await?;
        // So that what is read lies in a version, and comes from the cache.
        bench.step("dev", Step::Suspend(Until::Saved))?;
        places.push((bench, documents));
    }
    let mut rates = [[(); 2].map(|()| Vec::new()), Default::default(), Default::default()];
    let all = (megabytes * MB / DOCUMENT_BYTES as u64) as i64;
    for turn in 0..effort.turns {
        for step in 0..2 {
            let which = (turn + step) % 2;
            let documents = &places[which].1;
            let first = 1_000_000_000 + (turn as i64) * 1_000_000;
            rates[0][which].push(load(documents, first).await?);
            rates[1][which].push(reads(documents, all, turn as u64).await?);
            rates[2][which].push(singles(documents, first + 500_000).await?);
        }
    }
    for (what, [lazy, eager]) in
        ["insert load", "point reads, cache of 256 MB", "journaled inserts"].into_iter().zip(rates)
    {
        // Of each turn its own ratio, for the machine is not the same from one to the next.
        let mut ratios: Vec<f64> =
            lazy.iter().zip(&eager).map(|(lazy, eager)| lazy / eager).collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        told.row("ratio", &size, what, &format!("{median:.2}"), median);
    }
    drop(places);
    Ok(())
}

/// Documents a second, in batches.
async fn load(into: &Collection<Document>, first: i64) -> Result<f64> {
    const COUNT: i64 = 20_000;
    let mut noise = Noise(first as u64 | 1);
    let begun = Instant::now();
    for batch in 0..COUNT / 1_000 {
        let some = (0..1_000).map(|number| {
            doc! { "_id": first + batch * 1_000 + number, "noise": noise.bytes(1_000) }
        });
        into.insert_many(some).await?;
    }
    Ok(COUNT as f64 / begun.elapsed().as_secs_f64())
}

/// Reads a second, of documents that are mostly not in WiredTiger's cache.
async fn reads(from: &Collection<Document>, all: i64, seed: u64) -> Result<f64> {
    const COUNT: u64 = 2_000;
    let begun = Instant::now();
    for number in 0..COUNT {
        let id = ((number + seed * COUNT).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as i64 % all;
        ensure!(from.find_one(doc! { "_id": id }).await?.is_some(), "{id} is missing");
    }
    Ok(COUNT as f64 / begun.elapsed().as_secs_f64())
}

/// Inserts a second, each acknowledged when it is on the disk.
async fn singles(into: &Collection<Document>, first: i64) -> Result<f64> {
    const COUNT: i64 = 500;
    let begun = Instant::now();
    for number in 0..COUNT {
        let journaled = mongodb::options::WriteConcern::builder().journal(true).build();
        into.insert_one(doc! { "_id": first + number }).write_concern(journaled).await?;
    }
    Ok(COUNT as f64 / begun.elapsed().as_secs_f64())
}
