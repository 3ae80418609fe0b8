//! From a branch with writes of its own to a version that holds them.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::{info, warn};

use super::BranchError;
use super::cell::Cell;
use super::claim::Claim;
use super::local::Workspace;
use super::reconcile::{commit, reconcile};
use super::shared::Shared;
use crate::base::ids::VersionId;
use crate::base::limits::DRAIN_WAIT;
use crate::catalog::LocalData;
use crate::compute;
use crate::volume::{Capture, Cause, Head, MongodVersion, VolumeError};

/// What a save is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The branch sleeps afterwards.
    Suspend,
    /// It is deleted afterwards; its last state stays, so that it can be brought back.
    Delete,
}

/// Drains, stops mongod, makes the working directory a version, moves the head to it, frees the
/// machine. On an error the working directory is as it was, and saving can be tried again.
///
/// Crash points, and what the next start finds: before the head moves, the working directory and
/// perhaps objects that nothing refers to; after it, a head that names the version which the row
/// calls `saving`, so the working directory is known to be saved.
pub(super) async fn save(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    purpose: Purpose,
) -> Result<(), BranchError> {
    let workspace = shared.layout.branch(cell.id);
    let begun = tokio::time::Instant::now();
    let mongod = stop(shared, cell, &workspace).await?;
    let stopped = begun.elapsed();
    let Claim { mut head, mut etag, .. } = writable(shared, cell).await?;
    if let LocalData::Present { base, .. } = cell.row().local {
        let mongod = match mongod {
            Some(mongod) => mongod,
            None => shared.volumes.version(head.version).await?.mongod,
        };
        let id = VersionId::generate(shared.clock.now());
        cell.update_row(shared, |row| {
            row.local = LocalData::Present { base, saving: Some(id) };
        })?;
        let capture = Capture {
            id,
            parent: Some(base),
            branch: Some(cell.id),
            cause: match purpose {
                Purpose::Suspend => Cause::Suspend,
                Purpose::Delete => Cause::Delete,
            },
            mongod,
            label: None,
        };
        let version = shared.volumes.capture(&workspace.db(), capture).await?;
        head = Head { version: id, owner: None, ..head };
        // Should the answer be lost, the branch may be anybody's: then it is not woken from here
        // before the head was read.
        cell.set_claim(None);
        etag = match shared.volumes.move_head(&head, &etag).await {
            // Perhaps by this server, whose own answer was lost.
            Err(VolumeError::Fenced { .. }) => {
                let now = reconcile(shared, cell).await?;
                head = Head { version: id, owner: None, ..now.head };
                shared.volumes.move_head(&head, &now.etag).await?
            }
            moved => moved?,
        };
        commit(shared, cell, &version, |row| row.local = LocalData::None)?;
        // Left behind, it would only take room until the next wake.
        if let Err(error) = workspace.discard_data() {
            warn!(branch = %cell.id, error = error.chain(), "clear the working directory");
        }
        info!(branch = %cell.id, name = %cell.name, version = %id,
              stop_ms = stopped.as_millis() as u64,
              save_ms = (begun.elapsed() - stopped).as_millis() as u64,
              new_bytes = version.new_bytes, stored_bytes = version.stored_bytes, "saved");
    }
    if purpose == Purpose::Delete {
        let deleted = Some(shared.clock.now());
        let head = Head { owner: None, deleted, ..head };
        shared.volumes.move_head(&head, &etag).await?;
        cell.update_row(shared, |row| row.deleted = deleted)?;
        shared.remove_live(cell);
        workspace.discard()?;
    }
    Ok(())
}

/// The head to move: as this server last moved it, or as the store has it.
async fn writable(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Claim, BranchError> {
    match cell.claim() {
        Some(claim) => Ok(claim),
        None => reconcile(shared, cell).await,
    }
}

/// Sees to it that no mongod runs, and that the last one on the working directory ended cleanly.
/// Returns what is known of the mongod that ran.
async fn stop(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    workspace: &Workspace,
) -> Result<Option<MongodVersion>, BranchError> {
    let mut found = None;
    if let Some(life) = cell.life() {
        if timeout(DRAIN_WAIT, life.until_quiet()).await.is_err() {
            warn!(branch = %cell.id, name = %cell.name, requests = life.in_flight(),
                  "stopping mongod under requests that did not end in {DRAIN_WAIT:?}");
        }
        life.finish();
        let exit = life.instance.stop().await;
        if !exit.is_clean() {
            warn!(branch = %cell.id, name = %cell.name, "mongod did not stop cleanly: {exit}");
        }
        found = Some(facts(shared, &life.instance));
    }
    make_clean(shared, cell, workspace).await?;
    Ok(found)
}

/// Starts and stops a mongod on a working directory whose last one did not end cleanly, so that a
/// version never needs recovery and is known to start.
pub(super) async fn make_clean(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
) -> Result<(), BranchError> {
    if cell.row().local != LocalData::None && !compute::was_stopped_cleanly(&workspace.db()) {
        info!(branch = %cell.id, name = %cell.name, "recovering the working directory");
        let instance = shared.start(workspace).await?;
        instance.stop().await;
    }
    Ok(())
}

/// What a version records of the mongod that wrote it.
pub(super) fn facts(shared: &Shared, instance: &Arc<dyn compute::Instance>) -> MongodVersion {
    MongodVersion {
        version: shared.compute.mongod_version().to_owned(),
        fcv: instance.facts().fcv.clone(),
    }
}
