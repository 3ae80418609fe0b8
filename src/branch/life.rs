//! One life of a branch: from its mongod being ready to its mongod being stopped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lease::Use;
use super::report::WakeReport;
use crate::base::ids::Epoch;
use crate::compute::Instance;
use crate::store::ETag;
use crate::volume::Head;

/// A running branch, and what happens on it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) epoch: Epoch,
    pub(super) instance: Arc<dyn Instance>,
    /// The head as this life claimed it, and what it must still be when it is moved.
    pub(super) head: Head,
    pub(super) etag: ETag,
    /// How long its wake took.
    pub(super) report: Arc<WakeReport>,
    /// Cancelled when its mongod is about to be stopped, or died; ends its watch, and whatever else
    /// has no use without it.
    pub(super) ended: CancellationToken,
    /// The same, for those who ask with every reply.
    over: AtomicBool,
    started: Instant,
    last_work_ms: AtomicU64,
    in_flight: AtomicUsize,
    quiet: Notify,
}

impl Life {
    pub(super) fn new(
        instance: Arc<dyn Instance>,
        head: Head,
        etag: ETag,
        report: WakeReport,
    ) -> Self {
        Self {
            epoch: head.epoch,
            instance,
            head,
            etag,
            report: Arc::new(report),
            ended: CancellationToken::new(),
            over: AtomicBool::new(false),
            started: Instant::now(),
            last_work_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            quiet: Notify::new(),
        }
    }

    pub(super) fn socket(&self) -> &Path {
        self.instance.socket()
    }

    /// A command's connection to mongod stands.
    pub(super) fn attached(&self) {
        self.report.attached(self.started);
    }

    /// Its mongod is about to be stopped, or died.
    pub(super) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self, use_: Use) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.mark(use_);
    }

    pub(super) fn end(&self, use_: Use) {
        self.mark(use_);
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.quiet.notify_waiters();
        }
    }

    fn mark(&self, use_: Use) {
        if use_ == Use::Work {
            let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_work_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// When the branch will have been idle for `timeout`, if nothing more happens.
    pub(super) fn idle_at(&self, timeout: Duration) -> Instant {
        let last_work = Duration::from_millis(self.last_work_ms.load(Ordering::Relaxed));
        self.started + last_work + timeout
    }

    pub(super) fn is_idle_for(&self, timeout: Duration) -> bool {
        self.in_flight() == 0 && self.idle_at(timeout) <= Instant::now()
    }

    /// Returns when no request is in flight.
    pub(super) async fn until_quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            // Registered before the check, so that an end between the two is not missed.
            quiet.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            quiet.await;
        }
    }
}
