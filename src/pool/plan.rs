//! What a pool does next: a pure function of how it stands.

use std::time::Duration;

use super::Terms;
use crate::base::backoff::Backoff;
use crate::base::limits::{PARK_BACKOFF_CAP, PARK_BACKOFF_FIRST, PARK_CALM};

/// Between two tries to park a mongod where that fails.
const BACKOFF: Backoff = Backoff { first: PARK_BACKOFF_FIRST, cap: PARK_BACKOFF_CAP };

/// How a pool stands at one moment; none of its mongods is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// How many are to be parked.
    pub(super) size: usize,
    /// How many are.
    pub(super) here: usize,
    /// Wakes that are under way.
    pub(super) wakes: usize,
    /// Since when there is none, if there ever was one.
    pub(super) calm_for: Option<Duration>,
    /// Losses in a row.
    pub(super) failures: u32,
    /// Since the last one.
    pub(super) failed_for: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start one.
    Start,
    /// Look again after this time, or when something changes.
    Wait(Duration),
    /// Nothing, until something changes.
    Rest,
}

/// One at a time; never while a wake is under way, nor right after it, when its client's commands
/// come; and later and later where it fails.
pub(super) fn next(standing: &Standing) -> Step {
    if standing.here >= standing.size || standing.wakes > 0 {
        return Step::Rest;
    }
    let backoff = match standing.failures {
        0 => Duration::ZERO,
        failures => BACKOFF.wait(failures, 1.0),
    };
    let left = |wait: Duration, passed: Option<Duration>| match passed {
        Some(passed) => wait.saturating_sub(passed),
        None => Duration::ZERO,
    };
    match left(PARK_CALM, standing.calm_for).max(left(backoff, standing.failed_for)) {
        Duration::ZERO => Step::Start,
        wait => Step::Wait(wait),
    }
}

/// Whether a mongod that was started with `has` can serve who needs `needs`: these are arguments of
/// its command line.
pub(super) fn fits(has: Terms, needs: Terms) -> bool {
    has == needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_filled_when_nobody_wakes_and_slower_where_that_fails() {
        let calm = Some(PARK_CALM);
        let base = Standing { size: 2, ..Standing::default() };
        let late = Some(Duration::from_secs(3600));
        for (standing, step) in [
            (base, Step::Start),
            (Standing { here: 1, ..base }, Step::Start),
            (Standing { here: 2, ..base }, Step::Rest),
            (Standing { here: 3, ..base }, Step::Rest),
            (Standing { size: 0, ..base }, Step::Rest),
            (Standing { wakes: 1, ..base }, Step::Rest),
            (Standing { wakes: 1, calm_for: late, ..base }, Step::Rest),
            (Standing { calm_for: Some(Duration::ZERO), ..base }, Step::Wait(PARK_CALM)),
            (Standing { calm_for: calm, ..base }, Step::Start),
            (
                Standing { failures: 1, failed_for: Some(Duration::ZERO), ..base },
                Step::Wait(PARK_BACKOFF_FIRST),
            ),
            (
                Standing { failures: 99, failed_for: Some(Duration::ZERO), calm_for: calm, ..base },
                Step::Wait(PARK_BACKOFF_CAP),
            ),
            (Standing { failures: 99, failed_for: late, ..base }, Step::Start),
        ] {
            assert_eq!(next(&standing), step, "{standing:?}");
        }
    }

    #[test]
    fn what_is_on_the_command_line_must_be_the_same() {
        let has = Terms { cache_gb: 0.25, oplog_mb: 128 };
        assert!(fits(has, has));
        assert!(!fits(has, Terms { cache_gb: 0.5, ..has }));
        assert!(!fits(has, Terms { oplog_mb: 64, ..has }));
    }
}
