//! What can go wrong with a mongod, and how one ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use super::docker::DockerError;
use crate::wire::WireError;

/// How much of a log's end is read for an error's text, bytes, and how many lines of it are shown.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 8;
const TAIL_LINE_CHARACTERS: usize = 300;

/// Why there is no running mongod.
#[derive(Debug, Error)]
pub enum ComputeError {
    /// The host refused something.
    #[error("{doing} {}", .object.to_string_lossy())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        object: OsString,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// mongod ended before it was ready.
    #[error("mongod ended before it was ready ({exit}); its last log lines:\n{log}")]
    Exited {
        /// How it ended.
        exit: Exit,
        /// Its last log lines.
        log: String,
    },
    /// mongod runs, but did not become a writable primary.
    #[error("wait for mongod at {socket} to become a writable primary: not in {limit:?}")]
    NotReady {
        /// Where it was asked.
        socket: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// This way of running mongods starts none ahead.
    #[error("mongods that are run like this cannot be started ahead")]
    CannotPark,
    /// mongods come from no images here.
    #[error("mongods are local processes here, and come from no image")]
    NoImages,
    /// A command that makes a new mongod usable failed.
    #[error("run {command} on the new mongod")]
    Setup {
        /// The command's name.
        command: String,
        /// What mongod or the connection said.
        #[source]
        source: Box<WireError>,
    },
    /// The host lets this server limit nothing.
    #[error("limit the {controller} of mongods by a control group")]
    Limits {
        /// What was to be limited.
        controller: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The container engine does not do what it should.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

impl ComputeError {
    /// Whether what somebody asked for is not there, and nothing has failed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoImages => true,
            Self::Docker(error) => error.is_refusal(),
            _ => false,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Docker(error) => Some(error.hint()),
            Self::NoImages => Some(
                "run the server with --compute docker, or leave the image out: ARGON_MONGOD names the \
                 mongod of a server"
                    .to_owned(),
            ),
            Self::Exited { exit, .. } if exit.how == How::OutOfMemory => Some(
                "let a branch take more memory: --branch-memory, 256MiB or more".to_owned(),
            ),
            Self::Limits { .. } => Some(
                "run the server as root or as a systemd service with Delegate=yes, run branches in \
                 containers, or leave the limit out"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    pub(super) fn io(doing: &'static str, object: impl Into<OsString>, source: io::Error) -> Self {
        Self::Io { doing, object: object.into(), source }
    }
}

/// How a mongod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    how: How,
    log: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Process(ExitStatus),
    /// It wanted more memory than its group may have.
    OutOfMemory,
    Container(ContainerEnd),
    Unknown,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContainerEnd {
    /// By itself, or by a signal: then the code is 128 and the signal's number.
    Exited(i64),
    /// It wanted more memory than it may have.
    OutOfMemory {
        /// Its limit, bytes.
        limit: Option<i64>,
    },
    /// Somebody removed it.
    Removed,
    /// The engine does not answer, and mongod does not either.
    EngineAway,
}

impl Exit {
    pub(super) fn process(status: io::Result<ExitStatus>, log: PathBuf) -> Self {
        Self { how: status.map_or(How::Unknown, How::Process), log }
    }

    /// A process that the kernel killed for the memory that it took.
    pub(super) fn out_of_memory(log: PathBuf) -> Self {
        Self { how: How::OutOfMemory, log }
    }

    pub(super) fn container(end: ContainerEnd, log: PathBuf) -> Self {
        Self { how: How::Container(end), log }
    }

    pub(crate) fn unknown() -> Self {
        Self { how: How::Unknown, log: PathBuf::new() }
    }

    /// Whether mongod shut down by itself, everything checkpointed.
    pub fn is_clean(&self) -> bool {
        match &self.how {
            How::Process(status) => status.success(),
            How::Container(end) => *end == ContainerEnd::Exited(0),
            How::OutOfMemory | How::Unknown => false,
        }
    }

    /// The last lines of the log, as read now.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.how {
            How::Process(status) => status.fmt(f),
            How::OutOfMemory => f.write_str("it was killed: it took more memory than it may have"),
            How::Container(end) => end.fmt(f),
            How::Unknown => f.write_str("exit status unknown"),
        }
    }
}

impl std::fmt::Display for ContainerEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code @ 129..=192) => {
                write!(f, "its container ended by signal {}", code - 128)
            }
            Self::Exited(code) => write!(f, "its container ended with exit code {code}"),
            Self::OutOfMemory { limit: Some(limit) } => {
                write!(f, "its container was out of memory: its limit is {} MiB", limit >> 20)
            }
            Self::OutOfMemory { limit: None } => f.write_str("its container was out of memory"),
            Self::Removed => f.write_str("its container was removed by somebody else"),
            Self::EngineAway => f.write_str("the container engine went away, and mongod with it"),
        }
    }
}

/// The last lines of a log, or why there are none; never fails, since it serves errors.
pub(super) fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if text.trim().is_empty() => "(it logged nothing)".to_owned(),
        Ok(text) => {
            let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            last.iter().map(|line| readable(line)).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("(read {}: {error})", log.display()),
    }
}

/// mongod logs JSON, one object a line; people get severity, component, message and attributes.
fn readable(line: &str) -> String {
    let whole = match serde_json::from_str::<serde_json::Value>(line) {
        Ok(entry) => {
            let text = |key| entry[key].as_str().unwrap_or("-");
            let attributes = entry.get("attr").map(|attr| format!(" {attr}")).unwrap_or_default();
            format!("{} {} {}{attributes}", text("s"), text("c"), text("msg"))
        }
        Err(_) => line.to_owned(),
    };
    match whole.char_indices().nth(TAIL_LINE_CHARACTERS) {
        Some((cut, _)) => format!("{}…", &whole[..cut]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("mongod.log");
        let text: String = (0..5000).map(|n| format!("line {n}\n\n")).collect();
        std::fs::write(&log, text).unwrap();
        let tail = log_tail(&log);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("line 4992") && tail.ends_with("line 4999"));
        assert!(log_tail(&dir.path().join("absent")).starts_with("(read "));
        std::fs::write(&log, "").unwrap();
        assert_eq!(log_tail(&log), "(it logged nothing)");
    }

    #[test]
    fn a_line_of_mongods_json_is_made_readable() {
        for (line, shown) in [
            (r#"{"s":"F","c":"STORAGE","msg":"no","attr":{"e":1}}"#, r#"F STORAGE no {"e":1}"#),
            (r#"{"s":"I","c":"-","msg":"done"}"#, "I - done"),
            ("plain text", "plain text"),
        ] {
            assert_eq!(readable(line), shown);
        }
        assert_eq!(readable(&"ä".repeat(1000)).chars().count(), TAIL_LINE_CHARACTERS + 1);
    }
}
