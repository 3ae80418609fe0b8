//! How long to wait before the next try: doubling, capped, with jitter.

use std::time::Duration;

/// A policy; the caller keeps the count of failed tries.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 is the first), between half and the whole of
    /// the doubled wait. `jitter` is a uniform number in 0..=1 from the caller.
    pub fn wait(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let whole = self.first.saturating_mul(1 << doublings).min(self.cap);
        whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(5) };
        let whole: Vec<_> = [0, 1, 2, 3, 7, 1000].map(|n| policy.wait(n, 1.0).as_millis()).into();
        assert_eq!(whole, [100, 100, 200, 400, 5000, 5000]);
        assert_eq!(policy.wait(1, 0.0), Duration::from_millis(50));
    }
}
