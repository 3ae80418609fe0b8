//! The end of branches: deleted ones can be brought back, until they are purged.

use std::sync::Arc;

use argon_admin::types;

use super::cell::Cell;
use super::state::Event;
use super::{BranchError, Branches, doors, view};
use crate::base::failpoint::failpoint;
use crate::base::ids::BranchId;
use crate::base::name::Name;
use crate::catalog::Deleted;
use crate::volume::{Head, VolumeError};

impl Branches {
    /// Deletes a branch; its last state becomes a version first. Commands that already wait for
    /// its wake are served before, later ones are refused.
    ///
    /// # Errors
    /// There is no such branch, or its writes could not be stored; then it is not deleted.
    pub async fn delete(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        cell.settle(&self.shared, Event::Delete).await?;
        self.shared.doors.close_both(cell.id).await;
        view::branch(&self.shared, &cell)
    }

    /// Brings back a deleted branch: by id, or the one of that name that was deleted last.
    ///
    /// # Errors
    /// There is none, or its name belongs to another branch now.
    pub async fn undelete(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<types::Branch, BranchError> {
        let _turn = self.shared.changing.lock().await;
        let cell = self.deleted(project, branch)?;
        if self.shared.live(&cell.project, &cell.name).is_ok() {
            let (project, branch) = (cell.project.clone(), cell.name.clone());
            return Err(BranchError::BranchExists { project, branch });
        }
        let (head, etag) = self.shared.volumes.head(cell.id).await?;
        self.shared.volumes.move_head(&Head { deleted: None, ..head }, &etag).await?;
        failpoint("undelete.head");
        cell.update_row(&self.shared, |row| row.deleted = None)?;
        cell.settle(&self.shared, Event::Undelete).await?;
        self.shared.add_live(&cell);
        doors::reopen(&self.shared, &cell);
        view::branch(&self.shared, &cell)
    }

    /// Gives up a deleted branch for good.
    ///
    /// # Errors
    /// There is no deleted branch of that name or id.
    pub async fn purge(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let _turn = self.shared.changing.lock().await;
        let cell = self.deleted(project, branch)?;
        let last = view::branch(&self.shared, &cell)?;
        self.purge_id(cell.id).await?;
        Ok(last)
    }

    /// The caller keeps those away who would bring it back.
    pub(super) async fn purge_id(&self, id: BranchId) -> Result<(), BranchError> {
        match self.shared.volumes.head(id).await {
            // Another server brought it back, and may be using it.
            Ok((head, _)) if head.deleted.is_none() => {
                return Err(BranchError::NotDeleted { branch: head.branch_name });
            }
            Ok(_) | Err(VolumeError::NoHead { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.shared.volumes.delete_head(id).await?;
        failpoint("purge.head");
        self.shared.catalog.purge_branch(id)?;
        failpoint("purge.row");
        self.shared.cells.remove(&id);
        self.shared.layout.branch(id).discard()
    }

    pub(super) fn deleted(&self, project: &str, branch: &str) -> Result<Arc<Cell>, BranchError> {
        let row = self.shared.project(&project.parse()?)?;
        let found = self.shared.catalog.branches(row.id, Deleted::Only)?;
        let named = |id: BranchId, name: &Name| id.to_string() == branch || name.as_str() == branch;
        let newest =
            found.iter().filter(|row| named(row.id, &row.name)).max_by_key(|row| row.deleted);
        let cell = newest.and_then(|row| self.cell(row.id));
        cell.ok_or_else(|| match self.live(project, branch) {
            Ok(cell) => BranchError::NotDeleted { branch: cell.name.clone() },
            Err(unknown) => unknown,
        })
    }
}
