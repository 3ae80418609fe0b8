//! The first head of a new branch, which follows the answer.
//!
//! A branch is there as soon as the catalog has it, on this server's disk like every write that no
//! version has yet. Its head goes to the store behind that, tried until it is there: so a branch is
//! made in the time of a local write, however far the store is, and while it is away.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use tracing::warn;

use super::BranchError;
use super::cell::Cell;
use super::shared::Shared;
use crate::base::backoff::Backoff;
use crate::base::clock::Timestamp;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::base::limits::{SAVE_BACKOFF_CAP, SAVE_BACKOFF_FIRST};
use crate::catalog::{BranchRow, ProjectRow};
use crate::volume::{Head, Origin};

const RETRY: Backoff = Backoff { first: SAVE_BACKOFF_FIRST, cap: SAVE_BACKOFF_CAP };

/// Returns when the branch's head is in the store. Whoever reads or moves a head calls this first.
///
/// # Errors
/// The store cannot be written, or the version that the branch starts from is gone.
pub(super) async fn ensure(shared: &Shared, cell: &Cell) -> Result<(), BranchError> {
    if !cell.row().head_pending {
        return Ok(());
    }
    let _turn = cell.birth.lock().await;
    let row = cell.row();
    if !row.head_pending {
        return Ok(());
    }
    let head = head(&row, &shared.project(&cell.project)?);
    shared.volumes.create_head(&head).await?;
    failpoint("create.head");
    cell.update_row(shared, |row| row.head_pending = false)?;
    Ok(())
}

/// Does so in the background, as often as it takes.
pub(super) fn follow(shared: &Arc<Shared>, cell: Arc<Cell>) {
    if !cell.row().head_pending {
        return;
    }
    // Weakly: what nobody else uses any more must not be kept open by a store that is away.
    let (weak, closing) = (Arc::downgrade(shared), shared.closing.clone());
    shared.tasks.spawn(async move {
        for failures in 1.. {
            let Some(shared) = weak.upgrade() else { return };
            match ensure(&shared, &cell).await {
                Ok(()) => return,
                Err(error) => warn!(branch = %cell.id, name = %cell.name, error = error.chain(),
                                    hint = error.hint(), "write the head of a new branch"),
            }
            drop(shared);
            tokio::select! {
                // A later server on this data directory does it.
                () = closing.cancelled() => return,
                () = tokio::time::sleep(RETRY.wait(failures, 1.0)) => {}
            }
        }
    });
}

/// What an earlier server did not get to.
pub(super) fn follow_all(shared: &Arc<Shared>) {
    shared.cells.iter().for_each(|cell| follow(shared, cell.clone()));
}

/// The versions that heads on their way to the store name.
pub(super) fn awaited(shared: &Shared) -> HashSet<VersionId> {
    let rows = shared.cells.iter().map(|cell| cell.row()).filter(|row| row.head_pending);
    rows.flat_map(|row| [Some(row.head), row.origin_version]).flatten().collect()
}

/// Looks which versions are condemned, as far as garbage collection has got by now.
pub(super) async fn look_at_condemned(shared: &Shared) -> Result<Option<Timestamp>, BranchError> {
    set_condemned(shared, None);
    let (ran, versions) = shared.volumes.condemned_versions().await?;
    set_condemned(shared, Some(versions));
    Ok(ran)
}

/// Before more is condemned.
pub(super) fn forget_condemned(shared: &Shared) {
    set_condemned(shared, None);
}

fn set_condemned(shared: &Shared, found: Option<HashSet<VersionId>>) {
    *shared.condemned.lock().unwrap_or_else(PoisonError::into_inner) = found;
}

/// Whether a version may be condemned. The rules may keep it all the same, if those were others at
/// the last run; until the next one says so nothing is made from it.
pub(super) fn may_be_condemned(shared: &Shared, version: VersionId) -> bool {
    let condemned = shared.condemned.lock().unwrap_or_else(PoisonError::into_inner);
    condemned.as_ref().is_none_or(|condemned| condemned.contains(&version))
}

/// The first head of a branch.
pub(super) fn head(row: &BranchRow, project: &ProjectRow) -> Head {
    Head {
        branch: row.id,
        branch_name: row.name.clone(),
        project: project.id,
        project_name: project.name.clone(),
        version: row.head,
        epoch: row.epoch,
        owner: None,
        created: row.created,
        deleted: None,
        origin: row
            .origin_branch
            .zip(row.origin_version)
            .map(|(branch, version)| Origin { branch, version }),
        idle_timeout: row.idle_timeout,
        snapshot_every: row.snapshot_every,
        keep_warm: row.keep_warm,
    }
}
