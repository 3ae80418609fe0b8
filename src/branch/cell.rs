//! One branch: its state, and the only place that changes it.

mod ends;
mod perform;

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon_admin::types::Label;
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};
use tokio::time::Instant;
use tracing::error;

use super::claim::Claim;
use super::lease::{Lease, Use};
use super::life::Life;
use super::mounted::Mounted;
use super::parked::{Parking, Waiter};
use super::report::WakeReport;
use super::save::Snapshot;
use super::shared::Shared;
use super::state::{Event, IllegalTransition, Local, State};
use super::upgrade::{self, SetFcv, Upgrade};
use super::upload::{self, Need, Wish};
use super::{BranchError, birth, history};
use crate::base::backoff::Backoff;
use crate::base::clock::Timestamp;
use crate::base::gauge::Gauge;
use crate::base::ids::{BranchId, VersionId};
use crate::base::limits::{
    SAVE_BACKOFF_CAP, SAVE_BACKOFF_FIRST, WAKE_BACKOFF_CAP, WAKE_BACKOFF_FIRST,
};
use crate::base::name::Name;
use crate::catalog::{BranchRow, LocalData};
use crate::compute::Build;
use crate::volume::Cause;

/// What everybody gets who waits for a transition to end; `None` while it runs.
pub(super) type Outcome = Option<Result<(), BranchError>>;

/// After a failed wake, commands are refused this long instead of trying at once again.
const WAKE_BACKOFF: Backoff = Backoff { first: WAKE_BACKOFF_FIRST, cap: WAKE_BACKOFF_CAP };

/// A branch whose writes could not be saved is saved again after this long.
const SAVE_BACKOFF: Backoff = Backoff { first: SAVE_BACKOFF_FIRST, cap: SAVE_BACKOFF_CAP };

/// A branch of this server. All changes go through [`Cell::fire`], under one lock that is never
/// held across an await.
pub(super) struct Cell {
    pub(super) id: BranchId,
    pub(super) name: Name,
    pub(super) project: Name,
    /// Client connections that are routed here, for people to see.
    pub(super) clients: AtomicUsize,
    /// Those of them that have used it.
    pub(super) users: Gauge,
    /// Held by whoever writes its first head.
    pub(super) birth: AsyncMutex<()>,
    /// Held by whoever makes a version of what is mounted: one at a time.
    pub(super) uploading: AsyncMutex<()>,
    /// Held by whoever moves the head, from reading the claim to having kept the new one.
    pub(super) moving: AsyncMutex<()>,
    /// Held by whoever mounts or unmounts.
    pub(super) mounting: AsyncMutex<()>,
    parking: Parking,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    row: BranchRow,
    /// While `Running`, and until its mongod is stopped.
    life: Option<Arc<Life>>,
    /// From a wake on a lazy mount until its writes are in the store.
    mounted: Option<Arc<Mounted>>,
    /// The head as this server last moved it for itself; kept until it is given back.
    claim: Option<Claim>,
    /// While a transition runs: where its outcome is announced.
    transition: Option<watch::Sender<Outcome>>,
    failure: Option<Failure>,
    /// How the last wakes went, the newest last.
    wakes: VecDeque<Arc<WakeReport>>,
    /// Saves that failed in a row.
    failed_saves: u32,
    /// Since when there are writes that no version has, and no mongod that they belong to.
    unsaved_since: Option<Timestamp>,
    /// What the snapshot that is about to begin is to be, and what is to follow it.
    snapshot: Option<(Snapshot, Option<Upgrade>)>,
}

/// A wake that failed, so that a broken branch does not spin.
struct Failure {
    error: BranchError,
    count: NonZeroU32,
    retry_at: Instant,
}

/// A branch as it stands at one moment.
pub(super) struct Standing {
    pub(super) state: State,
    pub(super) row: BranchRow,
    pub(super) in_flight: usize,
    pub(super) is_frozen: bool,
    pub(super) last_wake: Option<Arc<WakeReport>>,
    pub(super) unsaved_since: Option<Timestamp>,
}

/// What a command finds.
pub(super) enum Attach {
    /// The branch runs.
    Lease(Lease),
    /// A transition runs, and the waiter has its place; try again when it has ended.
    Wait(watch::Receiver<Outcome>),
}

/// Whether an old failure is an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A command: within the back-off, the failure is the answer.
    BackOff,
    /// A person said `resume`: try again at once.
    TryNow,
}

impl Cell {
    pub(super) fn new(row: BranchRow, project: Name) -> Arc<Self> {
        let state = match (&row.deleted, &row.local) {
            (Some(_), _) => State::Deleted,
            (None, LocalData::Present { .. }) => State::Unsaved,
            (None, LocalData::None) => State::Suspended,
        };
        // Of what was unsaved when an earlier server ended, only the last try to save it is known.
        let unsaved_since = match row.local {
            LocalData::Present { saving, .. } => saving.map(VersionId::made),
            LocalData::None => None,
        };
        Arc::new(Self {
            id: row.id,
            name: row.name.clone(),
            project,
            clients: AtomicUsize::new(0),
            users: Gauge::default(),
            birth: AsyncMutex::default(),
            uploading: AsyncMutex::default(),
            moving: AsyncMutex::default(),
            mounting: AsyncMutex::default(),
            parking: Parking::default(),
            inner: Mutex::new(Inner {
                state,
                row,
                life: None,
                mounted: None,
                claim: None,
                transition: None,
                failure: None,
                wakes: VecDeque::new(),
                failed_saves: 0,
                unsaved_since,
                snapshot: None,
            }),
        })
    }

    pub(super) fn standing(&self) -> Standing {
        let inner = self.lock();
        let in_flight = inner.life.as_ref().map_or(0, |life| life.in_flight());
        let is_frozen = inner.life.as_ref().is_some_and(|life| life.is_frozen());
        let last_wake = inner.wakes.back().cloned();
        let unsaved_since = inner.unsaved_since;
        let (state, row) = (inner.state, inner.row.clone());
        Standing { state, row, in_flight, is_frozen, last_wake, unsaved_since }
    }

    pub(super) fn state(&self) -> State {
        self.lock().state
    }

    pub(super) fn row(&self) -> BranchRow {
        self.lock().row.clone()
    }

    /// How many commands wait for it.
    pub(super) fn parked(&self) -> usize {
        self.parking.count()
    }

    pub(super) fn life(&self) -> Option<Arc<Life>> {
        self.lock().life.clone()
    }

    pub(super) fn mounted(&self) -> Option<Arc<Mounted>> {
        self.lock().mounted.clone()
    }

    /// Gives the one before.
    pub(super) fn set_mounted(&self, mounted: Option<Arc<Mounted>>) -> Option<Arc<Mounted>> {
        std::mem::replace(&mut self.lock().mounted, mounted)
    }

    /// How its last wakes went, the newest last.
    pub(super) fn wakes(&self) -> Vec<Arc<WakeReport>> {
        self.lock().wakes.iter().cloned().collect()
    }

    pub(super) fn claim(&self) -> Option<Claim> {
        self.lock().claim.clone()
    }

    pub(super) fn set_claim(&self, claim: Option<Claim>) {
        self.lock().claim = claim;
    }

    /// Whether the store's head may name this server because of it.
    pub(super) fn needs_lease(&self) -> bool {
        !matches!(self.lock().state, State::Suspended | State::Deleted)
    }

    /// Changes the row, on disk first.
    pub(super) fn update_row(
        &self,
        shared: &Shared,
        change: impl FnOnce(&mut BranchRow),
    ) -> Result<BranchRow, BranchError> {
        let mut inner = self.lock();
        let mut row = inner.row.clone();
        change(&mut row);
        shared.catalog.update_branch(&row)?;
        inner.row = row.clone();
        Ok(row)
    }

    /// Takes a row that is in the catalog already.
    pub(super) fn adopt_row(&self, row: BranchRow) {
        self.lock().row = row;
    }

    /// Begins a request on a branch that runs right now.
    pub(super) fn attach_running(&self, use_: Use) -> Option<Lease> {
        self.lock().running().map(|life| Lease::begin(life.clone(), use_))
    }

    /// Begins a request on a running branch, or begins or joins its wake.
    pub(super) fn attach(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        use_: Use,
        patience: Patience,
        waiter: &mut Waiter,
    ) -> Result<Attach, BranchError> {
        let mut inner = self.lock();
        if let Some(life) = inner.running() {
            if !life.is_current() {
                return Err(BranchError::Lapsed { branch: self.name.clone() });
            }
            return Ok(Attach::Lease(Lease::begin(life.clone(), use_)));
        }
        if shared.closing.is_cancelled() {
            return Err(BranchError::Closing);
        }
        if let (Patience::BackOff, Some(failure)) = (patience, &inner.failure)
            && Instant::now() < failure.retry_at
        {
            return Err(failure.error.clone());
        }
        match self.fire(shared, &mut inner, Event::Demand) {
            Ok(()) | Err(IllegalTransition::Busy(_)) => {
                waiter.park(&self.parking, &self.name)?;
                Ok(Attach::Wait(inner.subscribe()))
            }
            Err(illegal) => Err(self.refusal(&inner, illegal)),
        }
    }

    /// Asks for a transition. A branch that just woke up is not taken from those who waited for it.
    pub(super) fn ask(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        event: Event,
    ) -> Result<Asked, BranchError> {
        self.begin(shared, &mut self.lock(), event)
    }

    fn begin(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        inner: &mut Inner,
        event: Event,
    ) -> Result<Asked, BranchError> {
        if inner.state == State::Running && !self.parking.is_empty() {
            return Ok(Asked::Awaited);
        }
        match self.fire(shared, inner, event) {
            Ok(()) if inner.transition.is_some() => Ok(Asked::Begun(inner.subscribe())),
            Ok(()) => Ok(Asked::Already),
            Err(IllegalTransition::Busy(_)) => Ok(Asked::Busy(inner.subscribe())),
            Err(illegal) => Err(self.refusal(inner, illegal)),
        }
    }

    /// Asks for a transition, waits out whatever is in its way, and waits for its end.
    pub(super) async fn settle(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        event: Event,
    ) -> Result<(), BranchError> {
        loop {
            if let Some(end) = self.end_of(self.ask(shared, event)?).await {
                return end;
            }
        }
    }

    /// As [`Self::settle`] with a suspend, and returns when what was written is in the store too.
    pub(super) async fn settle_saved(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<(), BranchError> {
        self.settle(shared, Event::Suspend).await?;
        // Behind the upload that a suspend begins: what that could not do is tried once more.
        upload::upload(shared, self, Wish::new(shared, Cause::Suspend)).await?;
        birth::ensure(shared, self).await
    }

    /// Makes a version of the present state, and waits until it is there. The label is looked up
    /// under the lock that the transition begins under: of two who want it one gets it.
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        label: Option<Label>,
    ) -> Result<VersionId, BranchError> {
        loop {
            let id = VersionId::generate(shared.clock.now());
            if self.mounted().is_some() && matches!(self.state(), State::Running | State::Unsaved) {
                let (cause, label) = (Cause::Snapshot, label.clone());
                let wish = Wish { id, cause, label, need: Need::Always };
                match upload::upload(shared, self, wish).await? {
                    Some(version) => return Ok(version),
                    None => continue,
                }
            }
            let asked = {
                let mut inner = self.lock();
                if let Some(label) = &label {
                    history::check_free(shared, &inner.row, label)?;
                }
                inner.snapshot = Some((Snapshot { id, label: label.clone() }, None));
                self.begin(shared, &mut inner, Event::Snapshot)?
            };
            if let Some(end) = self.end_of(asked).await {
                return end.map(|()| id);
            }
        }
    }

    /// Moves the branch to another image behind a snapshot, and waits until that is done.
    pub(super) async fn upgrade(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        to: &Build,
        set_fcv: SetFcv,
    ) -> Result<VersionId, BranchError> {
        loop {
            let id = VersionId::generate(shared.clock.now());
            let snapshot = Snapshot { id, label: Some(upgrade::label(id)?) };
            let (answer, answered) = oneshot::channel();
            let following = Upgrade { to: to.clone(), set_fcv, answer };
            let asked = {
                let mut inner = self.lock();
                inner.snapshot = Some((snapshot, Some(following)));
                self.begin(shared, &mut inner, Event::Snapshot)?
            };
            if let Some(end) = self.end_of(asked).await {
                end?;
                return answered.await.unwrap_or(Err(BranchError::Closing));
            }
        }
    }

    /// A version that holds all that was written until now. A branch that runs on a lazy mount goes
    /// on meanwhile; any other is suspended for it.
    pub(super) async fn present_state(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<VersionId, BranchError> {
        if self.mounted().is_some() && matches!(self.state(), State::Running | State::Unsaved) {
            let wish = Wish::new(shared, Cause::Snapshot);
            if let Some(version) = upload::upload(shared, self, wish).await? {
                return Ok(version);
            }
        }
        self.settle_saved(shared).await?;
        Ok(self.row().head)
    }

    /// How it ended; `None` where something else had to end first: then it is to be asked again.
    async fn end_of(&self, asked: Asked) -> Option<Result<(), BranchError>> {
        match asked {
            Asked::Already => return Some(Ok(())),
            Asked::Begun(outcome) => return Some(ended(outcome).await),
            // Whether that other transition succeeds is not this asker's business.
            Asked::Busy(outcome) => drop(ended(outcome).await),
            Asked::Awaited => self.parking.until_empty().await,
        }
        None
    }

    /// The idle rule, checked and acted upon under the lock that commands attach under.
    pub(super) fn suspend_if_idle(self: &Arc<Self>, shared: &Arc<Shared>, life: &Arc<Life>) {
        let mut inner = self.lock();
        let current = inner.life.as_ref().is_some_and(|current| Arc::ptr_eq(current, life));
        let timeout = shared.idle_timeout(&inner.row);
        if current && timeout.is_some_and(|timeout| life.is_idle_for(timeout)) {
            self.fire_or_report(shared, &mut inner, Event::IdleElapsed);
        }
    }

    fn fire_or_report(self: &Arc<Self>, shared: &Arc<Shared>, inner: &mut Inner, event: Event) {
        if let Err(illegal) = self.fire(shared, inner, event) {
            error!(branch = %self.id, name = %self.name, "{illegal}: a defect; nothing was changed");
        }
    }

    fn refusal(&self, inner: &Inner, illegal: IllegalTransition) -> BranchError {
        match illegal {
            IllegalTransition::Deleted => BranchError::Deleted { branch: self.name.clone() },
            IllegalTransition::NotDeleted => BranchError::NotDeleted { branch: self.name.clone() },
            IllegalTransition::NotHeld => BranchError::NotHeld { branch: self.name.clone() },
            IllegalTransition::Held => {
                let reason = inner.row.error.clone().unwrap_or_default();
                BranchError::Held { branch: self.name.clone(), reason }
            }
            source => BranchError::Lifecycle { source },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under this lock is a defect in one branch; the others and this one's data are
        // better served by going on than by a second panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a transition that was asked for stands.
pub(super) enum Asked {
    /// What was asked for is so already.
    Already,
    /// It began.
    Begun(watch::Receiver<Outcome>),
    /// Another one runs first.
    Busy(watch::Receiver<Outcome>),
    /// Commands that waited for the wake come first.
    Awaited,
}

impl Inner {
    fn nothing_unsaved(&mut self) {
        self.failed_saves = 0;
        self.unsaved_since = None;
        self.claim = None;
    }

    fn local(&self) -> Local {
        match self.row.local {
            LocalData::None => Local::Nothing,
            LocalData::Present { .. } => Local::Unsaved,
        }
    }

    /// What the working directory is after something failed that has to do with it.
    fn local_after(&self, error: &BranchError) -> Local {
        match self.local() {
            Local::Unsaved if error.is_local_damage() => Local::Damaged,
            local => local,
        }
    }

    fn running(&self) -> Option<&Arc<Life>> {
        self.life.as_ref().filter(|_| self.state == State::Running)
    }

    fn subscribe(&self) -> watch::Receiver<Outcome> {
        match &self.transition {
            Some(transition) => transition.subscribe(),
            // Nothing runs, so there is nothing to wait for: look again.
            None => watch::Sender::new(Some(Ok(()))).subscribe(),
        }
    }
}

/// Waits for a transition to end.
pub(super) async fn ended(mut outcome: watch::Receiver<Outcome>) -> Result<(), BranchError> {
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
        // The task was dropped with its runtime: the server ends.
        Err(_) => Err(BranchError::Closing),
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({}/{} {})", self.project, self.name, self.id)
    }
}
