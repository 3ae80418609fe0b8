//! Drivers of many languages, old and new, unchanged: what each sees when its branch is suspended
//! under it. The table is `docs/drivers.md`; `ARGON_WRITE_DOCS=1` writes it anew, and
//! `ARGON_DRIVERS=go,ruby` runs only those.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use proxy_tests::drivers::{DRIVERS, Driver, Row, complaints, document, lines_of};
use proxy_tests::machine::{cannot_run, repository};
use proxy_tests::server::Server;

/// How many run at once: each waits for its branch most of the time.
const AT_ONCE: usize = 2;

fn wanted() -> VecDeque<&'static Driver> {
    let named = std::env::var("ARGON_DRIVERS").unwrap_or_default();
    let chosen =
        |driver: &&Driver| named.is_empty() || named.split(',').any(|name| name == driver.key);
    let mut wanted = VecDeque::new();
    for driver in DRIVERS.iter().filter(chosen) {
        match driver.missing() {
            Some(why) => cannot_run(driver.name, &why),
            None => wanted.push_back(driver),
        }
    }
    wanted
}

#[test]
fn drivers_keep_their_connections_when_their_branch_is_suspended() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let waiting = Mutex::new(wanted());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(driver) = waiting.lock().unwrap().pop_front() else { break };
            let row = driver.play(&server).with_context(|| format!("{} failed", driver.name));
            done.lock().unwrap().push(row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let mut failures = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for row in done.into_inner()? {
        match row {
            Ok(row) => {
                println!("{}\t{}\t{:?}", row.driver.name, row.version, row.cells);
                failures.extend(complaints(&row));
                rows.push(row);
            }
            Err(e) => failures.push(format!("{e:#}")),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    rows.sort_by_key(|row| row.driver.name.to_lowercase());
    compare(&rows)
}

/// The page's cells must be those that were measured. Its versions may be another machine's.
fn compare(rows: &[Row]) -> Result<()> {
    let page = repository().join("docs/drivers.md");
    if std::env::var_os("ARGON_WRITE_DOCS").is_some() {
        ensure!(rows.len() == DRIVERS.len(), "the page needs every driver");
        return fs::write(&page, document(rows)).context("write docs/drivers.md");
    }
    let committed = fs::read_to_string(&page).context("read docs/drivers.md")?;
    for row in rows {
        for line in lines_of(row) {
            ensure!(
                committed.lines().any(|found| found == line),
                "docs/drivers.md lacks the line\n{line}\nARGON_WRITE_DOCS=1 writes it anew"
            );
        }
    }
    // Nor does it speak of drivers that are none any more, or keep words of an older version.
    if rows.len() == DRIVERS.len() {
        let versions = |text: &str| {
            let end = text.find("## On a branch").unwrap_or_default();
            text[end..].to_owned()
        };
        ensure!(
            versions(&committed) == versions(&document(rows)),
            "docs/drivers.md is out of date: ARGON_WRITE_DOCS=1 writes it anew"
        );
    }
    Ok(())
}
