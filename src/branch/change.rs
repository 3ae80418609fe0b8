//! Changes of what a branch says itself: its idle time-out, how often a version is made of it, how
//! long it is kept warm.
//!
//! They stand in the head, so that they go with the branch to other servers, and in the catalog's
//! row, which is what a server looks at.

use std::sync::Arc;

use argon_admin::types::{self, ChangeBranch, IdleTimeout, KeepWarm, SnapshotEvery};
use tracing::info;

use super::cell::Cell;
use super::claim::{Claim, writable};
use super::shared::Shared;
use super::{BranchError, Branches, view};
use crate::base::failpoint::failpoint;
use crate::base::own_time::OwnTime;
use crate::volume::Head;

impl Branches {
    /// Changes settings of a branch. One that runs here takes them at once.
    ///
    /// # Errors
    /// There is no such branch, another server has it, or the store cannot be written; then
    /// everything is as it was.
    pub async fn change(
        &self,
        project: &str,
        branch: &str,
        change: ChangeBranch,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        let idle = change.idle_timeout.map(idle_timeout);
        let snapshots = change.snapshot_every.map(snapshot_every);
        let warm = change.keep_warm.map(keep_warm);
        change_head(&self.shared, &cell, |head| {
            head.idle_timeout = idle.unwrap_or(head.idle_timeout);
            head.snapshot_every = snapshots.unwrap_or(head.snapshot_every);
            head.keep_warm = warm.unwrap_or(head.keep_warm);
        })
        .await?;
        failpoint("change.head");
        let row = cell.update_row(&self.shared, |row| {
            row.idle_timeout = idle.unwrap_or(row.idle_timeout);
            row.snapshot_every = snapshots.unwrap_or(row.snapshot_every);
            row.keep_warm = warm.unwrap_or(row.keep_warm);
        })?;
        self.shared.settings_changed();
        info!(branch = %cell.id, name = %cell.name, idle_timeout = ?row.idle_timeout,
              snapshot_every = ?row.snapshot_every, keep_warm = ?row.keep_warm,
              "changed a branch's settings");
        view::branch(&self.shared, &cell)
    }
}

/// Moves a branch's head within its life and version: the only place that does. A branch that this
/// server has claimed keeps its claim, on the head as it is now.
async fn change_head(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    change: impl FnOnce(&mut Head),
) -> Result<(), BranchError> {
    let _moving = cell.moving.lock().await;
    let is_held = cell.claim().is_some();
    // Another server that has the branch would lose it by this, and is asked first.
    let Claim { mut head, etag, term } = writable(shared, cell).await?;
    change(&mut head);
    let etag = shared.volumes.move_head(&head, &etag).await?;
    if is_held {
        cell.set_claim(Some(Claim { head, etag, term }));
    }
    Ok(())
}

/// What a branch says itself; nothing is what the server says.
pub(super) fn idle_timeout(own: Option<IdleTimeout>) -> OwnTime {
    OwnTime::of(own.map(IdleTimeout::duration))
}

/// The same for its snapshots.
pub(super) fn snapshot_every(own: Option<SnapshotEvery>) -> OwnTime {
    OwnTime::of(own.map(SnapshotEvery::duration))
}

/// The same for the time that its idle mongod stands still.
pub(super) fn keep_warm(own: Option<KeepWarm>) -> OwnTime {
    OwnTime::of(own.map(KeepWarm::duration))
}
