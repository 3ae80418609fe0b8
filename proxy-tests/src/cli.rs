//! The command line, as users run it.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::binary::argon;

/// Runs `argon …` against one server.
#[derive(Clone, Debug)]
pub struct Cli {
    server: String,
}

/// A command that failed, as it should have.
#[derive(Debug)]
pub struct Failure {
    /// Its exit code.
    pub code: i32,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Cli {
    /// For the server with this URL.
    pub fn new(server: &str) -> Self {
        Self { server: server.to_owned() }
    }

    /// Runs a command, whatever comes of it.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(argon())
            .args(arguments)
            .env("ARGON_SERVER", &self.server)
            .env_remove("ARGON_PROJECT")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start argon {}", arguments.join(" ")))
    }

    /// Runs a command that must succeed, and gives its stdout without the last line break.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!(
                "`argon {}`: {}\n{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let stdout = String::from_utf8(output.stdout).context("stdout is UTF-8")?;
        Ok(stdout.strip_suffix('\n').unwrap_or(&stdout).to_owned())
    }

    /// Runs a command that must succeed with `--json`, and reads what it prints.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.run(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("read what `argon {}` prints: {text}", arguments.join(" ")))
    }

    /// Runs a command that must fail.
    pub fn fail(&self, arguments: &[&str]) -> Result<Failure> {
        let output = self.output(arguments)?;
        let text = |bytes| String::from_utf8(bytes).context("output is UTF-8");
        if output.status.success() {
            bail!("`argon {}` succeeded: {}", arguments.join(" "), text(output.stdout)?);
        }
        let code = output.status.code().context("ended by a signal")?;
        Ok(Failure { code, stdout: text(output.stdout)?, stderr: text(output.stderr)? })
    }
}
