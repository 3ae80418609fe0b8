//! From a branch with writes of its own to a version that holds them.

use std::sync::Arc;

use argon_admin::types::Label;
use tokio::time::timeout;
use tracing::{info, warn};

use super::cell::Cell;
use super::claim::{Claim, writable};
use super::lease::Use;
use super::local::Workspace;
use super::oplog::{self, Moment};
use super::reconcile::{commit, reconcile};
use super::shared::Shared;
use super::upload::{self, Need, Wish};
use super::wake::writer;
use super::{BranchError, history, mounted};
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

/// How far a save came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// All of it is in the store, and nothing is left here.
    Whole,
    /// No mongod runs, and all of it is safe here; the upload is to begin.
    Here,
}

/// Drains, stops mongod, and makes its writes a version; those on a lazy mount later, unless more is
/// wanted than a suspend. On an error what was written is as it was, and saving can be tried again.
///
/// Crash points, and what the next start finds: before the head moves, the working directory or
/// overlay, and perhaps objects that nothing refers to; after it, a head that names the version which
/// the row calls `saving`, so it is known to be saved.
pub(super) async fn save(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    purpose: Purpose,
) -> Result<Saved, BranchError> {
    let mongod = stop(shared, cell).await?;
    failpoint("suspend.stopped");
    if let Some(mounted) = mounted::here(shared, cell).await? {
        let wish = match &purpose {
            Purpose::Suspend => return Ok(Saved::Here),
            Purpose::Delete => Wish::new(shared, Cause::Delete),
            Purpose::Snapshot(Snapshot { id, label }) => {
                Wish { id: *id, cause: Cause::Snapshot, label: label.clone(), need: Need::Always }
            }
        };
        let _turn = cell.uploading.lock().await;
        if let Some(label) = &wish.label {
            history::check_free(shared, &cell.row(), label)?;
        }
        upload::make(shared, cell, &mounted, wish).await?;
        upload::settle(shared, cell, &mounted).await?;
    } else {
        save_directory(shared, cell, &purpose, mongod).await?;
    }
    if purpose == Purpose::Delete {
        delete(shared, cell).await?;
    }
    Ok(Saved::Whole)
}

/// Of a branch whose dbpath is a plain directory, or that has none here.
async fn save_directory(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    purpose: &Purpose,
    mongod: Option<MongodVersion>,
) -> Result<(), BranchError> {
    if cell.row().local == LocalData::None && !matches!(purpose, Purpose::Snapshot(_)) {
        return Ok(());
    }
    let begun = tokio::time::Instant::now();
    let workspace = shared.layout.branch(cell.id);
    make_clean(shared, cell, &workspace).await?;
    let Claim { head, etag, .. } = writable(shared, cell).await?;
    let mongod = match mongod {
        Some(mongod) => mongod,
        None => shared.volumes.version(head.version).await?.mongod,
    };
    let (id, cause, label) = match purpose {
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
    let version = match cell.row().local {
        LocalData::Present { base, .. } => {
            cell.update_row(shared, |row| {
                row.local = LocalData::Present { base, saving: Some(id) };
            })?;
            shared.volumes.capture(&workspace.db(), capture(base)).await?
        }
        LocalData::None => shared.volumes.repeat(capture(head.version)).await?,
    };
    publish(shared, cell, &workspace, &version, (head, etag)).await?;
    info!(branch = %cell.id, name = %cell.name, version = %id,
          save_ms = begun.elapsed().as_millis() as u64,
          new_bytes = version.new_bytes, stored_bytes = version.stored_bytes, "saved");
    Ok(())
}

/// Marks a branch of which nothing is unsaved as deleted.
async fn delete(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<(), BranchError> {
    let _moving = cell.moving.lock().await;
    let Claim { head, etag, .. } = writable(shared, cell).await?;
    let deleted = Some(shared.clock.now());
    let head = Head { owner: None, deleted, ..head };
    // As with any answer that may be lost: read it again before it is moved again.
    cell.set_claim(None);
    shared.volumes.move_head(&head, &etag).await?;
    failpoint("delete.head");
    cell.update_row(shared, |row| row.deleted = deleted)?;
    failpoint("delete.row");
    shared.remove_live(cell);
    shared.layout.branch(cell.id).discard()
}

/// Makes a version that is whole what the branch is: in the store, in the books, and on this disk.
async fn publish(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    workspace: &Workspace,
    version: &Version,
    (head, etag): (Head, ETag),
) -> Result<(), BranchError> {
    failpoint("suspend.version");
    let mut head = Head { version: version.id, owner: None, ..head };
    let _moving = cell.moving.lock().await;
    // Should the answer be lost, the branch may be anybody's: then it is not woken from here
    // before the head was read.
    cell.set_claim(None);
    match shared.volumes.move_head(&head, &etag).await {
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
    Ok(())
}

/// Sees to it that no mongod runs. Returns what is known of the one that ran.
async fn stop(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
) -> Result<Option<MongodVersion>, BranchError> {
    let Some(life) = cell.life() else { return Ok(None) };
    if timeout(DRAIN_WAIT, life.until_quiet()).await.is_err() {
        warn!(branch = %cell.id, name = %cell.name, requests = life.in_flight(),
              "stopping mongod under requests that did not end in {DRAIN_WAIT:?}");
    }
    life.finish();
    // Counted as a request, which one that stands still goes on for.
    life.begin(Use::Probe);
    oplog::look(cell, &life, Moment::BeforeSleep).await;
    life.end(Use::Probe);
    let exit = life.instance.stop().await;
    if !exit.is_clean() {
        warn!(branch = %cell.id, name = %cell.name, "mongod did not stop cleanly: {exit}");
    }
    Ok(Some(facts(shared, &life.instance)))
}

/// Starts and stops a mongod on a plain directory whose last one did not end cleanly, so that a
/// version of it needs no recovery and is known to start. What is on a lazy mount is as whole as
/// any version that is made of a running branch, and is recovered when it wakes.
pub(super) async fn make_clean(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
) -> Result<(), BranchError> {
    if cell.row().local != LocalData::None && !compute::was_stopped_cleanly(&workspace.db()) {
        info!(branch = %cell.id, name = %cell.name, "recovering the working directory");
        let build = writer(shared, cell).await?;
        let (instance, _) = shared.start_in_turn(workspace, workspace.db(), build).await?;
        instance.stop().await;
    }
    Ok(())
}

/// What a version records of the mongod that wrote it.
pub(super) fn facts(shared: &Shared, instance: &Arc<dyn compute::Instance>) -> MongodVersion {
    let facts = instance.facts();
    let version = facts.build_info.get_str("version");
    MongodVersion {
        version: version.unwrap_or(shared.compute.mongod_version()).to_owned(),
        fcv: facts.fcv.clone(),
        image: instance.image().map(str::to_owned),
    }
}
