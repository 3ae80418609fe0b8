//! Waiting for a condition, with a deadline: no sleep that hopes.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take that this crate waits for and that has no limit of its own. Far
/// above what is normal, so that a slow machine does not fail and a hang still ends.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the answer is `Some`. An error ends the wait, and so does [`PATIENCE`].
pub fn eventually<T>(what: impl Display, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`eventually`], for questions that are asked with `await`.
pub async fn eventually_async<T, F: Future<Output = Result<Option<T>>>>(
    what: impl Display,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
