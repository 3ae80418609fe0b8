//! What this machine can do, and the rule for tests that it cannot run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the file in which tests that did not run are noted, one line each, for the summary.
pub const NOT_RUN_FILE: &str = "ARGON_TESTS_NOT_RUN";

/// Is this a machine on which nothing may be left out?
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says aloud that something does not run on this machine, and why. Where CI=true that is a
/// failure.
///
/// # Panics
/// Where CI=true.
pub fn cannot_run(what: &str, why: &str) {
    let line = format!("NOT RUN: {what}: {why}");
    // Not `eprintln!`: the test harness would swallow it.
    writeln!(std::io::stderr(), "{line}").ok();
    if let Some(path) = std::env::var_os(NOT_RUN_FILE) {
        let file = fs::File::options().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).ok();
    }
    assert!(!is_ci(), "{line}; CI=true allows no exceptions");
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this crate lies in the repository").to_owned()
}

/// Where `cargo verify` puts the Python packages that tests need.
pub fn python_packages() -> PathBuf {
    target().join("python-packages")
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| repository().join("target"))
}

/// Does the command start, and succeed?
pub fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// The signal that asks a process to end.
pub const TERMINATE: libc::c_int = libc::SIGTERM;

/// Sends a signal to a process of this user.
pub fn signal(pid: u32, signal: libc::c_int) -> std::io::Result<()> {
    let pid = libc::pid_t::try_from(pid).expect("Linux has no larger pids");
    // SAFETY: no memory is involved.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The mongod processes that work below a folder, by their command lines.
pub fn mongods_below(folder: &Path) -> Vec<u32> {
    let folder = folder.to_string_lossy().into_owned();
    let works_there = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let zombie = state.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('Z'));
        words[0].ends_with("mongod") && words.iter().any(|word| word.contains(&folder)) && !zombie
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(works_there)
        .collect()
}
