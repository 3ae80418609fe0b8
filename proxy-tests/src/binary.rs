//! The binary under test, built if it is not up to date.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::machine;
use crate::programs::Program;

/// Names a binary that is built already, so that it is not built again.
pub const BINARY: &str = "ARGON_BINARY";

/// The `argon` to test: what ARGON_BINARY names, else what cargo builds, once for this process.
///
/// # Panics
/// When it cannot be built: then there is nothing to test.
pub fn argon() -> &'static Path {
    FOUND.get_or_init(|| match std::env::var_os(BINARY) {
        Some(path) => path.into(),
        None => build().expect("`argon` can be built"),
    })
}

/// The `argon` to measure: what ARGON_BINARY names, else what cargo builds for release. From here
/// on [`argon`] gives it too.
pub fn argon_release() -> Result<&'static Path> {
    let path = match std::env::var_os(BINARY) {
        Some(path) => path.into(),
        None => cargo_build(&["--release", "--package", "argon"])?,
    };
    Ok(FOUND.get_or_init(|| path))
}

static FOUND: OnceLock<PathBuf> = OnceLock::new();

/// The cargo that runs this, else the one on PATH.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(machine::repository());
    command
}

/// Builds `argon` and gives its path.
///
/// Built with the whole workspace's features, as `cargo test --workspace` builds it: otherwise
/// each of the two would throw out what the other one built.
pub fn build() -> Result<PathBuf> {
    cargo_build(&["--workspace"])
}

/// The same, and all test programs along with it: for those several libraries have more features, and on an
/// empty `target` the one after the other would build most of the libraries twice.
pub fn build_with_tests() -> Result<(PathBuf, Vec<Program>)> {
    let messages = cargo_messages(&["--workspace", "--tests"])?;
    let mut programs: Vec<_> = messages.iter().filter_map(Program::of).collect();
    // Cargo names them as they were built. The unit tests take longest: they begin.
    programs.sort_by_key(|program| (!program.is_unit_tests(), program.name.clone()));
    Ok((executable(&messages)?, programs))
}

fn cargo_build(which: &[&str]) -> Result<PathBuf> {
    executable(&cargo_messages(which)?)
}

/// What cargo says that it built.
fn cargo_messages(which: &[&str]) -> Result<Vec<Value>> {
    let output = cargo()
        .args(["build", "--quiet", "--bin", "argon"])
        .args(which)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    if !output.status.success() {
        bail!("`cargo build --bin argon` ended with {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("read cargo's messages")?;
    Ok(messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn executable(messages: &[Value]) -> Result<PathBuf> {
    let is_ours = |message: &&Value| {
        let target = &message["target"];
        target["name"] == "argon"
            && target["kind"][0] == "bin"
            && message["profile"]["test"] != true
    };
    let executable = messages
        .iter()
        .filter(is_ours)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.context("cargo names no executable")
}
