//! Named steps at which a test lets this process die, as a power cut would.
//!
//! `ARGON_FAILPOINT=NAME` in the server's environment kills it when it comes to that step for the
//! first time, `NAME:N` at the N-th time. Nobody but who starts the server can set that, and where
//! it is not set a step costs one look at a variable that is in memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const VARIABLE: &str = "ARGON_FAILPOINT";

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

struct Armed {
    name: String,
    /// How often the step is still passed, this time included.
    left: AtomicU64,
}

impl Armed {
    fn read(value: &str) -> Self {
        let (name, times) = value.split_once(':').unwrap_or((value, "1"));
        // A number that cannot be read is a step that is never come to.
        Self { name: name.to_owned(), left: times.parse().unwrap_or(0).into() }
    }

    fn is_due(&self, name: &str) -> bool {
        // Below zero it wraps, and is one again only after all the time there is.
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// A step that a test may stop at.
pub fn failpoint(name: &str) {
    let read = || std::env::var(VARIABLE).ok().map(|value| Armed::read(&value));
    if ARMED.get_or_init(read).as_ref().is_some_and(|armed| armed.is_due(name)) {
        // SAFETY: it touches no memory. SIGKILL, so that nothing is tidied up on the way.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_due_once_at_the_time_that_was_named() {
        for (value, due) in [("a", 1), ("a:1", 1), ("a:3", 3), ("a:0", 0), ("a:x", 0), ("b", 0)] {
            let armed = Armed::read(value);
            let found: Vec<_> = (1..=4).filter(|_| armed.is_due("a")).collect();
            assert_eq!(found, Vec::from_iter((due > 0).then_some(due)), "{value}");
        }
    }
}
