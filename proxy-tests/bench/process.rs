//! What a process takes of the machine, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Time on a processor since the process began: all its threads, user and system, to the
/// nanosecond (`/proc/PID/stat` counts in hundredths of a second). A thread that ended is not
/// counted any more.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("list a process's threads")? {
        let path = task?.path().join("schedstat");
        // It may have ended since it was listed.
        let Ok(text) = fs::read_to_string(path) else { continue };
        let on_cpu = text.split(' ').next().unwrap_or_default();
        total += on_cpu.parse::<u64>().context("read schedstat")?;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory, bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kb = line.and_then(|line| line.split_whitespace().next()).context("no Rss")?;
    Ok(kb.parse::<u64>()? * 1024)
}

/// How many descriptors this process may have.
pub fn descriptors() -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("read the limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("no such limit")?;
    Ok(soft.parse().unwrap_or(u64::MAX))
}
