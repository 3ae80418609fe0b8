//! Becoming the writer of a branch: its head, moved to name this server.

use std::sync::Arc;

use tracing::warn;

use super::BranchError;
use super::cell::Cell;
use super::life::Life;
use super::reconcile::reconcile;
use super::shared::Shared;
use crate::base::backoff::Backoff;
use crate::base::limits::{WAKE_BACKOFF_CAP, WAKE_BACKOFF_FIRST};
use crate::catalog::LocalData;
use crate::store::ETag;
use crate::volume::{Head, VolumeError};

/// A head that this server moved, and what it must still be when it is moved again.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) head: Head,
    pub(super) etag: ETag,
    /// The term of the server's lease in which that was done.
    pub(super) term: u64,
}

/// Between two tries to claim a head anew.
const RETRY: Backoff = Backoff { first: WAKE_BACKOFF_FIRST, cap: WAKE_BACKOFF_CAP };

/// Claims the branch's next life.
///
/// A branch with unsaved writes whose claim still holds needs no store for that: it wakes while the
/// store is away. Its new epoch is then only in the catalog until its head is moved.
pub(super) async fn claim(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Claim, BranchError> {
    let _moving = cell.moving.lock().await;
    let unsaved = cell.row().local != LocalData::None;
    let claim = match cell.claim() {
        Some(held) if unsaved && shared.lease.covers(held.term) => {
            Claim { head: Head { epoch: held.head.epoch.next(), ..held.head }, ..held }
        }
        _ => {
            let Claim { head, etag, term } = reconcile(shared, cell).await?;
            // Of a life that was claimed without the store, only the row knows.
            let epoch = head.epoch.max(cell.row().epoch).next();
            let head = Head { epoch, owner: Some(shared.server), ..head };
            let etag = shared.volumes.move_head(&head, &etag).await?;
            Claim { head, etag, term }
        }
    };
    cell.set_claim(Some(claim.clone()));
    cell.update_row(shared, |row| row.epoch = claim.head.epoch)?;
    Ok(claim)
}

/// Gives a branch back that could not be woken, so that another server may try. Left undone, this
/// server keeps it, and others wait as long as this one lives.
pub(super) async fn release(shared: &Shared, cell: &Cell) {
    let _moving = cell.moving.lock().await;
    let Some(claim) = cell.claim() else { return };
    let head = Head { owner: None, ..claim.head };
    match shared.volumes.move_head(&head, &claim.etag).await {
        Ok(_) => cell.set_claim(None),
        Err(error) => {
            let error = BranchError::from(error);
            warn!(branch = %cell.id, name = %cell.name, error = error.chain(), "give a branch back");
        }
    }
}

/// The head to move: as this server last moved it, or as the store has it. No mongod runs.
pub(super) async fn writable(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Claim, BranchError> {
    match cell.claim() {
        Some(claim) => Ok(claim),
        None if cell.life().is_some_and(|life| !life.is_over()) => refreshed(shared, cell).await,
        None => reconcile(shared, cell).await,
    }
}

/// The head of a branch whose mongod may run here, read again because it is not what this server
/// remembers. Nothing is brought to safety here: that is for whoever has stopped the mongod.
///
/// # Errors
/// [`VolumeError::Fenced`] where it is another's.
pub(super) async fn refreshed(shared: &Shared, cell: &Cell) -> Result<Claim, BranchError> {
    let term = shared.lease.hold(&shared.volumes).await?;
    let (head, etag) = shared.volumes.head(cell.id).await?;
    if head.owner != Some(shared.server) {
        let (epoch, found) = (cell.row().epoch, Some(head.epoch));
        return Err(VolumeError::Fenced { branch: cell.id, epoch, found, owner: head.owner }.into());
    }
    // Of a life that was claimed without the store, only the row knows.
    let epoch = head.epoch.max(cell.row().epoch);
    Ok(Claim { head: Head { epoch, ..head }, etag, term })
}

/// Runs for one life: whenever the server lost its lease, claims the head anew or gives the branch
/// up. Meanwhile nothing is said to its clients.
pub(super) async fn stay_owner(shared: &Arc<Shared>, cell: &Arc<Cell>, life: &Arc<Life>) {
    let mut terms = shared.lease.terms();
    let mut failures = 0;
    loop {
        let term = *terms.borrow_and_update();
        if term != life.term() {
            match reclaim(shared, cell, life, term).await {
                Ok(()) => failures = 0,
                Err(BranchError::Volume { source })
                    if matches!(*source, VolumeError::Fenced { .. }) =>
                {
                    return cell.lost(shared, life);
                }
                Err(error) => {
                    warn!(branch = %cell.id, name = %cell.name, error = error.chain(),
                          "claim a branch anew");
                    failures += 1;
                    tokio::time::sleep(RETRY.wait(failures, 1.0)).await;
                    continue;
                }
            }
        }
        if terms.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn reclaim(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    life: &Arc<Life>,
    term: u64,
) -> Result<(), BranchError> {
    let _moving = cell.moving.lock().await;
    let held = match cell.claim() {
        Some(held) => held,
        None => refreshed(shared, cell).await?,
    };
    // Another epoch makes another object of it: who read the head before can no longer move it.
    let next = |head: Head| Head { epoch: head.epoch.next(), owner: Some(shared.server), ..head };
    let mut head = next(held.head);
    let etag = match shared.volumes.move_head(&head, &held.etag).await {
        // Perhaps by this server, when a version was published and the answer was lost.
        Err(VolumeError::Fenced { .. }) => {
            let now = refreshed(shared, cell).await?;
            head = next(now.head);
            shared.volumes.move_head(&head, &now.etag).await?
        }
        moved => moved?,
    };
    cell.update_row(shared, |row| row.epoch = head.epoch)?;
    cell.set_claim(Some(Claim { head, etag, term }));
    life.reclaimed(term);
    Ok(())
}
