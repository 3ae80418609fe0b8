//! The store's head and this server's books, brought together.
//!
//! The head in the store is the truth about versions. The catalog follows it, and may lag behind
//! by what a crash, or an answer that was lost, kept from it.

use std::sync::Arc;

use super::BranchError;
use super::cell::Cell;
use super::shared::Shared;
use crate::catalog::{BranchRow, LocalData, VersionRow};
use crate::store::ETag;
use crate::volume::{Head, Version};

/// Reads the head, and brings the row up to it. Afterwards the row's `head` is the head's version,
/// and a working directory's `base` too.
pub(super) async fn reconcile(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
) -> Result<(Head, ETag), BranchError> {
    let (head, etag) = shared.volumes.head(cell.id).await?;
    if head.owner.is_some_and(|owner| owner != shared.server) {
        let reason = "another server owns it";
        return Err(BranchError::Conflict { branch: cell.name.clone(), reason });
    }
    let row = cell.row();
    let local = match row.local {
        LocalData::Present { base, .. } if base == head.version => row.local,
        // The move of the head was done, and the answer to it lost: what the directory held then
        // is saved, what came since is not.
        LocalData::Present { saving, .. } if saving == Some(head.version) => {
            LocalData::Present { base: head.version, saving: None }
        }
        LocalData::Present { .. } => {
            let reason = "its head was moved by somebody else while it had unsaved writes here";
            return Err(BranchError::Conflict { branch: cell.name.clone(), reason });
        }
        LocalData::None => LocalData::None,
    };
    if row.head != head.version {
        let version = shared.volumes.version(head.version).await?;
        commit(shared, cell, &version, |row| row.local = local)?;
    }
    // Whether a branch is deleted is decided here; a mark that a crash left behind is not renewed.
    Ok((Head { deleted: row.deleted, ..head }, etag))
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
