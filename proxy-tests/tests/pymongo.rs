//! PyMongo, from PyPI and unchanged, goes through the demo scenario.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use argon_admin::types::{BranchState, Version};
use proxy_tests::machine::{cannot_run, python_packages, succeeds};
use proxy_tests::server::Server;
use serde_json::{Value, json};

/// A running `pymongo_scenario.py`: one process, one client.
struct PyMongo {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl PyMongo {
    fn start(uri: &str) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/drivers/pymongo_scenario.py");
        let mut child = Command::new("python3")
            .args([script, uri])
            .env("PYTHONPATH", python_packages())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start python3")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    fn ask(&mut self, step: &str) -> Result<Value> {
        writeln!(self.stdin, "{step}").with_context(|| format!("ask PyMongo to {step}"))?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "PyMongo failed at `{step}`; its error stands above");
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for PyMongo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Says aloud where it is not.
fn is_there() -> bool {
    let mut import = Command::new("python3");
    let there =
        succeeds(import.args(["-c", "import pymongo"]).env("PYTHONPATH", python_packages()));
    if !there {
        cannot_run("PyMongo", "it is not installed; `cargo verify` does that with python3 and pip");
    }
    there
}

/// By a URI that says there is a load balancer, by the branch's own port, and by its own socket.
#[test]
fn pymongo_takes_the_other_ways_to_a_branch() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let server = Server::start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    let cli = server.cli();
    let [port, socket] = ["port", "socket"].map(|door| cli.run(&["branch", door, "dev"]));
    let uris = [
        format!("{}&loadBalanced=true", dev.uri),
        format!("{}?appName=mongodump", port?),
        format!("{}?appName=mongorestore", socket?),
    ];
    let mut expected = Vec::new();
    for (number, uri) in uris.iter().enumerate() {
        let mut python = PyMongo::start(uri)?;
        for text in ["before", "after"] {
            let text = format!("{text}-{number}");
            python.ask(&format!("insert {text}"))?;
            expected.push(json!(text));
            cli.run(&["branch", "suspend", "--wait", "dev"])?;
            assert_eq!(python.ask("changes")?, json!(expected), "{uri}");
        }
    }
    let mut python = PyMongo::start(&uris[0])?;
    assert_eq!(python.ask("transaction in-a-transaction")?, 1);
    Ok(())
}

#[test]
fn pymongo_goes_through_the_scenario() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let server = Server::start()?;
    let cli = server.cli();
    server.project("demo")?;
    let dev = server.branch("dev", &[])?;
    let mut python = PyMongo::start(&dev.uri)?;
    let version = python.ask("version")?;
    ensure!(version.as_str().is_some_and(|text| text.starts_with("4.")), "{version}");

    let base = python.ask("base")?;
    let documents: u64 =
        base.as_object().context("no object")?.values().filter_map(Value::as_u64).sum();
    ensure!(documents > 0, "the base is empty: {base}");
    python.ask("insert first change")?;
    cli.run(&["branch", "suspend", "--wait", "dev"])?;
    assert_eq!(server.show("dev")?.state, BranchState::Suspended);
    python.ask("insert second change")?;
    assert_eq!(python.ask("changes")?, json!(["first change", "second change"]));
    cli.run(&["branch", "suspend", "--wait", "dev"])?;

    let versions: Vec<Version> = cli.json(&["branch", "list-versions", "dev"])?;
    let [_start, first, _second] = &versions[..] else { panic!("{versions:?}") };
    let travel = ["branch", "time-travel", "dev-v1", "--from-branch", "dev", "--timestamp"];
    cli.run(&[&travel[..], &[&first.created_at]].concat())?;
    let old = server.show("dev-v1")?.uri;
    assert_eq!(python.ask(&format!("elsewhere {old}"))?, json!(["first change"]));
    assert_eq!(python.ask("changes")?, json!(["first change", "second change"]));
    assert_eq!(python.ask("transaction third change")?, 1);
    for branch in ["dev", "dev-v1"] {
        cli.run(&["branch", "delete", branch])?;
    }
    Ok(())
}
