//! `cargo bench --bench many`: what a thousand sleeping branches cost a server, fifty of them that are
//! woken at once, and the thaw of one that stands still.
//!
//! `-- --quick` takes fewer of each. docs/performance.md says what came of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use argon_admin::client::Client as Admin;
use argon_admin::types::{BranchSource, CreateBranch};
use bson::doc;
use futures_util::future::try_join_all;
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually;
use proxy_tests::{binary, driver, machine};
use serde_json::json;

const PROJECT: &str = "bench";

fn main() -> Result<()> {
    let (mut sleeping, mut storm, mut thaws) = (1_000, 50, 30);
    for argument in std::env::args().skip(1) {
        match &*argument {
            // What `cargo bench` itself adds.
            "--bench" => {}
            "--quick" => (sleeping, storm, thaws) = (100, 8, 3),
            other => bail!("unknown argument {other}; there is --quick"),
        }
    }
    println!("measuring {}", binary::argon_release()?.display());
    println!("| what | figure | bar |\n| --- | --- | --- |");
    let mut rows = Vec::new();
    let mut tell = |what: &str, value: f64, unit: &str, bar: &str| {
        println!("| {what} | {value:.1} {unit} | {bar} |");
        rows.push(json!({ "what": what, "value": value, "unit": unit, "bar": bar }));
    };
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let mut bench = Bench::start(&["--idle-timeout", "10m"])?;
        // What the first branches cost once is not what one more costs.
        bench.create(0..20)?;
        bench.restart()?;
        let (few_memory, few_start) = (bench.memory()?, bench.started);
        let few_idle = bench.idle().await?;
        bench.create(20..20 + sleeping)?;
        bench.restart()?;
        let each = bench.memory()?.saturating_sub(few_memory) as f64 / f64::from(sleeping);
        tell("memory of a sleeping branch", each / 1e3, "KB", "<= 5 KB");
        let start = [few_start, bench.started].map(|took| took.as_secs_f64() * 1e3);
        tell("start of the server with 20 branches", start[0], "ms", "");
        tell(&format!("start of the server with {sleeping} more"), start[1], "ms", "flat");
        tell("CPU while nobody comes, 20 branches", few_idle, "ms a second", "");
        tell(&format!("the same with {sleeping} more"), bench.idle().await?, "ms a second", "flat");
        let uris = (0..storm).map(|number| bench.uri(number)).collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        try_join_all(uris.iter().map(|uri| touch(uri))).await?;
        let took = begun.elapsed().as_secs_f64();
        tell(
            &format!("{storm} clients at {storm} sleeping branches at once, all answered"),
            took,
            "s",
            "no error",
        );
        drop(bench);

        let bench = Bench::start(&["--idle-timeout", "1s", "--keep-warm", "1h"])?;
        bench.create(0..1)?;
        let client = driver::connect(&bench.uri(0)?).await?;
        let documents = client.database("bench").collection("some");
        documents.insert_one(doc! { "_id": 1 }).await?;
        let mut took = Vec::new();
        for _ in 0..thaws {
            let pid = *bench.server.mongods().first().context("it runs")?;
            eventually("it stands still", || Ok(machine::is_stopped(pid)?.then_some(())))?;
            let begun = Instant::now();
            documents.find_one(doc! { "_id": 1 }).await?.context("it is there")?;
            took.push(begun.elapsed());
        }
        took.sort();
        let median = took[took.len() / 2].as_secs_f64() * 1e3;
        tell("first command to its reply, frozen, p50", median, "ms", "<= 10 ms");
        Ok::<_, anyhow::Error>(())
    })?;
    let path = machine::target().join("bench-many.json");
    fs::write(&path, serde_json::to_string_pretty(&rows)?)
        .with_context(|| format!("write {}", path.display()))
}

async fn touch(uri: &str) -> Result<()> {
    let client = driver::connect(uri).await?;
    client.database("bench").collection("some").insert_one(doc! { "_id": 1 }).await?;
    Ok(())
}

struct Bench {
    server: Server,
    admin: Admin,
    /// How long its last start took, until it listened.
    started: Duration,
}

impl Bench {
    fn start(arguments: &[&str]) -> Result<Self> {
        let begun = Instant::now();
        let server = Setup::new()?.arguments(arguments).start()?;
        let admin = Admin::new(format!("http://{}", server.admin).parse()?);
        let started = begun.elapsed();
        server.project(PROJECT)?;
        Ok(Self { server, admin, started })
    }

    fn restart(&mut self) -> Result<()> {
        self.server.stop(machine::TERMINATE)?;
        let begun = Instant::now();
        self.server.start_again()?;
        self.started = begun.elapsed();
        self.admin = Admin::new(format!("http://{}", self.server.admin).parse()?);
        Ok(())
    }

    fn create(&self, numbers: std::ops::Range<u32>) -> Result<()> {
        for number in numbers {
            let request = CreateBranch {
                name: format!("b{number}"),
                source: BranchSource::Empty,
                idle_timeout: None,
                snapshot_every: None,
                keep_warm: None,
            };
            self.admin.follow(self.admin.create_branch(PROJECT, &request)?)?;
        }
        Ok(())
    }

    fn uri(&self, number: u32) -> Result<String> {
        Ok(self.admin.branch(PROJECT, &format!("b{number}"))?.uri)
    }

    /// Resident memory of the server that is no file's, bytes.
    fn memory(&self) -> Result<u64> {
        machine::anonymous_memory(self.server.pid())
    }

    /// Nanoseconds that the server was on a CPU, from the scheduler.
    fn on_cpu(&self) -> Result<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server.pid()))?;
        let mut all = 0;
        for task in tasks {
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            all += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
        }
        Ok(all)
    }

    /// How much CPU it takes while nobody comes, milliseconds a second.
    async fn idle(&self) -> Result<f64> {
        const PAUSE: Duration = Duration::from_secs(10);
        // What follows a start is done by then.
        tokio::time::sleep(PAUSE).await;
        let before = self.on_cpu()?;
        tokio::time::sleep(PAUSE).await;
        Ok(self.on_cpu()?.saturating_sub(before) as f64 / 1e6 / PAUSE.as_secs_f64())
    }
}
