//! From a branch with writes of its own to a version that holds them.

use std::sync::Arc;

use argon_admin::types::Label;
use tokio::time::timeout;
use tracing::{info, warn};

use super::BranchError;
use super::cell::Cell;
use super::local::Workspace;
use super::reconcile::{commit, reconcile};
use super::shared::Shared;
use crate::base::ids::VersionId;
use crate::base::limits::DRAIN_WAIT;
use crate::catalog::LocalData;
use crate::compute;
use crate::store::ETag;
use crate::volume::{Capture, Cause, Head, MongodVersion};

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
    let (mut head, mut etag, mongod) = stop(shared, cell, &workspace).await?;
    let stopped = begun.elapsed();
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
        head = Head { version: id, owner: None, ..head };
        etag = shared.volumes.move_head(&head, &etag).await?;
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

/// Sees to it that no mongod runs, and that the last one on the working directory ended cleanly, so
/// that a version never needs recovery and is known to start. Returns the head to move.
async fn stop(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    workspace: &Workspace,
) -> Result<(Head, ETag, MongodVersion), BranchError> {
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
        found = Some((life.head.clone(), life.etag.clone(), facts(shared, &life.instance)));
    }
    if cell.row().local != LocalData::None && !compute::was_stopped_cleanly(&workspace.db()) {
        info!(branch = %cell.id, name = %cell.name, "recovering the working directory");
        let instance = shared.start(workspace).await?;
        instance.stop().await;
    }
    match found {
        Some(found) => Ok(found),
        None => {
            let (head, etag) = reconcile(shared, cell).await?;
            let mongod = shared.volumes.version(head.version).await?.mongod;
            Ok((head, etag, mongod))
        }
    }
}

/// What a version records of the mongod that wrote it.
pub(super) fn facts(shared: &Shared, instance: &Arc<dyn compute::Instance>) -> MongodVersion {
    MongodVersion {
        version: shared.compute.mongod_version().to_owned(),
        fcv: instance.facts().fcv.clone(),
    }
}
