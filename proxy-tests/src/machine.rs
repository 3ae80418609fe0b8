//! What this machine can do, and the rule for tests that it cannot run.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

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

/// Arranges that neither the child nor its children can enter a namespace: `unshare` fails as it
/// does where an administrator forbids it.
pub fn refuse_namespaces(command: &mut Command) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the system call stands first in what the filter sees: seccomp(2).
    let mut steps = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, libc::SYS_unshare as u32),
        step(BPF_RET | BPF_K, 0, 0, REFUSED),
        step(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let apply = move || {
        let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: prctl copies the filter, which lives until it returns.
        let applied = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) == 0
        };
        if applied { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(apply) };
}

/// Memory of a process that is no file's and stays in memory, bytes: proc_pid_status(5).
pub fn anonymous_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).context("RssAnon")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

/// Whether a process stands still, by a signal or a tracer: proc_pid_stat(5).
pub fn is_stopped(pid: u32) -> Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, state) = stat.rsplit_once(") ").context("the state of a process")?;
    Ok(state.starts_with('T'))
}

/// The TCP ports on which a process listens, of IPv4: proc_pid_fd(5), proc_pid_net(5).
pub fn listening_ports(pid: u32) -> Result<Vec<u16>> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let links = open.filter_map(|one| fs::read_link(one.path()).ok());
    let sockets: Vec<_> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let port = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // Where it listens, in hexadecimal; then the state, and the socket's number.
        let [_, local, _, "0A", _, _, _, _, _, inode, ..] = words[..] else { return None };
        let is_its_own = sockets.contains(&format!("socket:[{inode}]"));
        let (_, port) = local.split_once(':').filter(|_| is_its_own)?;
        u16::from_str_radix(port, 16).ok()
    };
    Ok(table.lines().filter_map(port).collect())
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
