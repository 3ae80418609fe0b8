//! `cargo bench --bench proxy`: what Argon's proxy costs, next to no proxy and to HAProxy, on one mongod.
//!
//! `-- --quick` shows in half a minute that everything runs; its figures are noise.
//! `--only TEXT` measures the scenarios whose names hold the text, and no idle clients;
//! `--idle N` takes another number of these.
//! docs/performance.md says what is measured and what came of it.

mod idle;
mod load;
mod messages;
mod places;
mod process;
mod report;
mod scenarios;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proxy_tests::{binary, machine};

use idle::Watch;
use places::{Place, Places};
use report::{Row, report};
use scenarios::Scenario;

/// How much is measured.
struct Effort {
    rounds: usize,
    turn: Duration,
    idle: Watch,
    only: Option<String>,
}

/// Many short rounds rather than a few long ones: on a virtual machine the host takes the processor
/// away in bursts, which then spoil some of the ratios and not the median of all.
const FULL: Effort = Effort {
    rounds: 31,
    turn: Duration::from_millis(150),
    idle: Watch { clients: 10_000, lasts: Duration::from_secs(10) },
    only: None,
};

const QUICK: Effort = Effort {
    rounds: 1,
    turn: Duration::from_millis(150),
    idle: Watch { clients: 300, lasts: Duration::from_secs(1) },
    only: None,
};

fn main() -> Result<()> {
    let effort = effort(std::env::args().skip(1))?;
    let argon = binary::argon_release()?;
    println!("measuring {}", argon.display());
    let places = Places::start()?;
    let mut rows = rows(&places.all, effort.only.as_deref());
    for round in 0..effort.rounds {
        println!("round {} of {}", round + 1, effort.rounds);
        for row in &mut rows {
            turns(row, &places.all, round, effort.turn)?;
        }
    }
    let idle = match effort.only {
        None => idle::measure(&places, effort.idle)?,
        Some(_) => Vec::new(),
    };
    let json = report(&rows, &idle)?;
    let path = machine::target().join("bench-proxy.json");
    fs::write(&path, format!("{json:#}\n")).with_context(|| format!("write {}", path.display()))?;
    println!("\nall rounds: {}", path.display());
    let errors = rows.iter().flat_map(|row| &row.places).flat_map(|(_, samples)| samples);
    let errors: u64 = errors.map(|sample| sample.turn.errors).sum();
    ensure!(errors == 0, "{errors} replies were not what they should be");
    Ok(())
}

fn effort(mut arguments: impl Iterator<Item = String>) -> Result<Effort> {
    let mut effort = FULL;
    while let Some(argument) = arguments.next() {
        match &*argument {
            // What `cargo bench` itself adds.
            "--bench" => {}
            "--quick" => effort = Effort { only: effort.only, ..QUICK },
            "--idle" => {
                let number = arguments.next().context("--idle needs a number")?;
                effort.idle.clients = number.parse().context("--idle needs a number")?;
            }
            "--only" => effort.only = Some(arguments.next().context("--only needs a text")?),
            _ => bail!("`{argument}` is none of --quick, --only TEXT and --idle N"),
        }
    }
    Ok(effort)
}

fn rows(places: &[Place], only: Option<&str>) -> Vec<Row> {
    let wanted = |scenario: &Scenario| only.is_none_or(|text| scenario.name().contains(text));
    let empty = |scenario| Row {
        scenario,
        places: places.iter().map(|place| (place.name, Vec::new())).collect(),
    };
    scenarios::all().into_iter().filter(wanted).map(empty).collect()
}

/// One turn in each place; each round begins with another, so that none is always the one after
/// the busiest.
fn turns(row: &mut Row, places: &[Place], round: usize, lasts: Duration) -> Result<()> {
    let scenario = row.scenario;
    for turn in 0..places.len() {
        let number = (turn + round) % places.len();
        let place = &places[number];
        scenario.prepare(&places[0])?;
        let sample = scenario.run(place, lasts);
        let sample = sample.with_context(|| format!("{}, {}", scenario.name(), place.name))?;
        row.places[number].1.push(sample);
    }
    Ok(())
}
