//! A driver's program while it runs: a child process that speaks lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context, Result, bail, ensure};

use super::cells::Row;
use super::list::{Driver, folder};
use crate::server::Server;
use crate::wait::PATIENCE;

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    log: PathBuf,
}

/// What a program says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its driver's version and its language's.
    Version(String),
    /// Let the branch be suspended, then answer with [`Program::go_on`].
    Suspend,
    /// A cell's name and what came of it.
    Cell(String, String),
}

impl Program {
    /// Starts a command with the branch's URI and the same without retries. `key` names its log.
    pub fn start(mut command: Command, key: &str, uri: &str) -> Result<Self> {
        let log = folder(key)?.join("stderr");
        let plain = format!("{uri}&retryReads=false&retryWrites=false");
        let mut child = command
            .args([uri, &plain])
            // For mongosh, which takes arguments for files.
            .env("ARGON_URIS", format!("{uri} {plain}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("make the log")?)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let (sender, lines) = mpsc::channel();
        // A thread, for a pipe can only be read without a deadline. It ends with the program.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines, log })
    }

    /// The next line that is one of the protocol's; `None` when the program ended as it should.
    pub fn line(&mut self) -> Result<Option<Line>> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(text) => {
                    if let Some(line) = Line::read(&text) {
                        return Ok(Some(line));
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the program says nothing for {PATIENCE:?}; {}", self.said());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("wait for the program")?;
                    ensure!(status.success(), "the program ended with {status}; {}", self.said());
                    return Ok(None);
                }
            }
        }
    }

    /// Answers [`Line::Suspend`].
    pub fn go_on(&mut self) -> Result<()> {
        writeln!(self.stdin, "done").with_context(|| format!("answer; {}", self.said()))
    }

    fn said(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        format!("on stderr it said: {}", String::from_utf8_lossy(&said))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Line {
    /// Reads a line; tools print others between.
    fn read(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "VERSION" => Some(Self::Version(rest.to_owned())),
            "SUSPEND" => Some(Self::Suspend),
            "CELL" => {
                let (name, result) = rest.split_once(' ').unwrap_or((rest, ""));
                Some(Self::Cell(name.to_owned(), result.to_owned()))
            }
            _ => None,
        }
    }
}

impl Driver {
    /// Runs the driver's program on a branch of its own, and suspends that whenever it asks.
    pub fn play(&'static self, server: &Server) -> Result<Row> {
        let name = format!("drv-{}", self.key);
        let branch = server.branch(&name, &["--empty"])?;
        let mut program = Program::start(self.program()?, self.key, &branch.uri)?;
        let mut row = Row { driver: self, version: String::new(), cells: Vec::new() };
        let mut lives = 1;
        while let Some(line) = program.line()? {
            match line {
                Line::Version(version) => row.version = version,
                Line::Cell(name, result) => row.cells.push((name, result)),
                Line::Suspend => {
                    server.cli().run(&["branch", "suspend", "--wait", &name])?;
                    lives += 1;
                    program.go_on()?;
                }
            }
        }
        // Otherwise a suspend was none, and the cells prove nothing.
        let found = server.show(&name)?.epoch - branch.epoch;
        ensure!(found == lives, "the branch had {found} lives instead of {lives}");
        server.cli().run(&["branch", "delete", &name])?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let cell = |name: &str, result: &str| Some(Line::Cell(name.into(), result.into()));
        for (text, expected) in [
            ("VERSION 1.2, C", Some(Line::Version("1.2, C".into()))),
            ("SUSPEND", Some(Line::Suspend)),
            ("CELL crud ok", cell("crud", "ok")),
            ("CELL crud failed: a b", cell("crud", "failed: a b")),
            ("CELL crud", cell("crud", "")),
            ("npm warn something", None),
            ("", None),
        ] {
            assert_eq!(Line::read(text), expected, "{text}");
        }
    }
}
