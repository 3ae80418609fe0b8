//! A number that goes up and down with the lives of things.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is alive now. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    /// How many are alive.
    pub fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more, until the guard is dropped.
    pub fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Counts one more if that makes no more than `max`.
    pub fn try_enter(&self, max: usize) -> Option<Counted> {
        let step = |count: usize| (count < max).then_some(count + 1);
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        entered.is_ok().then(|| Counted(self.clone()))
    }
}

/// One that is counted; dropping it counts it off.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_guard_counts_off() {
        let gauge = Gauge::default();
        let first = gauge.enter();
        let second = gauge.clone().try_enter(2);
        assert_eq!(gauge.value(), 2);
        assert!(second.is_some() && gauge.try_enter(2).is_none());
        drop(first);
        assert_eq!(gauge.value(), 1);
        assert!(gauge.try_enter(2).is_some(), "and off again at once");
        assert_eq!(gauge.value(), 1);
    }
}
