//! What a wake does one after the other, and how long each takes: for whoever asks why it was slow.

use std::time::Duration;

use tokio::time::Instant;

/// The steps of one wake so far.
#[derive(Debug)]
pub(super) struct Steps {
    begun: Instant,
    last: Instant,
    done: Vec<Step>,
    beside: Vec<Step>,
}

/// What a wake did, and how long each of it took.
#[derive(Debug)]
pub(super) struct Done {
    /// One after the other.
    pub(super) steps: Vec<Step>,
    /// Meanwhile.
    pub(super) beside: Vec<Step>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) took: Duration,
}

impl Steps {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, done: Vec::with_capacity(8), beside: Vec::new() }
    }

    /// What was done since the last call, or the beginning.
    pub(super) fn done(&mut self, name: &'static str) {
        let now = Instant::now();
        self.split(name, now);
    }

    /// The same, where it ended at a moment that is known.
    pub(super) fn split(&mut self, name: &'static str, at: Instant) {
        let at = at.max(self.last);
        self.done.push(Step { name, took: at - self.last });
        self.last = at;
    }

    /// How long it has taken up to the last step.
    pub(super) fn so_far(&self) -> Duration {
        self.last - self.begun
    }

    /// What was done meanwhile, from the same beginning or another.
    pub(super) fn beside(&mut self, name: &'static str, took: Duration) {
        self.beside.push(Step { name, took });
    }

    pub(super) fn finish(self) -> Done {
        Done { steps: self.done, beside: self.beside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_steps_make_up_the_whole() {
        let mut steps = Steps::begin();
        let begun = steps.begun;
        tokio::time::advance(Duration::from_millis(3)).await;
        steps.done("first");
        tokio::time::advance(Duration::from_millis(7)).await;
        // A moment before the last step's end belongs to that.
        steps.split("nothing", begun);
        steps.split("second", begun + Duration::from_millis(5));
        steps.done("third");
        assert_eq!(steps.so_far(), Duration::from_millis(10));
        steps.beside("other", Duration::from_millis(9));
        let done = steps.finish();
        let took: Vec<_> = done.steps.iter().map(|step| step.took.as_millis()).collect();
        assert_eq!(took, [3, 0, 2, 5], "what is done meanwhile takes nothing from the steps");
        assert_eq!(done.beside, [Step { name: "other", took: Duration::from_millis(9) }]);
    }
}
