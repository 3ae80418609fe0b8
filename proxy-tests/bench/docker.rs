//! `cargo bench --bench docker [-- --rounds N]`: what a container costs next to
//! a local process, through Argon: how long a suspended branch takes to its first reply, started for it
//! or ahead, and how many commands a second it serves then. docs/docker.md has what came of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argon_admin::types::{Status, WakeBy, WakeTrace};
use bson::{Document, doc};
use futures_util::future::try_join_all;
use mongodb::{Client, Collection};
use proxy_tests::binary;
use proxy_tests::docker::Engine;
use proxy_tests::driver;
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;

/// Documents that are read, one at a time.
const DOCUMENTS: i32 = 1000;
const CLIENTS: usize = 16;
/// Short turns, one after the other: a virtual machine's processor comes and goes.
const TURN: Duration = Duration::from_millis(500);

struct Place {
    name: &'static str,
    /// Where its branch's mongods come from.
    by: WakeBy,
    server: Server,
    uri: String,
    wakes: Vec<f64>,
    reads: Vec<f64>,
    inserts: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut rounds = 15;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            // What `cargo bench` itself adds.
            "--bench" => {}
            "--rounds" => {
                let number = arguments.next().and_then(|text| text.parse().ok());
                rounds = number.context("--rounds is a number")?;
            }
            other => bail!("unknown argument {other}; there is --rounds"),
        }
    }
    println!("measuring {}", binary::argon_release()?.display());
    let Some(engine) = Engine::start("the figures")? else { bail!("there is no engine") };
    let container = || Ok::<_, anyhow::Error>(Setup::new()?.docker(&engine));
    let mut places = [
        place("process", WakeBy::Cold, Setup::new()?).await?,
        place("container", WakeBy::Cold, container()?).await?,
        place("parked process", WakeBy::Parked, Setup::new()?).await?,
        place("parked container", WakeBy::Parked, container()?).await?,
    ];
    for round in 0..rounds {
        for place in &mut places {
            place.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
            place.until_ready().await?;
            // A driver that is connected, as an application's is.
            let client = driver::connect(&place.uri).await?;
            client.database("admin").run_command(doc! { "ping": 1 }).await?;
            let begun = Instant::now();
            things(&client).find_one(doc! { "_id": 1 }).await?;
            place.wakes.push(begun.elapsed().as_secs_f64() * 1000.0);
            let traces: Vec<WakeTrace> =
                place.server.cli().json(&["branch", "wake-trace", "dev"])?;
            ensure!(traces[0].by == place.by, "{}: {:?}", place.name, traces[0]);
        }
        let clients =
            [driver::connect(&places[0].uri).await?, driver::connect(&places[1].uri).await?];
        for turn in 0..4 {
            for index in [turn % 2, 1 - turn % 2] {
                let reads = load(&clients[index], Work::Read).await?;
                let inserts = load(&clients[index], Work::Insert).await?;
                places[index].reads.push(reads);
                places[index].inserts.push(inserts);
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    println!("| | p50 wake, ms | p90 | reads/s | inserts/s |\n| --- | --- | --- | --- | --- |");
    for place in &mut places {
        let wakes = (at(&mut place.wakes, 0.5), at(&mut place.wakes, 0.9));
        let rate = |rates: &mut [f64]| match rates.is_empty() {
            true => String::new(),
            false => format!("{:.0}", at(rates, 0.5)),
        };
        let (reads, inserts) = (rate(&mut place.reads), rate(&mut place.inserts));
        let name = place.name;
        println!("| {name} | {:.0} | {:.0} | {reads} | {inserts} |", wakes.0, wakes.1);
    }
    let [process, container, _, parked] = &mut places;
    println!(
        "container / process: reads {:.3}, inserts {:.3}; wake +{:.0} ms",
        at(&mut container.reads, 0.5) / at(&mut process.reads, 0.5),
        at(&mut container.inserts, 0.5) / at(&mut process.inserts, 0.5),
        at(&mut container.wakes, 0.5) - at(&mut process.wakes, 0.5),
    );
    println!("parked container: wake {:.0} ms", at(&mut parked.wakes, 0.5));
    Ok(())
}

async fn place(name: &'static str, by: WakeBy, setup: Setup) -> Result<Place> {
    let parked = if by == WakeBy::Parked { "1" } else { "0" };
    let server = setup.arguments(&["--parked", parked]).start()?;
    server.project("demo")?;
    let uri = server.branch("dev", &["--empty", "--idle-timeout", "never"])?.uri;
    let client = driver::connect(&uri).await?;
    let documents = (0..DOCUMENTS).map(|number| doc! { "_id": number, "text": "x".repeat(200) });
    things(&client).insert_many(documents).await?;
    Ok(Place { name, by, server, uri, wakes: vec![], reads: vec![], inserts: vec![] })
}

impl Place {
    /// Returns when a mongod is parked, where one is to be.
    async fn until_ready(&self) -> Result<()> {
        let ask = || async {
            let now: Status = self.server.cli().json(&["status"])?;
            let ready = self.by == WakeBy::Cold || now.parked.parked == 1;
            Ok(ready.then_some(()))
        };
        eventually_async("a mongod is parked", ask).await
    }
}

fn things(client: &Client) -> Collection<Document> {
    client.database("demo").collection("things")
}

#[derive(Clone, Copy)]
enum Work {
    Read,
    Insert,
}

/// Commands a second of many clients for one turn.
async fn load(client: &Client, work: Work) -> Result<f64> {
    let begun = Instant::now();
    let one = |seed: i32| async move {
        let (mut count, mut number) = (0_u32, seed);
        while begun.elapsed() < TURN {
            number = (number + 7) % DOCUMENTS;
            match work {
                Work::Read => drop(things(client).find_one(doc! { "_id": number }).await?),
                Work::Insert => {
                    let written = client.database("demo").collection::<Document>("written");
                    drop(written.insert_one(doc! { "number": number }).await?);
                }
            }
            count += 1;
        }
        anyhow::Ok(count)
    };
    let counts = try_join_all((0..CLIENTS as i32).map(one)).await?;
    Ok(f64::from(counts.iter().sum::<u32>()) / begun.elapsed().as_secs_f64())
}

fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
