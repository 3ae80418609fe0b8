//! How a subcommand ends when it does not end well.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use thiserror::Error;

use super::output::Format;
use crate::client::ClientError;
use crate::types::Problem;

/// What the exit codes mean, for the foot of `argon --help`.
pub const EXIT_CODES: &str = "Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    what was named does not exist
  4    not possible now: a conflict, or a step that the state does not allow
  5    the server cannot be reached
  130  interrupted (Ctrl-C); work that had begun goes on in the server";

/// What can go wrong in a subcommand.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// At the server or on the way there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no project to take by default.
    #[error("there is no project yet")]
    NoProject,
    /// There are several, and none was named.
    #[error("which project is meant? there are {}", .choices.join(", "))]
    WhichProject {
        /// Their names.
        choices: Vec<String>,
    },
    /// A branch has no way in of that kind.
    #[error("branch {branch} has no {door} of its own")]
    NoDoor {
        /// The branch.
        branch: String,
        /// `port` or `socket`.
        door: &'static str,
    },
    /// A file on this side.
    #[error("{doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the machine says.
        source: io::Error,
    },
    /// An archive would have gone to a terminal.
    #[error("an archive is no text, and stdout is a terminal")]
    Terminal,
    /// The archive broke off.
    #[error("the archive of {branch} broke off after {bytes} bytes")]
    CutShort {
        /// The branch.
        branch: String,
        /// What had arrived.
        bytes: u64,
        /// What the machine says.
        source: io::Error,
    },
    /// Nobody reads stdout any more, or it is full.
    #[error("write to stdout")]
    Stdout(#[source] io::Error),
}

/// An error as JSON on stderr: the problem document where the server sent one.
#[derive(Serialize)]
#[serde(untagged)]
enum Document<'a> {
    Theirs(&'a Problem),
    Ours { r#type: String, code: &'a str, detail: String, hint: Option<String> },
}

impl CliError {
    /// Says what went wrong on stderr, and with which code to exit.
    pub(super) fn report(&self, format: Format) -> ExitCode {
        if !self.is_readers_end() {
            // Where stderr is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", self.text(format));
        }
        ExitCode::from(self.exit_code())
    }

    /// `argon branch list | head -1` is no failure: the reader has what it wanted.
    fn is_readers_end(&self) -> bool {
        matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Problem(problem)) => match problem.status {
                404 | 410 => 3,
                409 | 412 => 4,
                _ => 1,
            },
            Self::Client(ClientError::Unreachable { .. } | ClientError::Lost { .. }) => 5,
            Self::NoProject | Self::NoDoor { .. } => 3,
            Self::WhichProject { .. } | Self::Terminal => 2,
            Self::Stdout(_) if self.is_readers_end() => 0,
            _ => 1,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Client(error) => error.code(),
            Self::NoProject => "no_project",
            Self::WhichProject { .. } => "which_project",
            Self::NoDoor { .. } => "no_door",
            Self::File { .. } => "file",
            Self::Terminal => "stdout_is_terminal",
            Self::CutShort { .. } => "archive_cut_short",
            Self::Stdout(_) => "stdout",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Client(error) => return error.hint(),
            Self::NoProject => "argon project create NAME",
            Self::NoDoor { branch, door } => {
                return Some(format!("make one: `argon branch {door} {branch}`"));
            }
            Self::WhichProject { .. } => "name one with --project NAME or ARGON_PROJECT",
            Self::Terminal => "name a file with --out FILE, or send stdout to one",
            Self::CutShort { .. } => "the server's log says why; nothing was kept of the archive",
            Self::File { .. } | Self::Stdout(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// The error with its causes, in one line.
    fn detail(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    fn text(&self, format: Format) -> String {
        let hint = self.hint();
        match (format, self) {
            (Format::Human, _) => {
                let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                format!("error: {}{hint}", self.detail())
            }
            (Format::Json, Self::Client(ClientError::Problem(problem))) => {
                json(&Document::Theirs(problem))
            }
            (Format::Json, _) => {
                let code = self.code();
                let r#type = Problem::kind_of(code);
                json(&Document::Ours { r#type, code, detail: self.detail(), hint })
            }
        }
    }
}

fn json(document: &Document<'_>) -> String {
    serde_json::to_string(document).expect("a document of texts and numbers is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16) -> CliError {
        CliError::Client(ClientError::Problem(Box::new(Problem {
            kind: Problem::kind_of("x"),
            title: "T".into(),
            status,
            code: "x".into(),
            detail: "no branch dev".into(),
            hint: Some("argon branch list".into()),
        })))
    }

    fn unreachable() -> CliError {
        CliError::Client(ClientError::Unreachable {
            server: "127.0.0.1:1".parse().unwrap(),
            source: Box::new(ureq::Error::HostNotFound),
        })
    }

    fn stdout(kind: io::ErrorKind) -> CliError {
        CliError::Stdout(kind.into())
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        for (error, code) in [
            (problem(404), 3),
            (problem(409), 4),
            (problem(400), 1),
            (problem(503), 1),
            (unreachable(), 5),
            (CliError::NoProject, 3),
            (CliError::WhichProject { choices: vec![] }, 2),
            (stdout(io::ErrorKind::BrokenPipe), 0),
            (stdout(io::ErrorKind::StorageFull), 1),
        ] {
            assert_eq!(error.exit_code(), code, "{error:?}");
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }

    #[test]
    fn the_manual_has_the_same_exit_codes() {
        let manual = std::fs::read_to_string("../docs/api.md").unwrap();
        let mut lines: Vec<&str> = manual.lines().collect();
        let start = lines.iter().position(|line| *line == "| exit code | meaning |").unwrap();
        lines.drain(..start + 2);
        let told: Vec<_> = EXIT_CODES
            .lines()
            .skip(1)
            .map(|line| line.trim().split_once("  ").unwrap())
            .map(|(code, meaning)| format!("| {} | {} |", code.trim(), meaning.trim()))
            .collect();
        assert_eq!(lines[..told.len()], told);
        assert_eq!(lines.get(told.len()).unwrap_or(&""), &"", "the manual has more");
    }

    #[test]
    fn an_error_ends_with_a_hint_on_a_line_of_its_own() {
        let human = problem(404).text(Format::Human);
        assert_eq!(human, "error: no branch dev\nhint: argon branch list");
        let human = unreachable().text(Format::Human);
        assert!(human.starts_with("error: cannot reach the server at http://127.0.0.1:1: "));
        assert!(human.contains("\nhint: start one with `argon serve`"), "{human}");
    }

    #[test]
    fn an_error_in_json_is_a_problem_document() {
        for (error, code) in [(problem(404), "x"), (unreachable(), "unreachable")] {
            let text = error.text(Format::Json);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["code"], code);
            assert_eq!(value["type"], format!("urn:argon:problem:{code}"));
            assert!(value["detail"].is_string() && value["hint"].is_string(), "{text}");
        }
    }
}
