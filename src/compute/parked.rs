//! mongods that are started before it is known for whom.
//!
//! Whoever parks one sees to it that its dbpath keeps it from opening its storage, and gives it a
//! volume later. Here is what the process itself has to do with that.

use std::fmt;
use std::fs;
use std::sync::Arc;

use async_trait::async_trait;

use super::{ComputeError, Exit, Instance, Owner};

/// A mongod that was started and waits for its volume. Dropping the last handle kills it, once its
/// dbpath answers: a process that waits for an answer of a file system cannot be ended.
#[async_trait]
pub trait Parked: Send + Sync + fmt::Debug {
    /// It has come as far as it can: it may run as fast as any other from now on.
    fn has_parked(&self);

    /// Whether it will go on when it is let in: one that was killed while it waits for its dbpath only
    /// waits to die.
    fn is_sound(&self) -> bool;

    /// Whom it will work for is known now.
    fn is_for(&self, _owner: Owner) {}

    /// Its volume is there: returns when it is a writable primary on it. On an error nothing keeps
    /// running.
    async fn start(self: Arc<Self>) -> Result<Arc<dyn Instance>, ComputeError>;

    /// Returns when the process has ended, whoever ended it.
    async fn wait(&self) -> Exit;

    /// Ends it.
    async fn kill(&self);
}

/// How much less a mongod that is started ahead counts than one that somebody waits for: setpriority(2).
const PATIENT: libc::c_int = 10;
/// The number of CAP_SYS_NICE, capabilities(7).
const CAP_SYS_NICE: u32 = 23;

/// Lets a process that has begun give way to others, where it can be taken back.
pub(super) fn give_way(pid: u32) {
    if capabilities().is_some_and(|set| set & (1 << CAP_SYS_NICE) != 0) {
        set_priorities(pid, own_priority() + PATIENT);
    }
}

/// Takes [`give_way`] back.
pub(super) fn hurry(pid: u32) {
    set_priorities(pid, own_priority());
}

/// It is a setting of each thread, which those that it begins later have from it.
fn set_priorities(pid: u32, niceness: libc::c_int) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        if let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok()) {
            set_priority(thread, niceness);
        }
    }
}

/// What the server's own children begin with.
fn own_priority() -> libc::c_int {
    // SAFETY: it takes plain numbers. That it cannot fail for this very process makes -1 a priority.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

fn set_priority(thread: u32, niceness: libc::c_int) {
    // SAFETY: it takes plain numbers. Where it fails, the process is as fast as any other.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, niceness) };
}

/// The capabilities of this process, as /proc/self/status has them: proc(5).
fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    u64::from_str_radix(field(&status, "CapEff")?, 16).ok()
}

/// Whether a process lives, and neither SIGKILL nor SIGSTOP waits for it.
pub(super) fn is_sound(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_sound_by(&status))
}

fn is_sound_by(status: &str) -> bool {
    let bit = |signal: libc::c_int| 1_u64 << (signal - 1);
    let fatal = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
    let waits = |name| {
        let set = field(status, name).and_then(|text| u64::from_str_radix(text, 16).ok());
        set.is_none_or(|set| set & fatal != 0)
    };
    let ended = field(status, "State").is_none_or(|state| state.starts_with(['Z', 'X', 'T']));
    !ended && !waits("SigPnd") && !waits("ShdPnd")
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_will_not_go_on_is_not_sound() {
        let status = |state: &str, own: &str, all: &str| {
            format!("Name:\tmongod\nState:\t{state}\nSigPnd:\t{own}\nShdPnd:\t{all}\n")
        };
        let (none, kill) = ("0000000000000000", "0000000000000100");
        let (term, stop) = ("0000000000004000", "0000000000040000");
        for (text, sound) in [
            (status("S (sleeping)", none, none), true),
            (status("D (disk sleep)", none, none), true),
            (status("D (disk sleep)", none, term), true),
            (status("D (disk sleep)", kill, none), false),
            (status("D (disk sleep)", none, kill), false),
            (status("D (disk sleep)", stop, none), false),
            (status("T (stopped)", none, none), false),
            (status("Z (zombie)", none, none), false),
            (status("S (sleeping)", "junk", none), false),
            (String::new(), false),
        ] {
            assert_eq!(is_sound_by(&text), sound, "{text}");
        }
        assert!(is_sound(std::process::id()));
        assert!(!is_sound(u32::MAX));
    }
}
