//! What operators see: /metrics and its manual, and how long a wake took.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use argon_admin::types::BranchState;
use proxy_tests::driver;
use proxy_tests::machine::repository;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::Server;
use proxy_tests::wait::eventually_async;

fn scrape(server: &Server) -> Result<String> {
    let mut stream = TcpStream::connect(&server.admin)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let answer = std::io::read_to_string(stream)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    ensure!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    Ok(body.to_owned())
}

/// A metric as the manual and the server both describe it.
#[derive(Debug, Default, PartialEq)]
struct Metric {
    kind: String,
    /// Each label with its values.
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn served(text: &str) -> Result<BTreeMap<String, Metric>> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').context("no type")?;
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').context("no value")?.0;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let metric = metrics.get_mut(base.unwrap_or(name)).context("no type")?;
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
            for (label, value) in labels.filter_map(|label| label.split_once('=')) {
                if label != "le" {
                    let values = metric.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    Ok(metrics)
}

/// The table of docs/metrics.md: name, type, labels as `label`: `a`, `b`, unit, meaning.
fn documented() -> Result<BTreeMap<String, Metric>> {
    let text = fs::read_to_string(repository().join("docs/metrics.md"))?;
    let mut metrics = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `argon_")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, unit, meaning] = cells[..] else { panic!("{line}") };
        ensure!(!unit.is_empty() && !meaning.is_empty(), "{line}");
        let ticked = |text: &str| text.trim_matches('`').to_owned();
        let mut metric = Metric { kind: kind.to_owned(), ..Metric::default() };
        if let Some((label, values)) = labels.split_once(": ") {
            metric.labels.insert(ticked(label), values.split(", ").map(ticked).collect());
        }
        ensure!(metrics.insert(ticked(name), metric).is_none(), "{name} twice");
    }
    Ok(metrics)
}

/// The value of a series.
fn value(text: &str, series: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {series} in\n{text}"))?.parse()?)
}

#[test]
fn every_metric_is_in_the_manual_and_the_other_way_round() -> Result<()> {
    let server = Server::start()?;
    let served = served(&scrape(&server)?)?;
    assert!(served.len() >= 9, "{served:?}");
    assert_eq!(served, documented()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted_and_a_wake_tells_its_phases() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    assert_eq!(dev.last_wake, None);
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "one").await?;
    let text = scrape(&server)?;
    for (series, least) in [
        ("argon_connections{state=\"front\"}", 1.0),
        ("argon_connections{state=\"back\"}", 1.0),
        ("argon_commands_total{class=\"work\"}", 1.0),
        ("argon_commands_total{class=\"local\"}", 1.0),
        ("argon_wakes_total{outcome=\"done\"}", 1.0),
        ("argon_wake_phase_seconds_count{phase=\"queue\"}", 1.0),
        ("argon_wake_phase_seconds_count{phase=\"restore\"}", 1.0),
        ("argon_wake_phase_seconds_count{phase=\"mongod_start\"}", 1.0),
        ("argon_wake_phase_seconds_count{phase=\"primary\"}", 1.0),
        ("argon_wake_phase_seconds_count{phase=\"attach\"}", 1.0),
        ("argon_wake_phase_seconds_sum{phase=\"mongod_start\"}", 0.01),
        ("argon_added_seconds_count{step=\"request\"}", 1.0),
        ("argon_added_seconds_count{step=\"reply\"}", 1.0),
        ("argon_received_bytes_total", 300.0),
        ("argon_sent_bytes_total", 300.0),
        ("argon_branches{state=\"running\"}", 1.0),
    ] {
        let found = value(&text, series)?;
        assert!(found >= least, "{series} is {found}");
    }
    // The wake is no time that the proxy adds.
    let held = value(&text, "argon_added_seconds_sum{step=\"request\"}")?;
    let started = value(&text, "argon_wake_phase_seconds_sum{phase=\"mongod_start\"}")?;
    assert!(held < started / 2.0, "{held} of {started}");
    assert_eq!(value(&text, "argon_suspends_total{outcome=\"done\"}")?, 0.0);

    let wake = server.show("dev")?.last_wake.context("no wake is shown")?;
    assert!(wake.mongod_start_ms > 0 && wake.attach_ms.is_some(), "{wake:?}");
    let shown = server.cli().run(&["branch", "show", "dev"])?;
    assert!(shown.contains("mongod start "), "{shown}");
    let lines = |log: String| log.lines().filter(|line| line.contains(" awake ")).count();
    assert_eq!(lines(server.log()), 1, "{}", server.log());
    for phase in ["restore_ms=", "queue_ms=", "mongod_start_ms=", "primary_ms=", "attach_ms="] {
        let told = |line: &str| line.contains(" awake ") && line.contains(phase);
        assert!(server.log().lines().any(told), "{phase} in {}", server.log());
    }

    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let text = scrape(&server)?;
    assert_eq!(value(&text, "argon_suspends_total{outcome=\"done\"}")?, 1.0);
    assert_eq!(value(&text, "argon_branches{state=\"suspended\"}")?, 1.0);
    assert_eq!(value(&text, "argon_connections{state=\"parked\"}")?, 0.0);
    // Nobody's command: told at once, without the last phase.
    server.cli().run(&["branch", "resume", "dev"])?;
    assert_eq!(lines(server.log()), 2);
    let dev = server.show("dev")?;
    assert_eq!(dev.state, BranchState::Running);
    assert_eq!(dev.last_wake.context("no wake is shown")?.attach_ms, None);
    assert_eq!(changes(&client).await?, ["one"]);
    assert_eq!(lines(server.log()), 2);
    Ok(())
}

/// Its data is in the store and its head cannot be moved: that is one failure, and not two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspend_that_fails_at_its_end_is_counted_once() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "one").await?;
    let store = server.data_dir().join("store");
    let (heads, away) = (store.join("heads"), store.join("heads-away"));
    fs::rename(&heads, &away)?;
    // Not missing, but not to be read either.
    std::os::unix::fs::symlink("heads", &heads)?;
    // On a lazy mount it sleeps before that, on a plain directory it fails by it.
    server.cli().run(&["branch", "suspend", "dev"]).ok();
    let failed = "argon_suspends_total{outcome=\"failed\"}";
    let counted =
        || async { Ok(Some(value(&scrape(&server)?, failed)?).filter(|count| *count > 0.0)) };
    // The next try comes seconds later.
    assert_eq!(eventually_async("the failure is counted", counted).await?, 1.0);
    fs::remove_file(&heads)?;
    fs::rename(&away, &heads)?;
    server.until("dev", |branch| branch.state == BranchState::Suspended).await?;
    assert_eq!(changes(&client).await?, ["one"]);
    Ok(())
}
