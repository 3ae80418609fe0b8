//! The right to send one request to a branch's mongod.

use std::path::Path;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::BranchError;
use super::cell::{Attach, Cell, Patience, ended};
use super::clients::ClientCount;
use super::life::Life;
use super::parked::Waiter;
use super::shared::Shared;
use crate::base::ids::{BranchId, Epoch};
use crate::base::limits::WAKE_WAIT;
use crate::base::name::Name;

/// What a request means to the idle rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It keeps the branch awake.
    Work,
    /// It is answered, but does not keep the branch awake.
    Probe,
}

/// Whether a reply of a branch's mongod may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Good,
    /// It may, but its mongod is being stopped, or died.
    Over,
    /// No: this server's lease on the branch has ended, and another may be writing it.
    Lapsed,
}

/// A branch that a client is routed to. Holding one neither wakes it nor keeps it awake.
#[derive(Clone, Debug)]
pub struct BranchHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) cell: Arc<Cell>,
    pub(super) count: Arc<ClientCount>,
}

impl BranchHandle {
    pub(super) fn new(shared: Arc<Shared>, cell: Arc<Cell>) -> Self {
        let count = Arc::new(ClientCount::new(cell.clone()));
        Self { shared, cell, count }
    }

    /// The branch's id.
    pub fn id(&self) -> BranchId {
        self.cell.id
    }

    /// The branch's name.
    pub fn name(&self) -> &Name {
        &self.cell.name
    }

    /// The name of its project.
    pub fn project(&self) -> &Name {
        &self.cell.project
    }

    /// Begins a request if the branch runs right now; neither waits nor wakes.
    pub fn acquire_running(&self, use_: Use) -> Option<Lease> {
        self.cell.attach_running(use_)
    }

    /// Begins a request: at once on a running branch; else waits until it is awake, and causes the
    /// one wake that all who ask at the same time share.
    ///
    /// # Errors
    /// Too many connections use the branch, it is deleted, its wake failed (then, or within the back-off before), the wait took
    /// longer than [`WAKE_WAIT`], too many wait already, or the server is shutting down.
    ///
    /// `buffered` is how many bytes at most are held in memory for it meanwhile.
    ///
    /// Cancel safe: dropping the future stops waiting, and the wake goes on for the others.
    pub async fn acquire(&self, use_: Use, buffered: usize) -> Result<Lease, BranchError> {
        self.count.take_place(&self.shared)?;
        let deadline = Instant::now() + WAKE_WAIT;
        let mut waiter = Waiter::new(buffered);
        loop {
            let attach = self.cell.attach(&self.shared, use_, Patience::BackOff, &mut waiter)?;
            let outcome = match attach {
                Attach::Lease(lease) => return Ok(lease),
                Attach::Wait(outcome) => outcome,
            };
            let ended = timeout_at(deadline, ended(outcome)).await.map_err(|_| {
                BranchError::WakeTimeout { branch: self.name().clone(), waited: WAKE_WAIT }
            })?;
            match ended {
                // A suspend that was in the way failed: the branch can be woken from what is left.
                Ok(()) | Err(BranchError::Save { .. } | BranchError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One request in flight. While it lives, the branch is not suspended for being idle, and a
/// suspend waits for it (within limits); dropping it ends the request.
#[derive(Debug)]
pub struct Lease {
    life: Arc<Life>,
    use_: Use,
}

impl Lease {
    pub(super) fn begin(life: Arc<Life>, use_: Use) -> Self {
        life.begin(use_);
        Self { life, use_ }
    }

    /// The branch.
    pub fn branch(&self) -> BranchId {
        self.life.branch
    }

    /// Which life of the branch this is; a connection made in another one is of no use.
    pub fn epoch(&self) -> Epoch {
        self.life.epoch
    }

    /// Nobody's command is to follow: the report of this life's wake is complete.
    pub(super) fn tell_wake(&self) {
        self.life.report.tell();
    }

    /// Tells that the first command of a connection that was made anew can go out: the last phase
    /// of a wake ends with the first one.
    pub fn attached(&self) {
        self.life.attached();
    }

    /// The Unix socket of the branch's mongod in this life.
    pub fn socket(&self) -> &Path {
        self.life.socket()
    }

    /// Cancelled when the life's mongod is about to be stopped, or died.
    pub fn ended(&self) -> &CancellationToken {
        &self.life.ended
    }

    /// Whether a reply may be passed on right now; cheap enough to ask with every one.
    pub fn standing(&self) -> Standing {
        if !self.life.is_current() {
            Standing::Lapsed
        } else if self.life.is_over() {
            Standing::Over
        } else {
            Standing::Good
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.life.end(self.use_);
    }
}
