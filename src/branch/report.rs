//! How long a wake took, phase by phase: for the log, the metrics, and `argon branch show`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon_admin::types;
use tokio::time::Instant;
use tracing::info;

use super::ahead::Start;
use super::shared::Shared;
use super::steps::{Done, Step};
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, Epoch};
use crate::base::limits::WAKE_WAIT;
use crate::base::metrics::{Metrics, Origin, WakePhase};
use crate::base::name::Name;
use crate::compute::StartPhases;
use crate::volume::Head;

/// How a wake went, up to its mongod's being ready.
pub(super) struct Woken {
    pub(super) start: Start,
    pub(super) restore: Duration,
    pub(super) queue: Duration,
    pub(super) mongod: StartPhases,
    pub(super) done: Done,
}

/// One wake that succeeded. Its last phase ends when the first command has its connection; the log
/// line waits for that, where a command waits.
pub(super) struct WakeReport {
    branch: BranchId,
    name: Name,
    epoch: Epoch,
    at: Timestamp,
    woken: Woken,
    attach: OnceLock<Duration>,
    told: AtomicBool,
    metrics: Arc<Metrics>,
}

impl WakeReport {
    pub(super) fn new(shared: &Shared, head: &Head, woken: Woken) -> Self {
        let metrics = shared.metrics.clone();
        metrics.wake_phase(WakePhase::Restore, woken.restore);
        metrics.wake_phase(WakePhase::Queue, woken.queue);
        metrics.wake_phase(WakePhase::MongodStart, woken.mongod.listening);
        metrics.wake_phase(WakePhase::Primary, woken.mongod.primary);
        metrics.wake_by(match woken.start {
            Start::Parked => Origin::Parked,
            Start::Cold(_) => Origin::Cold,
        });
        Self {
            branch: head.branch,
            name: head.branch_name.clone(),
            epoch: head.epoch,
            at: shared.clock.now(),
            woken,
            attach: OnceLock::new(),
            told: AtomicBool::new(false),
            metrics,
        }
    }

    /// A command's connection to mongod stands; only the first one's counts.
    pub(super) fn attached(&self, awake_since: Instant) {
        if self.attach.get().is_some() || self.told.load(Ordering::Relaxed) {
            return;
        }
        let took = awake_since.elapsed();
        if took > WAKE_WAIT {
            // Those that waited have left: this command has nothing to do with the wake.
            return self.tell();
        }
        if self.attach.set(took).is_ok() {
            self.metrics.wake_phase(WakePhase::Attach, took);
            self.tell();
        }
    }

    /// Writes the one log line of this wake, unless it was written.
    pub(super) fn tell(&self) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let Woken { start, restore, queue, mongod, .. } = &self.woken;
        info!(branch = %self.branch, name = %self.name, epoch = %self.epoch, by = start.word(),
              restore_ms = ms(*restore), queue_ms = ms(*queue),
              mongod_start_ms = ms(mongod.listening), primary_ms = ms(mongod.primary),
              attach_ms = self.attach.get().copied().map(ms), "awake");
    }

    pub(super) fn view(&self) -> types::Wake {
        let Woken { start, restore, queue, mongod, .. } = &self.woken;
        types::Wake {
            at: self.at.to_string(),
            by: start.by(),
            restore_ms: ms(*restore),
            queue_ms: ms(*queue),
            mongod_start_ms: ms(mongod.listening),
            primary_ms: ms(mongod.primary),
            attach_ms: self.attach.get().copied().map(ms),
        }
    }

    /// Step by step.
    pub(super) fn trace(&self) -> types::WakeTrace {
        let attach = self.attach.get().map(|took| Step { name: "attach", took: *took });
        let Done { steps, beside } = &self.woken.done;
        let view = |step: Step| types::WakeStep {
            name: step.name.to_owned(),
            took_us: u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
        };
        types::WakeTrace {
            at: self.at.to_string(),
            epoch: self.epoch.0,
            by: self.woken.start.by(),
            cold_because: self.woken.start.why(),
            steps: steps.iter().copied().chain(attach).map(view).collect(),
            beside: beside.iter().copied().map(view).collect(),
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for WakeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WakeReport({} {})", self.name, self.epoch)
    }
}
