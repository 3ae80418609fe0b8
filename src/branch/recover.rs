//! What becomes of a held branch: its writes on this machine cannot be read in full, and somebody
//! decided.

use std::sync::Arc;

use argon_admin::types::{self, Recovery};
use tracing::warn;

use super::cell::Cell;
use super::claim::release;
use super::local::Unsaved;
use super::save::Saved;
use super::shared::Shared;
use super::state::Event;
use super::{BranchError, Branches, mounted, view};
use crate::catalog::LocalData;
use crate::mount::lazy::Reading;

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
        let event = match how {
            Recovery::LastVersion => Event::GoBack,
            Recovery::Salvage => Event::Salvage,
        };
        cell.settle(&self.shared, event).await?;
        view::branch(&self.shared, &cell)
    }
}

/// Moves the writes to where nothing uses them and nothing removes them, and goes on from the last
/// version.
///
/// Crash points, and what the next start finds: before the move, the branch is found damaged again;
/// after it, a row that says `Present` and no data, which is a branch at its head: see
/// [`mounted::here`].
pub(super) async fn set_aside(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
) -> Result<Saved, BranchError> {
    mounted::unmount(cell).await?;
    let workspace = shared.layout.branch(cell.id);
    if workspace.has_overlay() {
        let unsaved = Unsaved { branch: cell.id, place: workspace.overlay() };
        let kept = shared.layout.put_aside(&unsaved)?;
        warn!(branch = %cell.id, name = %cell.name, kept = %kept.display(),
              "its writes that no version has were put aside; it goes on from its last version");
    }
    cell.update_row(shared, |row| row.local = LocalData::None)?;
    release(shared, cell).await;
    workspace.discard_data()?;
    Ok(Saved::Whole)
}

/// Mounts what can be read up to the damage, so that it becomes a version.
pub(super) async fn read_what_is_sound(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
) -> Result<Saved, BranchError> {
    mounted::here_as(shared, cell, Reading::UpToDamage).await?;
    Ok(Saved::Here)
}
