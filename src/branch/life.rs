//! One life of a branch: from its mongod being ready to its mongod being stopped.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::lease::Use;
use super::report::WakeReport;
use super::server_lease::ServerLease;
use crate::base::ids::{BranchId, Epoch};
use crate::compute::Instance;

/// A running branch, and what happens on it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) branch: BranchId,
    pub(super) epoch: Epoch,
    pub(super) instance: Arc<dyn Instance>,
    lease: Arc<ServerLease>,
    /// In which term of the lease its head was last claimed.
    term: AtomicU64,
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
    /// Whether its mongod stands still until somebody wants something of it.
    frozen: AtomicBool,
    /// Held by whoever freezes or thaws it.
    freezing: Mutex<()>,
    thawed: Notify,
}

impl Life {
    pub(super) fn new(
        instance: Arc<dyn Instance>,
        lease: Arc<ServerLease>,
        claim: &Claim,
        report: WakeReport,
    ) -> Self {
        Self {
            branch: claim.head.branch,
            epoch: claim.head.epoch,
            instance,
            lease,
            term: claim.term.into(),
            report: Arc::new(report),
            ended: CancellationToken::new(),
            over: AtomicBool::new(false),
            started: Instant::now(),
            last_work_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            quiet: Notify::new(),
            frozen: AtomicBool::new(false),
            freezing: Mutex::default(),
            thawed: Notify::new(),
        }
    }

    pub(super) fn socket(&self) -> &Path {
        self.instance.socket()
    }

    /// Whether what its mongod says may be passed on: this server is the branch's only writer now.
    pub(super) fn is_current(&self) -> bool {
        self.lease.covers(self.term())
    }

    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Its head was claimed anew.
    pub(super) fn reclaimed(&self, term: u64) {
        self.term.store(term, Ordering::Release);
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
        // With the order that `freeze` has: either it sees this request, or it is seen here.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.mark(use_);
        if self.frozen.load(Ordering::SeqCst) {
            self.thaw();
        }
    }

    /// Has its mongod stand still, unless a request is in flight or that cannot be done; whether it
    /// stands still now.
    pub(super) fn freeze(&self) -> bool {
        let _turn = self.freezing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.frozen.swap(true, Ordering::SeqCst) {
            return true;
        }
        let still = self.in_flight.load(Ordering::SeqCst) == 0 && self.instance.freeze();
        if still && self.in_flight.load(Ordering::SeqCst) > 0 {
            // It came meanwhile, and waits for this turn, or saw nothing of it.
            self.instance.thaw();
            self.frozen.store(false, Ordering::SeqCst);
            return false;
        }
        self.frozen.store(still, Ordering::SeqCst);
        still
    }

    fn thaw(&self) {
        let _turn = self.freezing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.frozen.swap(false, Ordering::SeqCst) {
            self.instance.thaw();
            self.thawed.notify_waiters();
        }
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Returns when its mongod goes on.
    pub(super) async fn until_thawed(&self) {
        let thawed = self.thawed.notified();
        tokio::pin!(thawed);
        thawed.as_mut().enable();
        if self.is_frozen() {
            thawed.await;
        }
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

    /// A number that changes with every command that works on it.
    pub(super) fn last_work(&self) -> u64 {
        self.last_work_ms.load(Ordering::Relaxed)
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
