//! From a branch with writes of its own to a version that holds them.

use std::sync::Arc;

use argon_admin::types::Label;
use tokio::time::timeout;
use tracing::{info, warn};

use super::BranchError;
use super::cell::Cell;
use super::claim::Claim;
use super::local::Workspace;
use super::reconcile::{commit, reconcile};
use super::shared::Shared;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::base::limits::DRAIN_WAIT;
use crate::catalog::LocalData;
use crate::compute;
use crate::store::ETag;
use crate::volume::{Capture, Cause, Head, MongodVersion, Version, VolumeError};

/// What a save is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The branch sleeps afterwards.
    Suspend,
    /// It sleeps afterwards, and has a new version even if it slept before.
    Snapshot(Snapshot),
    /// It is deleted afterwards; its last state stays, so that it can be brought back.
    Delete,
}

/// A version that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Its id; every try takes a new one.
    pub(super) id: VersionId,
    /// What it is to be called.
    pub(super) label: Option<Label>,
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
    failpoint("suspend.stopped");
    let Claim { mut head, mut etag, .. } = writable(shared, cell).await?;
    let mongod = match mongod {
        Some(mongod) => mongod,
        None => shared.volumes.version(head.version).await?.mongod,
    };
    let (id, cause, label) = match &purpose {
        Purpose::Snapshot(Snapshot { id, label }) => (*id, Cause::Snapshot, label.as_ref()),
        Purpose::Suspend => (VersionId::generate(shared.clock.now()), Cause::Suspend, None),
        Purpose::Delete => (VersionId::generate(shared.clock.now()), Cause::Delete, None),
    };
    let capture = |parent| Capture {
        id,
        parent: Some(parent),
        branch: Some(cell.id),
        cause,
        mongod,
        label: label.map(Label::to_string),
    };
    let version = match (cell.row().local, &purpose) {
        (LocalData::Present { base, .. }, _) => {
            cell.update_row(shared, |row| {
                row.local = LocalData::Present { base, saving: Some(id) };
            })?;
            Some(shared.volumes.capture(&workspace.db(), capture(base)).await?)
        }
        (LocalData::None, Purpose::Snapshot(_)) => {
            Some(shared.volumes.repeat(capture(head.version)).await?)
        }
        (LocalData::None, _) => None,
    };
    if let Some(version) = version {
        (head, etag) = publish(shared, cell, &workspace, &version, (head, etag)).await?;
        info!(branch = %cell.id, name = %cell.name, version = %id,
              stop_ms = stopped.as_millis() as u64,
              save_ms = (begun.elapsed() - stopped).as_millis() as u64,
              new_bytes = version.new_bytes, stored_bytes = version.stored_bytes, "saved");
    }
    if purpose == Purpose::Delete {
        let deleted = Some(shared.clock.now());
        let head = Head { owner: None, deleted, ..head };
        shared.volumes.move_head(&head, &etag).await?;
        failpoint("delete.head");
        cell.update_row(shared, |row| row.deleted = deleted)?;
        failpoint("delete.row");
        shared.remove_live(cell);
        workspace.discard()?;
    }
    Ok(())
}

/// Makes a version that is whole what the branch is: in the store, in the books, and on this disk.
async fn publish(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    workspace: &Workspace,
    version: &Version,
    (head, etag): (Head, ETag),
) -> Result<(Head, ETag), BranchError> {
    failpoint("suspend.version");
    let mut head = Head { version: version.id, owner: None, ..head };
    // Should the answer be lost, the branch may be anybody's: then it is not woken from here
    // before the head was read.
    cell.set_claim(None);
    let etag = match shared.volumes.move_head(&head, &etag).await {
        // Perhaps by this server, whose own answer was lost.
        Err(VolumeError::Fenced { .. }) => {
            let now = reconcile(shared, cell).await?;
            head = Head { version: version.id, owner: None, ..now.head };
            shared.volumes.move_head(&head, &now.etag).await?
        }
        moved => moved?,
    };
    failpoint("suspend.head");
    commit(shared, cell, version, |row| row.local = LocalData::None)?;
    failpoint("suspend.row");
    // Left behind, it would only take room until the next wake.
    if let Err(error) = workspace.discard_data() {
        warn!(branch = %cell.id, error = error.chain(), "clear the working directory");
    }
    failpoint("suspend.clear");
    Ok((head, etag))
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
