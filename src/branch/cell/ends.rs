//! How what was under way for a branch ended, and what is remembered of that.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use super::{Cell, Failure, Inner, WAKE_BACKOFF};
use crate::base::limits::WAKES_KEPT;
use crate::base::metrics;
use crate::branch::BranchError;
use crate::branch::life::Life;
use crate::branch::mounted::Mounted;
use crate::branch::save::Saved;
use crate::branch::shared::Shared;
use crate::branch::state::{Event, Local, State};
use crate::branch::upload::Uploaded;

impl Cell {
    /// mongod ended by itself.
    pub(in crate::branch) fn died(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        life: &Arc<Life>,
        how: &str,
    ) {
        let mut inner = self.lock();
        let current = inner.life.as_ref().is_some_and(|current| Arc::ptr_eq(current, life));
        if !current || inner.state != State::Running {
            return;
        }
        warn!(branch = %self.id, name = %self.name, "mongod died: {how}");
        life.report.tell();
        life.finish();
        inner.life = None;
        inner.row.error = Some(format!("mongod died ({how}); the next command recovers it"));
        inner.unsaved_since.get_or_insert(shared.clock.now());
        self.fire_or_report(shared, &mut inner, Event::Died);
    }

    /// Another server has the branch: nothing more is said of it, its mongod ends now.
    pub(in crate::branch) fn lost(self: &Arc<Self>, shared: &Arc<Shared>, life: &Arc<Life>) {
        let mut inner = self.lock();
        let current = inner.life.as_ref().is_some_and(|current| Arc::ptr_eq(current, life));
        if current && inner.state == State::Running {
            life.finish();
            self.fire_or_report(shared, &mut inner, Event::Lost);
        }
    }

    /// The end of a wake.
    pub(in crate::branch) fn woken(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        result: Result<Life, BranchError>,
    ) {
        let mut inner = self.lock();
        let (event, outcome) = match result {
            Ok(life) => {
                shared.metrics.wake(metrics::Outcome::Done);
                // Where commands wait, the first of them completes the report.
                if self.parking.is_empty() {
                    life.report.tell();
                }
                if inner.wakes.len() == WAKES_KEPT {
                    inner.wakes.pop_front();
                }
                inner.wakes.push_back(life.report.clone());
                inner.life = Some(Arc::new(life));
                inner.failure = None;
                inner.row.error = None;
                inner.unsaved_since = None;
                (Event::WakeDone, Ok(()))
            }
            Err(source) => {
                shared.metrics.wake(metrics::Outcome::Failed);
                let source = Arc::new(source);
                let error = BranchError::Wake { branch: self.name.clone(), source };
                warn!(branch = %self.id, name = %self.name, error = error.chain(), "wake failed");
                let count =
                    inner.failure.as_ref().map_or(NonZeroU32::MIN, |f| f.count.saturating_add(1));
                let retry_at = Instant::now() + WAKE_BACKOFF.wait(count.get(), 1.0);
                inner.failure = Some(Failure { error: error.clone(), count, retry_at });
                // That it was lost says more than that it is still elsewhere.
                if inner.row.error.is_none() || !error.is_elsewhere() {
                    inner.row.error = Some(error.chain());
                }
                (Event::WakeFailed { local: inner.local_after(&error) }, Err(error))
            }
        };
        self.conclude(shared, &mut inner, event, outcome);
    }

    /// The end of a save, and how it is told to those who wait for it.
    pub(in crate::branch) fn saved(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        result: Result<Saved, BranchError>,
    ) -> Result<(), BranchError> {
        let mut inner = self.lock();
        if let Some(life) = inner.life.take() {
            life.report.tell();
        }
        let (event, outcome) = match result {
            Ok(Saved::Whole) => {
                shared.metrics.suspend(metrics::Outcome::Done);
                inner.row.error = None;
                inner.nothing_unsaved();
                (Event::Saved, Ok(()))
            }
            Ok(Saved::Here) => {
                inner.unsaved_since.get_or_insert(shared.clock.now());
                (Event::Slept, Ok(()))
            }
            Err(source) => {
                let error = self.not_saved(shared, &mut inner, source);
                (Event::SaveFailed { local: inner.local_after(&error) }, Err(error))
            }
        };
        self.conclude(shared, &mut inner, event, outcome.clone());
        outcome
    }

    /// What a lazy mount held when it was sealed is in the store. Where the branch sleeps, and that is all
    /// of it, its head is to be given back: then commands are parked until [`Self::saved`] is told the
    /// end of that.
    pub(in crate::branch) fn uploaded(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mounted: &Mounted,
    ) -> Uploaded {
        let mut inner = self.lock();
        if inner.state != State::Unsaved {
            return Uploaded::Awake;
        }
        // Nobody writes while it sleeps, and no wake begins while this is locked.
        if mounted.mount.is_changed() {
            return Uploaded::InPart;
        }
        self.fire_or_report(shared, &mut inner, Event::Uploaded);
        inner.transition = Some(watch::Sender::new(None));
        Uploaded::Whole
    }

    /// What was on a lazy mount could not be brought to the store. Gives what to tell whoever asked.
    pub(in crate::branch) fn upload_failed(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        source: BranchError,
    ) -> BranchError {
        let mut inner = self.lock();
        let error = self.not_saved(shared, &mut inner, source);
        self.fire_or_report(shared, &mut inner, Event::UploadFailed);
        error
    }

    /// What a running branch has written is in the store up to now, after perhaps some failures.
    pub(in crate::branch) fn caught_up(&self) {
        let mut inner = self.lock();
        inner.failed_saves = 0;
        inner.row.error = None;
    }

    /// Remembers that a save failed, and gives that as people read it.
    fn not_saved(&self, shared: &Shared, inner: &mut Inner, source: BranchError) -> BranchError {
        shared.metrics.suspend(metrics::Outcome::Failed);
        let (branch, local) = (self.name.clone(), inner.local());
        let error = match (local, source) {
            (_, lost @ (BranchError::Lost { .. } | BranchError::Save { .. })) => lost,
            (Local::Nothing, source) => BranchError::Head { branch, source: Arc::new(source) },
            (_, source) => {
                let kept = shared.layout.branch(self.id).kept();
                BranchError::Save { branch, kept, source: Arc::new(source) }
            }
        };
        error!(branch = %self.id, name = %self.name, error = error.chain(), "save failed");
        inner.row.error = Some(error.chain());
        match local {
            Local::Nothing => inner.nothing_unsaved(),
            _ => {
                inner.failed_saves = inner.failed_saves.saturating_add(1);
                if inner.state != State::Running {
                    inner.unsaved_since.get_or_insert(shared.clock.now());
                }
            }
        }
        error
    }

    fn conclude(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        inner: &mut Inner,
        event: Event,
        outcome: Result<(), BranchError>,
    ) {
        let transition = inner.transition.take();
        self.fire_or_report(shared, inner, event);
        if let Some(transition) = transition {
            transition.send_replace(Some(outcome));
        }
    }
}
