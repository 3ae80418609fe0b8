//! Trying again: which failures, how often, and what may have happened meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::failure::{Failure, Kind};
use crate::base::backoff::Backoff;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(4) };

/// So often is a write tried that met another at the same object. It is over in a moment, or the
/// other has won.
const COLLISIONS_MAX: u32 = 4;

/// The tries of one request.
#[derive(Debug)]
pub struct Tries {
    end: Instant,
    failures: u32,
    collisions: u32,
    renewed: bool,
    may_have_worked: bool,
}

/// What to do before the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: enough time has passed.
    Again,
    /// Look for credentials again.
    Renew,
}

impl Tries {
    /// No try begins after `deadline` from now.
    pub fn new(deadline: Duration) -> Self {
        Self {
            end: Instant::now() + deadline,
            failures: 0,
            collisions: 0,
            renewed: false,
            may_have_worked: false,
        }
    }

    /// Whether an earlier try may have taken effect although it failed.
    pub fn may_have_worked(&self) -> bool {
        self.may_have_worked
    }

    /// Takes a failure; waits where another try may help, else gives it back.
    pub async fn after(&mut self, failure: Failure) -> Result<Next, Failure> {
        self.may_have_worked |= failure.kind.may_have_worked();
        if failure.kind == Kind::Expired && !self.renewed {
            self.renewed = true;
            return Ok(Next::Renew);
        }
        self.collisions += u32::from(failure.kind == Kind::Collision);
        if !failure.kind.is_passing() || self.collisions >= COLLISIONS_MAX {
            return Err(failure);
        }
        self.failures += 1;
        let wait = BACKOFF.wait(self.failures, jitter());
        if Instant::now() + wait >= self.end {
            return Err(failure);
        }
        debug!(failures = self.failures, cause = %failure.source, "asking the store again");
        sleep(wait).await;
        Ok(Next::Again)
    }
}

/// A uniform number in 0..=1. Without randomness the waits are merely equal.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: Kind) -> Failure {
        Failure::new(kind, "as asked")
    }

    #[tokio::test(start_paused = true)]
    async fn tries_end_at_the_deadline() {
        let begun = Instant::now();
        let mut tries = Tries::new(Duration::from_secs(20));
        let mut count = 0;
        while tries.after(failure(Kind::Server)).await.is_ok() {
            count += 1;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(15) && took < Duration::from_secs(20), "{took:?}");
        assert!((8..16).contains(&count), "{count}");
        assert!(tries.may_have_worked());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_given_back_at_once() {
        for kind in [Kind::Denied, Kind::Full, Kind::Condition, Kind::NoKey, Kind::Other] {
            let mut tries = Tries::new(Duration::from_secs(20));
            assert_eq!(tries.after(failure(kind)).await.unwrap_err().kind, kind);
            assert!(!tries.may_have_worked());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_renewed_once_and_collisions_end() {
        let mut tries = Tries::new(Duration::from_secs(20));
        assert_eq!(tries.after(failure(Kind::Expired)).await.unwrap(), Next::Renew);
        assert!(tries.after(failure(Kind::Expired)).await.is_err());
        let mut tries = Tries::new(Duration::from_secs(20));
        for _ in 1..COLLISIONS_MAX {
            assert_eq!(tries.after(failure(Kind::Collision)).await.unwrap(), Next::Again);
        }
        assert!(tries.after(failure(Kind::Collision)).await.is_err());
        assert!(!tries.may_have_worked());
    }
}
