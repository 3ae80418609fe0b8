//! The figures: medians over the rounds, ratios of places in the same round, and the bars.

use anyhow::Result;
use serde_json::{Value, json};

use crate::idle::Idle;
use crate::scenarios::{MB, Sample, Scenario, Work};

/// Everything that was measured of one scenario: for each place, one sample of each round.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub scenario: Scenario,
    /// Place and samples, in the order of the rounds.
    pub places: Vec<(&'static str, Vec<Sample>)>,
}

/// One of the project's promises.
#[derive(Debug)]
struct Bar {
    figure: String,
    measured: Option<f64>,
    bar: f64,
    /// Whether the figure must be at least the bar, or at most.
    at_least: bool,
}

impl Row {
    fn samples(&self, place: &str) -> Option<&[Sample]> {
        let found = self.places.iter().find(|(name, _)| *name == place);
        found.map(|(_, samples)| &samples[..])
    }

    /// The median over the rounds.
    fn median(&self, place: &str, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples(place)?.iter().map(figure).collect())
    }

    /// The median over the rounds of Argon's figure by HAProxy's, less direct's where it is to be
    /// left out of both.
    fn ratio(&self, less: impl Fn(&Sample) -> f64, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let [direct, haproxy, argon] =
            ["direct", "haproxy", "argon"].map(|place| self.samples(place));
        let rounds = direct?.iter().zip(haproxy?).zip(argon?);
        let ratio = |((direct, haproxy), argon): ((&Sample, &Sample), &Sample)| {
            (figure(argon) - less(direct)) / (figure(haproxy) - less(direct))
        };
        median(rounds.map(ratio).collect())
    }

    fn rate_ratio(&self) -> Option<f64> {
        self.ratio(|_| 0.0, |sample| sample.turn.rate())
    }

    fn print(&self) {
        for (place, samples) in &self.places {
            let of =
                |figure: &dyn Fn(&Sample) -> f64| self.median(place, figure).unwrap_or(f64::NAN);
            let rate = of(&|sample| sample.turn.rate());
            let amount = match self.scenario.is_large() {
                true => format!("{:.0} MB/s", rate * self.scenario.bytes as f64 / MB as f64),
                false => format!("{rate:.0}/s"),
            };
            let quantiles =
                [0.5, 0.99, 0.999].map(|share| of(&|sample| sample.turn.quantile(share)));
            let cpu = of(&|sample| sample.cpu_us.unwrap_or(f64::NAN));
            let cpu = if cpu.is_nan() { String::new() } else { format!("{cpu:.1}") };
            let errors: u64 = samples.iter().map(|sample| sample.turn.errors).sum();
            println!(
                "{:24} {place:8} {amount:>12} {:>9.0} {:>9.0} {:>9.0} {cpu:>9} {errors:>6}",
                self.scenario.name(),
                quantiles[0],
                quantiles[1],
                quantiles[2],
            );
        }
    }

    fn json(&self) -> Value {
        let places = self.places.iter().map(|(place, samples)| {
            let rounds = samples.iter().map(|sample| {
                let turn = &sample.turn;
                json!({
                    "commands_per_s": turn.rate(), "errors": turn.errors,
                    "p50_us": turn.quantile(0.5), "p99_us": turn.quantile(0.99),
                    "p999_us": turn.quantile(0.999), "proxy_cpu_us_per_command": sample.cpu_us,
                })
            });
            (place.to_string(), Value::from(rounds.collect::<Vec<_>>()))
        });
        json!({
            "scenario": self.scenario.name(), "clients": self.scenario.clients,
            "document_bytes": self.scenario.bytes,
            "rounds": places.collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let (half, odd) = (figures.len() / 2, figures.len() % 2 == 1);
    match figures.len() {
        0 => None,
        _ if odd => Some(figures[half]),
        _ => Some((figures[half - 1] + figures[half]) / 2.0),
    }
}

fn bars(rows: &[Row], idle: &[Idle]) -> Vec<Bar> {
    let find = |bytes_large: bool, clients| {
        rows.iter().find(move |row| {
            let Scenario { work, bytes, clients: some } = row.scenario;
            let size = if bytes_large { bytes == MB } else { !row.scenario.is_large() };
            work == Work::Find && size && some == clients
        })
    };
    let at_least =
        |figure: &str, measured, bar| Bar { figure: figure.into(), measured, bar, at_least: true };
    let at_most =
        |figure: &str, measured, bar| Bar { at_least: false, ..at_least(figure, measured, bar) };
    let p50 = |sample: &Sample| sample.turn.quantile(0.5);
    let p99 = |sample: &Sample| sample.turn.quantile(0.99);
    let rate = |large, clients| find(large, clients).and_then(Row::rate_ratio);
    let alone = find(false, 1).and_then(|row| row.ratio(p50, p50));
    let crowded = find(false, 64).and_then(|row| row.ratio(|_| 0.0, p99));
    let of_argon = |figure: &dyn Fn(&Idle) -> f64, state: &str| {
        let rows = idle.iter().filter(|row| row.place == "argon" && row.state.contains(state));
        rows.map(figure).max_by(f64::total_cmp)
    };
    vec![
        at_least("throughput, 16 clients, Argon / HAProxy", rate(false, 16), 1.1),
        at_least("throughput, 64 clients, Argon / HAProxy", rate(false, 64), 1.1),
        at_most("latency added to p50, 1 client, Argon / HAProxy", alone, 0.9),
        at_most("p99, 64 clients, Argon / HAProxy", crowded, 0.7),
        at_least("throughput, 1 MB documents, Argon / HAProxy", rate(true, 1), 1.3),
        at_most("memory of an idle client, bytes", of_argon(&|row| row.bytes_each, ""), 4096.0),
        at_most("CPU of idle clients, asleep, %", of_argon(&|row| row.cpu_percent, "asleep"), 1.0),
    ]
}

/// Prints all of it, and gives it as JSON.
pub fn report(rows: &[Row], idle: &[Idle]) -> Result<Value> {
    println!(
        "\n{:24} {:8} {:>12} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "", "", "throughput", "p50 us", "p99 us", "p99.9 us", "cpu us", "errors"
    );
    rows.iter().for_each(Row::print);
    println!(
        "\n{:28} {:8} {:>8} {:>12} {:>8}",
        "idle clients", "", "clients", "bytes each", "cpu %"
    );
    for row in idle {
        let Idle { place, state, clients, bytes_each, cpu_percent } = row;
        println!("{state:28} {place:8} {clients:>8} {bytes_each:>12.0} {cpu_percent:>8.2}");
    }
    println!("\n{:50} {:>10} {:>10}", "bar", "to reach", "measured");
    let bars = bars(rows, idle);
    for Bar { figure, measured, bar, at_least } in &bars {
        let sign = if *at_least { ">=" } else { "<=" };
        let shown = measured.map_or("-".to_owned(), |measured| format!("{measured:.2}"));
        let met =
            measured.map(|measured| if *at_least { measured >= *bar } else { measured <= *bar });
        let verdict = met.map_or("not measured", |met| if met { "met" } else { "MISSED" });
        println!("{figure:50} {sign} {bar:>7} {shown:>10}  {verdict}");
    }
    let bars: Vec<Value> = bars.iter().map(|bar| {
        json!({ "figure": bar.figure, "bar": bar.bar, "at_least": bar.at_least, "measured": bar.measured })
    }).collect();
    let idle: Vec<Value> = idle
        .iter()
        .map(|row| {
            json!({
                "place": row.place, "state": row.state, "clients": row.clients,
                "resident_bytes_each": row.bytes_each, "cpu_percent": row.cpu_percent,
            })
        })
        .collect();
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    Ok(json!({ "scenarios": rows, "idle": idle, "bars": bars }))
}
