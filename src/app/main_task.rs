//! The server's main task, which the process is there for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::runtime::Runtime;
use tracing::error;

/// Runs the main task to its end, then waits for what it left on blocking threads. Where it panics
/// nothing is waited for: what serves a mount there ends with the mount alone, and the process would stay
/// without answering anybody. The panic goes on, and ends the process.
pub(super) fn run<T>(runtime: Runtime, main: impl Future<Output = T>) -> T {
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(main))) {
        Ok(done) => done,
        Err(panic) => {
            error!("the main task panicked: ending at once; the next start recovers the branches");
            runtime.shutdown_background();
            resume_unwind(panic)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_panic_waits_for_no_blocking_thread() {
        const STUCK: Duration = Duration::from_secs(20);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (_never, wait) = mpsc::channel::<()>();
        let main = async move {
            tokio::task::spawn_blocking(move || wait.recv_timeout(STUCK));
            panic!("on purpose")
        };
        let begun = Instant::now();
        let panicked = catch_unwind(AssertUnwindSafe(|| run(runtime, main)));
        assert!(panicked.is_err_and(|panic| *panic.downcast::<&str>().unwrap() == "on purpose"));
        assert!(begun.elapsed() < STUCK, "{:?}", begun.elapsed());
    }
}
