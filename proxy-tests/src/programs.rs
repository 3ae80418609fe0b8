//! The test programs of the workspace, some of them at once: one alone leaves the machine idle while its
//! last test waits.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

/// How the names of those begin that are not in a folder of tests.
const UNIT_TESTS: &str = "unit tests of";

/// One test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What people call it: `proxy-tests/tests/lazy.rs`, `unit tests of lib argon`.
    pub name: String,
    executable: PathBuf,
    /// Its package's folder, in which cargo would start it.
    folder: PathBuf,
}

/// What became of one.
pub struct Outcome {
    /// See [`Program::name`].
    pub name: String,
    /// Everything that it wrote.
    pub output: String,
    /// How it ended.
    pub status: ExitStatus,
    /// How long it ran.
    pub took: Duration,
}

impl Program {
    /// The one that a message of cargo is about, if it is about one.
    pub fn of(message: &Value) -> Option<Self> {
        if message["profile"]["test"] != true {
            return None;
        }
        let executable = message["executable"].as_str()?.into();
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let (target, kind) = (message["target"]["name"].as_str()?, &message["target"]["kind"][0]);
        let package = folder.file_name()?.to_string_lossy();
        let name = match kind.as_str()? {
            "test" => format!("{package}/tests/{target}.rs"),
            kind => format!("{UNIT_TESTS} {kind} {target}"),
        };
        Some(Self { name, executable, folder })
    }

    /// Whether it has the tests that stand in the sources of a library or program.
    pub fn is_unit_tests(&self) -> bool {
        self.name.starts_with(UNIT_TESTS)
    }

    fn run(&self, outputs: &Path, prepare: &impl Fn(&mut Command)) -> Result<Outcome> {
        let begun = Instant::now();
        let path = outputs.join(self.name.replace(['/', ' '], "-"));
        let output = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.stderr(output.try_clone()?).stdout(output);
        prepare(&mut command);
        let status = command.status().with_context(|| format!("start {}", self.name))?;
        let output = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Outcome { name: self.name.clone(), output, status, took: begun.elapsed() })
    }
}

/// Runs all of them, `lanes` at once, and hands over what became of each as it ends. What one writes is in
/// a file of its own in `outputs` meanwhile.
///
/// # Errors
/// One cannot be started, or `ended` fails; the others are run to their end.
pub fn run(
    programs: Vec<Program>,
    lanes: usize,
    outputs: &Path,
    prepare: impl Fn(&mut Command) + Sync,
    mut ended: impl FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(outputs).with_context(|| format!("create {}", outputs.display()))?;
    let waiting = Mutex::new(VecDeque::from(programs));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        let (sender, outcomes) = mpsc::channel();
        for _ in 0..lanes {
            let (sender, next, prepare) = (sender.clone(), &next, &prepare);
            scope.spawn(move || {
                while let Some(program) = next() {
                    let _ = sender.send(program.run(outputs, prepare));
                }
            });
        }
        drop(sender);
        let mut result = Ok(());
        for outcome in outcomes {
            result = result.and(outcome.and_then(&mut ended));
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: &str, target: &str, is_test: bool) -> Value {
        json!({
            "reason": "compiler-artifact",
            "manifest_path": "/here/package/Cargo.toml",
            "target": { "kind": [kind], "name": target },
            "profile": { "test": is_test },
            "executable": "/bin/sh",
        })
    }

    #[test]
    fn messages_name_programs() {
        let name = |kind, target, is_test| {
            Program::of(&message(kind, target, is_test)).map(|program| program.name)
        };
        assert_eq!(name("test", "lazy", true).as_deref(), Some("package/tests/lazy.rs"));
        assert_eq!(name("lib", "argon", true).as_deref(), Some("unit tests of lib argon"));
        assert_eq!(name("bin", "argon", false), None, "no test");
        assert_eq!(Program::of(&json!({ "reason": "build-finished", "success": true })), None);
    }

    #[test]
    fn each_is_run_once_and_says_what_it_said() {
        let outputs = tempfile::tempdir().unwrap();
        let mut programs: Vec<_> = (0..5)
            .map(|number| Program {
                name: format!("program {number}"),
                executable: "/bin/sh".into(),
                folder: outputs.path().to_owned(),
            })
            .collect();
        programs[3].executable = "/there/is/no/such/program".into();
        let mut outcomes = Vec::new();
        let prepare = |command: &mut Command| {
            command.args(["-c", "echo out; echo err >&2; exit 3"]);
        };
        let result = run(programs, 2, outputs.path(), prepare, |outcome| {
            outcomes.push((outcome.name, outcome.output, outcome.status.code()));
            Ok(())
        });
        assert!(result.unwrap_err().to_string().contains("start program 3"));
        outcomes.sort();
        let expected = [0, 1, 2, 4]
            .map(|number| (format!("program {number}"), "out\nerr\n".to_owned(), Some(3)));
        assert_eq!(outcomes, expected);
    }
}
