//! Writes that were acknowledged here and not saved before another server took the branch over:
//! they become a branch of their own.

use std::sync::Arc;

use tracing::warn;

use super::cell::Cell;
use super::local::Workspace;
use super::reconcile::{commit, version_row};
use super::save::make_clean;
use super::shared::Shared;
use super::{BranchError, mounted, upload};
use crate::base::failpoint::failpoint;
use crate::base::ids::{BranchId, Epoch, VersionId};
use crate::base::limits::NAME_BYTES;
use crate::base::name::Name;
use crate::catalog::{BranchRow, CatalogError, LocalData};
use crate::volume::{Capture, Cause, Head, Origin, Version, VolumeError};

/// Stops a branch that another server has taken over, and brings its writes to safety.
///
/// Gives [`BranchError::Lost`] where nothing of the branch is left here, another error where that
/// must be tried again.
pub(super) async fn give_up(shared: &Arc<Shared>, cell: &Arc<Cell>) -> BranchError {
    if let Some(life) = cell.life() {
        life.finish();
        // Cleanly: nobody hears of it any more, and what it did acknowledge comes with it.
        life.instance.stop().await;
    }
    match shared.volumes.head(cell.id).await {
        Ok((head, _)) => rescue(shared, cell, &head).await,
        Err(error) => error.into(),
    }
}

/// Makes the working directory a branch of its own, and brings the row up to the head that somebody
/// else moved. Gives what to tell whoever asked. No mongod may run on the directory.
///
/// Crash points, and what the next start finds: before the new branch has its head, the working
/// directory, and perhaps objects that nothing refers to; after it, a branch of the very id that the
/// row calls `saving`, so that only the books are left to do.
pub(super) async fn rescue(shared: &Arc<Shared>, cell: &Arc<Cell>, head: &Head) -> BranchError {
    let rescued = match bring_to_safety(shared, cell, head).await {
        Ok(rescued) => rescued,
        Err(error) => return error,
    };
    cell.set_claim(None);
    let winner = head.owner.map(|owner| format!("server {owner}"));
    let winner = winner.unwrap_or_else(|| "another server".to_owned());
    let lost = BranchError::Lost { branch: cell.name.clone(), winner, rescued };
    warn!(branch = %cell.id, "{lost}");
    lost
}

async fn bring_to_safety(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    head: &Head,
) -> Result<Name, BranchError> {
    let workspace = shared.layout.branch(cell.id);
    let row = cell.row();
    let mut name = free_name(shared, cell, row.epoch)?;
    if let LocalData::Present { base, saving } = row.local {
        let (version, own) = match finished(shared, saving).await? {
            Some(done) => done,
            None => {
                let version = capture(shared, cell, &workspace, base).await?;
                failpoint("rescue.version");
                let own = Head {
                    branch: rescued_id(version.id),
                    branch_name: name.clone(),
                    version: version.id,
                    epoch: Epoch::default(),
                    owner: None,
                    created: version.created,
                    deleted: None,
                    origin: Some(Origin { branch: cell.id, version: base }),
                    ..head.clone()
                };
                (version, own)
            }
        };
        let _naming = shared.news.naming.read().await;
        shared.volumes.create_head(&own).await?;
        failpoint("rescue.head");
        name = enter(shared, cell, &version, own, name).await?;
        failpoint("rescue.branch");
    }
    let newest = shared.volumes.version(head.version).await?;
    commit(shared, cell, &newest, |row| {
        row.local = LocalData::None;
        row.epoch = head.epoch;
    })?;
    failpoint("rescue.row");
    mounted::clear(shared, cell).await?;
    Ok(name)
}

/// What an earlier try had done before it was cut off, if that was all but the books.
async fn finished(
    shared: &Shared,
    saving: Option<VersionId>,
) -> Result<Option<(Version, Head)>, BranchError> {
    let Some(id) = saving else { return Ok(None) };
    match shared.volumes.head(rescued_id(id)).await {
        Ok((head, _)) => Ok(Some((shared.volumes.version(id).await?, head))),
        Err(VolumeError::NoHead { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn capture(
    shared: &Shared,
    cell: &Arc<Cell>,
    workspace: &Workspace,
    base: VersionId,
) -> Result<Version, BranchError> {
    let id = VersionId::generate(shared.clock.now());
    cell.update_row(shared, |row| {
        row.local = LocalData::Present { base, saving: Some(id) };
    })?;
    if let Some(mounted) = mounted::here(shared, cell).await? {
        return upload::make_for(shared, &mounted, id, rescued_id(id)).await;
    }
    make_clean(shared, cell, workspace).await?;
    let capture = Capture {
        id,
        parent: Some(base),
        branch: Some(rescued_id(id)),
        cause: Cause::Recovery,
        mongod: shared.volumes.version(base).await?.mongod,
        label: None,
    };
    Ok(shared.volumes.capture(&workspace.db(), capture).await?)
}

/// Enters the rescued branch into the books, and gives the name that it has there.
async fn enter(
    shared: &Arc<Shared>,
    cell: &Cell,
    version: &Version,
    head: Head,
    name: Name,
) -> Result<Name, BranchError> {
    shared.catalog.insert_version(&version_row(version))?;
    if let Some(known) = shared.catalog.branch(head.branch)? {
        return Ok(known.name);
    }
    let lost = cell.row();
    let row = BranchRow {
        id: head.branch,
        project: lost.project,
        name: name.clone(),
        head: version.id,
        epoch: head.epoch,
        idle_timeout: head.idle_timeout,
        snapshot_every: head.snapshot_every,
        keep_warm: head.keep_warm,
        created: head.created,
        deleted: None,
        origin_branch: head.origin.map(|origin| origin.branch),
        origin_version: head.origin.map(|origin| origin.version),
        local: LocalData::None,
        error: None,
        port: None,
        socket: false,
        head_pending: false,
    };
    if head.branch_name != name {
        // The name of the earlier try was taken meanwhile.
        let (found, etag) = shared.volumes.head(head.branch).await?;
        let renamed = Head { branch_name: name.clone(), ..found };
        shared.volumes.move_head(&renamed, &etag).await?;
    }
    shared.catalog.insert_branch(&row).map_err(|error| match error {
        CatalogError::NameTaken { .. } => {
            BranchError::BranchExists { project: cell.project.clone(), branch: name.clone() }
        }
        other => other.into(),
    })?;
    shared.add_live(&Cell::new(row, cell.project.clone()));
    Ok(name)
}

/// The branch that a rescued version becomes: of the same bytes, so that a try that was cut off is
/// found again.
fn rescued_id(version: VersionId) -> BranchId {
    BranchId::from_bytes(version.to_bytes())
}

/// `NAME-rescued-EPOCH`, cut to fit, with a number behind it where that is taken.
fn free_name(shared: &Shared, cell: &Cell, epoch: Epoch) -> Result<Name, BranchError> {
    for number in 1_u32.. {
        let tail = match number {
            1 => format!("-rescued-{epoch}"),
            more => format!("-rescued-{epoch}-{more}"),
        };
        let stem = cell.name.as_str();
        let stem = &stem[..stem.len().min(NAME_BYTES.saturating_sub(tail.len()))];
        let name: Name = format!("{}{tail}", stem.trim_end_matches('-')).parse()?;
        if shared.live(&cell.project, &name).is_err() {
            return Ok(name);
        }
    }
    unreachable!("a project has fewer branches than there are numbers")
}
