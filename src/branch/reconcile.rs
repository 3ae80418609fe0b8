//! The store's head and this server's books, brought together.
//!
//! The head in the store is the truth about versions. The catalog follows it, and may lag behind
//! by what a crash, an answer that was lost, or another server kept from it.

use std::sync::Arc;

use super::cell::Cell;
use super::claim::Claim;
use super::rescue::rescue;
use super::shared::Shared;
use super::{BranchError, birth};
use crate::base::ids::{ServerId, VersionId};
use crate::catalog::{BranchRow, LocalData, VersionRow};
use crate::volume::{Head, Version};

/// Reads the head, and brings the row up to it. Afterwards the row's `head` is the head's version,
/// and a working directory's `base` too; the head may be moved by this server.
///
/// # Errors
/// Another server has the branch, and is not known to be dead. The writes of a working directory
/// that another server did not know of are brought to safety first, which is an error too.
pub(super) async fn reconcile(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
) -> Result<Claim, BranchError> {
    birth::ensure(shared, cell).await?;
    // Before the head is read: what is claimed now is worth nothing in a later term.
    let term = shared.lease.hold(&shared.volumes).await?;
    let (head, etag) = shared.volumes.head(cell.id).await?;
    let row = cell.row();
    let Some(local) = standing(&row, head.version, head.owner, shared.server) else {
        return Err(rescue(shared, cell, &head).await);
    };
    if let Some(owner) = head.owner
        && owner != shared.server
    {
        shared.lease.outlive(&shared.volumes, owner, &cell.name).await?;
    }
    let own = |row: &BranchRow| (row.idle_timeout, row.snapshot_every, row.keep_warm);
    let settings = (head.idle_timeout, head.snapshot_every, head.keep_warm);
    if row.head != head.version
        || row.epoch < head.epoch
        || row.local != local
        || own(&row) != settings
    {
        let version = shared.volumes.version(head.version).await?;
        commit(shared, cell, &version, |row| {
            row.local = local;
            row.epoch = row.epoch.max(head.epoch);
            (row.idle_timeout, row.snapshot_every, row.keep_warm) = settings;
        })?;
    }
    // Whether a branch is deleted is decided here; a mark that a crash left behind is not renewed.
    Ok(Claim { head: Head { deleted: row.deleted, ..head }, etag, term })
}

/// What the working directory is to a head: `None` where somebody else may have written on it since.
fn standing(
    row: &BranchRow,
    version: VersionId,
    owner: Option<ServerId>,
    server: ServerId,
) -> Option<LocalData> {
    let LocalData::Present { base, saving } = row.local else { return Some(LocalData::None) };
    if owner.is_some_and(|owner| owner != server) {
        return None;
    }
    if base == version {
        return Some(row.local);
    }
    // The move of the head was done, and the answer to it lost: what the directory held then is
    // saved, what came since is not.
    (saving == Some(version)).then_some(LocalData::Present { base: version, saving: None })
}

/// Enters a version that became the head, and the branch's row with it, in one transaction.
pub(super) fn commit(
    shared: &Shared,
    cell: &Cell,
    version: &Version,
    change: impl FnOnce(&mut BranchRow),
) -> Result<(), BranchError> {
    let mut row = cell.row();
    row.head = version.id;
    change(&mut row);
    shared.catalog.commit_version(&version_row(version), &row)?;
    cell.adopt_row(row);
    Ok(())
}

/// What the catalog keeps of a version.
pub(super) fn version_row(version: &Version) -> VersionRow {
    VersionRow {
        id: version.id,
        branch: version.branch,
        parent: version.parent,
        created: version.created,
        cause: version.cause.to_string(),
        label: version.label.clone(),
        total_bytes: version.total_bytes,
        new_bytes: version.new_bytes,
        stored_bytes: version.stored_bytes,
        mongod_version: version.mongod.version.clone(),
        fcv: version.mongod.fcv.clone(),
        pinned: false,
    }
}
