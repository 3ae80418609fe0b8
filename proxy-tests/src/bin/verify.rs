//! `cargo verify`: everything that must hold before a change is taken, in the order in which it
//! fails fastest. `.ci/run` calls this and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use proxy_tests::binary::{self, cargo};
use proxy_tests::buckets;
use proxy_tests::docker;
use proxy_tests::drivers;
use proxy_tests::machine::{self, is_ci, python_packages, succeeds, target};
use proxy_tests::programs::{self, Program};
use proxy_tests::steps::readable;

/// Test programs that run at once, and tests of each unless the harness is told otherwise. On two cores all of
/// them take 971 s so; one program at a time, of four tests at once, 1,245 s.
const PROGRAMS_AT_ONCE: usize = 2;
const TESTS_AT_ONCE: &str = "3";
/// Where the harness is told.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!("Usage: cargo verify\n\nRuns every check and every test. Takes no arguments.");
        return ExitCode::from(2);
    }
    let started = Instant::now();
    let mut report = Report::default();
    report.step("format", format);
    report.step("clippy, warnings denied", clippy);
    let mut tests = Tests::default();
    if let Some((argon, programs)) = report.step("build the binary and the tests", built) {
        report.step("a mongod to run branches on", || mongod(&argon));
        report.step("PyMongo", pymongo);
        report.step("moto, an S3 server", moto);
        report.step("s3s-fs, another", s3s_fs);
        report.step("drivers of other languages", || drivers::install().map(Done::Ran));
        let engine = report.step("a Docker engine", docker_engine);
        report.step("tests", || run_tests(&argon, programs, engine.as_ref(), &mut tests));
    }
    for line in &tests.not_run {
        println!("{line}");
    }
    println!(
        "\n{} tests ran, {} failed, {} could not run on this machine; {} in all",
        tests.passed + tests.failed,
        tests.failed,
        tests.not_run.len() + report.not_run.len(),
        readable(started.elapsed())
    );
    if report.failed.is_empty() {
        println!("verify: everything holds");
        return ExitCode::SUCCESS;
    }
    println!("verify: FAILED: {}", report.failed.join("; "));
    ExitCode::FAILURE
}

/// What became of the steps.
#[derive(Default)]
struct Report {
    failed: Vec<String>,
    not_run: Vec<String>,
}

/// What became of a step that did not fail.
enum Done<T> {
    Ran(T),
    /// This machine lacks what it needs.
    NotRun(String),
}

impl Report {
    fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<Done<T>>) -> Option<T> {
        println!("== {name}");
        let started = Instant::now();
        let result = work();
        let took = readable(started.elapsed());
        match result {
            Ok(Done::Ran(value)) => {
                println!("== {name}: ok, {took}\n");
                Some(value)
            }
            Ok(Done::NotRun(why)) => {
                println!("== {name}: NOT RUN on this machine: {why}\n");
                if is_ci() {
                    self.failed.push(format!("{name} (not run, and CI=true)"));
                }
                self.not_run.push(name.to_owned());
                None
            }
            Err(e) => {
                println!("== {name}: FAILED after {took}: {e:#}\n");
                self.failed.push(name.to_owned());
                None
            }
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn format() -> Result<Done<()>> {
    if !succeeds(cargo().args(["fmt", "--version"])) {
        return Ok(Done::NotRun("no rustfmt: `rustup component add rustfmt`".into()));
    }
    run(cargo().args(["fmt", "--all", "--check"])).map(Done::Ran)
}

fn clippy() -> Result<Done<()>> {
    if !succeeds(cargo().args(["clippy", "--version"])) {
        return Ok(Done::NotRun("no clippy: `rustup component add clippy`".into()));
    }
    let mut command = cargo();
    command.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    run(&mut command).map(Done::Ran)
}

fn built() -> Result<Done<(PathBuf, Vec<Program>)>> {
    binary::build_with_tests().map(Done::Ran)
}

fn mongod(argon: &Path) -> Result<Done<()>> {
    run(Command::new(argon).args(["mongod", "install"])).map(Done::Ran)
}

fn pymongo() -> Result<Done<()>> {
    let there = "import pymongo, sys; sys.exit(not pymongo.version.startswith('4.20.'))";
    python_package(&["pymongo==4.20.*"], there)
}

/// Only what its S3 needs: all of moto's own dependencies are three times as much.
fn moto() -> Result<Done<()>> {
    let version = buckets::MOTO;
    let there = format!("import moto, flask, flask_cors; assert moto.__version__ == '{version}'");
    let moto = format!("moto[s3]=={version}");
    python_package(&[&moto, "flask==3.1.*", "flask-cors==6.0.*"], &there)
}

/// Into a folder of its own with `--target`: that needs no venv (a package of its own on Debian),
/// and is allowed where the system's Python is managed by its package manager.
fn python_package(wanted: &[&str], there: &str) -> Result<Done<()>> {
    let packages = python_packages();
    if !succeeds(Command::new("python3").arg("--version")) {
        return Ok(Done::NotRun("no python3: `apt-get install python3 python3-pip`".into()));
    }
    let mut check = Command::new("python3");
    if succeeds(check.args(["-c", there]).env("PYTHONPATH", &packages)) {
        println!("{} is in {}", wanted.join(", "), packages.display());
        return Ok(Done::Ran(()));
    }
    let pips = [&["python3", "-m", "pip"][..], &["pip3"], &["pip"]];
    let works = |pip: &&&[&str]| succeeds(Command::new(pip[0]).args(&pip[1..]).arg("--version"));
    let Some(pip) = pips.iter().find(works) else {
        return Ok(Done::NotRun("no pip: `apt-get install python3-pip`".into()));
    };
    let mut install = Command::new(pip[0]);
    install.args(&pip[1..]).args(["install", "--quiet", "--disable-pip-version-check"]);
    // An environment variable, since an older pip refuses options that it does not know.
    install.env("PIP_ROOT_USER_ACTION", "ignore");
    install.args(["--upgrade", "--target"]).arg(&packages).args(wanted);
    run(&mut install).map(Done::Ran)
}

fn s3s_fs() -> Result<Done<()>> {
    buckets::S3S_FS.install()?;
    println!("s3s-fs {} is in {}", buckets::S3S_FS.version, buckets::S3S_FS.root().display());
    Ok(Done::Ran(()))
}

/// One for the unit tests. End-to-end tests start their own, to restart and to kill it.
fn docker_engine() -> Result<Done<docker::Engine>> {
    docker::install()?;
    if let Some(why) = docker::missing() {
        return Ok(Done::NotRun(why));
    }
    Ok(match docker::Engine::start("tests in containers")? {
        Some(engine) => Done::Ran(engine),
        None => Done::NotRun("it does not start".into()),
    })
}

/// What the test harness said, summed up.
#[derive(Default)]
struct Tests {
    passed: u64,
    failed: u64,
    not_run: Vec<String>,
}

fn run_tests(
    argon: &Path,
    programs: Vec<Program>,
    engine: Option<&docker::Engine>,
    tests: &mut Tests,
) -> Result<Done<()>> {
    let notes = target().join("tests-not-run");
    if notes.exists() {
        fs::remove_file(&notes).context("remove the notes of the last run")?;
    }
    let mongod = installed_mongod(argon)?;
    let prepare = |command: &mut Command| {
        command.env(machine::NOT_RUN_FILE, &notes).env(binary::BINARY, argon);
        if let Some(mongod) = &mongod {
            command.env("ARGON_MONGOD", mongod);
        }
        if std::env::var_os(TEST_THREADS).is_none() {
            command.env(TEST_THREADS, TESTS_AT_ONCE);
        }
        if let Some(engine) = engine {
            command.env(docker::SOCKET, engine.socket()).env(docker::IMAGE_NAME, docker::IMAGE);
        }
    };
    let outputs = target().join("tests-output");
    println!("{} programs; what each says is in {} meanwhile", programs.len(), outputs.display());
    let mut failed = Vec::new();
    let ran = programs::run(programs, PROGRAMS_AT_ONCE, &outputs, prepare, |outcome| {
        println!("\n-- {}: {}, {}", outcome.name, outcome.status, readable(outcome.took));
        println!("{}", outcome.output.trim());
        for line in outcome.output.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                tests.passed += number_before(result, "passed")?;
                tests.failed += number_before(result, "failed")?;
            }
        }
        if !outcome.status.success() {
            failed.push(outcome.name);
        }
        Ok(())
    });
    tests.not_run = fs::read_to_string(notes).unwrap_or_default().lines().map(Into::into).collect();
    ran?;
    ensure!(failed.is_empty(), "{} failed, in {}", tests.failed, failed.join(", "));
    ensure!(tests.passed > 0, "not one test ran");
    Ok(Done::Ran(()))
}

/// Unit tests and end-to-end tests use the same mongod.
fn installed_mongod(argon: &Path) -> Result<Option<PathBuf>> {
    let mut command = Command::new(argon);
    let output = command.args(["mongod", "which"]).stderr(Stdio::inherit()).output();
    let output = output.context("start argon mongod which")?;
    let path = OsStr::from_bytes(output.stdout.trim_ascii());
    Ok(output.status.success().then(|| path.into()))
}

/// The 12 of `ok. 12 passed; 0 failed; …`.
fn number_before(text: &str, word: &str) -> Result<u64> {
    let before = text.split_once(&format!(" {word}")).map(|(before, _)| before);
    let number = before.and_then(|before| before.rsplit(' ').next()?.parse().ok());
    number.with_context(|| format!("no number of {word} in `{text}`"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_harness_line_is_read() {
        let line = "FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out";
        assert_eq!(super::number_before(line, "passed").unwrap(), 12);
        assert_eq!(super::number_before(line, "failed").unwrap(), 3);
        assert!(super::number_before("ok.", "passed").is_err());
    }
}
