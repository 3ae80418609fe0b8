//! How long a wake took, phase by phase: for the log, the metrics, and `argon branch show`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon_admin::types;
use tokio::time::Instant;
use tracing::info;

use super::shared::Shared;
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, Epoch};
use crate::base::limits::WAKE_WAIT;
use crate::base::metrics::{Metrics, WakePhase};
use crate::base::name::Name;
use crate::compute::StartPhases;
use crate::volume::Head;

/// One wake that succeeded. Its last phase ends when the first command has its connection; the log
/// line waits for that, where a command waits.
pub(super) struct WakeReport {
    branch: BranchId,
    name: Name,
    epoch: Epoch,
    at: Timestamp,
    restore: Duration,
    queue: Duration,
    start: StartPhases,
    attach: OnceLock<Duration>,
    told: AtomicBool,
    metrics: Arc<Metrics>,
}

impl WakeReport {
    pub(super) fn new(
        shared: &Shared,
        head: &Head,
        queue: Duration,
        restore: Duration,
        start: StartPhases,
    ) -> Self {
        let metrics = shared.metrics.clone();
        metrics.wake_phase(WakePhase::Restore, restore);
        metrics.wake_phase(WakePhase::Queue, queue);
        metrics.wake_phase(WakePhase::MongodStart, start.listening);
        metrics.wake_phase(WakePhase::Primary, start.primary);
        Self {
            branch: head.branch,
            name: head.branch_name.clone(),
            epoch: head.epoch,
            at: shared.clock.now(),
            restore,
            queue,
            start,
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
        info!(branch = %self.branch, name = %self.name, epoch = %self.epoch,
              restore_ms = ms(self.restore), queue_ms = ms(self.queue),
              mongod_start_ms = ms(self.start.listening), primary_ms = ms(self.start.primary),
              attach_ms = self.attach.get().copied().map(ms), "awake");
    }

    pub(super) fn view(&self) -> types::Wake {
        types::Wake {
            at: self.at.to_string(),
            restore_ms: ms(self.restore),
            queue_ms: ms(self.queue),
            mongod_start_ms: ms(self.start.listening),
            primary_ms: ms(self.start.primary),
            attach_ms: self.attach.get().copied().map(ms),
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
