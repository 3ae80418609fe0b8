//! What somebody decides about a branch that is held: writes of it, on this disk, that cannot be
//! read in full.

use std::sync::Arc;

use argon_admin::types::{self, Recovery};

use super::cell::Cell;
use super::shared::Shared;
use super::{BranchError, Branches, view};

impl Branches {
    /// Puts an end to a branch's being held. Nothing is deleted: what is not used is put aside.
    ///
    /// # Errors
    /// There is no such branch, it is not held, or what was decided cannot be done; then it stays
    /// held.
    pub async fn recover(
        &self,
        project: &str,
        branch: &str,
        how: Recovery,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        recover_held(&self.shared, &cell, how).await?;
        view::branch(&self.shared, &cell)
    }
}

/// Does what was decided. No branch is held yet, so there is none to do it to.
async fn recover_held(
    _shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    _how: Recovery,
) -> Result<(), BranchError> {
    Err(BranchError::NotHeld { branch: cell.name.clone() })
}
