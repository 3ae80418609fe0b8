//! `cargo bench --bench volumes`: what a suspend and a resume take, in time and in bytes, against the
//! size of the database and against what changed, with the store in a directory and in S3.
//!
//! `-- --quick` takes the smallest database only. docs/performance.md says what came of it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argon_admin::types::Version;
use bson::{Document, doc};
use mongodb::Collection;
use proxy_tests::buckets::{ACCESS_KEY, BUCKET, Buckets, SECRET_KEY};
use proxy_tests::noise::fill;
use proxy_tests::server::{Server, Setup};
use proxy_tests::{binary, driver, machine};
use serde_json::{Value, json};

const MB: u64 = 1_000_000;
/// How often what does not change the database is measured; the median is shown.
const ROUNDS: usize = 3;
const CHANGES: [u64; 3] = [1, 100, 1_000];

fn main() -> Result<()> {
    let mut sizes = vec![10, 100, 1_000];
    for argument in std::env::args().skip(1) {
        match &*argument {
            // What `cargo bench` itself adds.
            "--bench" => {}
            "--quick" => sizes.truncate(1),
            other => bail!("unknown argument {other}; there is --quick"),
        }
    }
    let argon = binary::argon_release()?;
    println!("measuring {}", argon.display());
    println!("| store | database | what | s | new bytes, MB | stored, MB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let mut rows = Vec::new();
    runtime.block_on(async {
        measure("directory", &Setup::new()?.start()?, &sizes, &mut rows).await?;
        let Some(buckets) = Buckets::s3s_fs("suspend and resume with S3")? else { return Ok(()) };
        let in_s3 = Setup::new()?
            // It lets several win a race of conditional writes.
            .arguments(&["--s3-endpoint", &buckets.endpoint(), "--single-writer"])
            .variable("S3_BUCKET", BUCKET)
            .variable("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        measure("S3", &in_s3.start()?, &sizes, &mut rows).await
    })?;
    let path = machine::target().join("bench-volumes.json");
    let json = serde_json::to_string_pretty(&rows).context("write the rows as JSON")?;
    fs::write(&path, json).with_context(|| format!("write {}", path.display()))?;
    println!("\nall of it: {}", path.display());
    Ok(())
}

async fn measure(store: &str, server: &Server, sizes: &[u64], rows: &mut Vec<Value>) -> Result<()> {
    server.project("bench")?;
    for &megabytes in sizes {
        let name = format!("of-{megabytes}");
        let uri = server.branch(&name, &["--empty", "--idle-timeout", "never"])?.uri;
        let client = driver::connect(&uri).await?;
        let bench = Bench { server, name, documents: client.database("bench").collection("some") };
        let mut told = |what: &str, took: Duration, version: Option<&Version>| {
            let seconds = took.as_secs_f64();
            let bytes = version.map(|version| {
                [version.new_bytes, version.stored_bytes].map(|bytes| bytes as f64 / MB as f64)
            });
            let [new, stored] = bytes.map_or_else(Default::default, |bytes| {
                bytes.map(|megabytes| format!("{megabytes:.1}"))
            });
            println!("| {store} | {megabytes} MB | {what} | {seconds:.2} | {new} | {stored} |");
            rows.push(json!({
                "store": store, "database_mb": megabytes, "what": what, "seconds": seconds,
                "new_bytes": version.map(|version| version.new_bytes),
                "stored_bytes": version.map(|version| version.stored_bytes),
            }));
        };
        fill(&bench.documents, megabytes * MB).await?;
        let (took, version) = bench.suspend()?;
        told("suspend, all of it new", took, Some(&version));
        let (mut wakes, mut suspends) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            wakes.push(bench.wake().await?);
            suspends.push(bench.suspend()?);
        }
        wakes.sort();
        suspends.sort_by_key(|(took, _)| *took);
        let (took, version) = &suspends[ROUNDS / 2];
        told("resume to the first reply", wakes[ROUNDS / 2], None);
        told("suspend, nothing done", *took, Some(version));
        for changes in CHANGES {
            bench.change(changes).await?;
            let (took, version) = bench.suspend()?;
            told(&format!("suspend, {changes} documents updated"), took, Some(&version));
        }
    }
    Ok(())
}

/// One branch and its one collection.
struct Bench<'s> {
    server: &'s Server,
    name: String,
    documents: Collection<Document>,
}

impl Bench<'_> {
    /// From a sleeping branch to the reply of its first command.
    async fn wake(&self) -> Result<Duration> {
        let begun = Instant::now();
        let found = self.documents.find_one(doc! { "_id": 1 }).await?;
        ensure!(found.is_some(), "a document is missing");
        Ok(begun.elapsed())
    }

    async fn change(&self, count: u64) -> Result<()> {
        let all = self.documents.count_documents(doc! {}).await?;
        for number in 0..count {
            // Spread over the collection.
            let id = (number * 7_919 % all) as i64;
            self.documents.update_one(doc! { "_id": id }, doc! { "$inc": { "n": 1 } }).await?;
        }
        Ok(())
    }

    fn suspend(&self) -> Result<(Duration, Version)> {
        let begun = Instant::now();
        self.server.cli().run(&["branch", "suspend", "--wait", &self.name])?;
        let took = begun.elapsed();
        let head = self.server.show(&self.name)?.head_version;
        let versions: Vec<Version> =
            self.server.cli().json(&["branch", "list-versions", &self.name])?;
        let version = versions.into_iter().find(|version| version.id == head);
        Ok((took, version.context("the newest version is not listed")?))
    }
}
