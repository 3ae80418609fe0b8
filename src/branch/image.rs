//! The image of a project: what its new branches begin with.
//!
//! A branch that is there goes on with what wrote it, whatever its project says.

use std::sync::Arc;

use argon_admin::types;
use tracing::info;

use super::shared::Shared;
use super::{BranchError, Branches, base, retention, seed, view};
use crate::base::ids::VersionId;
use crate::catalog::ProjectRow;
use crate::compute::OnPull;

impl Branches {
    /// Sets which image a project's new branches begin with; none is the server's. It is brought here
    /// where it is missing, and the project's base is loaded into it.
    ///
    /// # Errors
    /// There is no such project or image, or the archive that the project starts from is no longer the
    /// store's; then everything is as it was.
    pub async fn set_image(
        &self,
        project: &str,
        image: Option<String>,
        progress: OnPull<'_>,
    ) -> Result<types::Project, BranchError> {
        let name = project.parse()?;
        let row = self.shared.project(&name)?;
        let base = base_in(&self.shared, &row, image.as_deref(), progress).await?;
        let _turn = self.shared.changing.lock().await;
        let row = ProjectRow { image, base, ..self.shared.project(&name)? };
        self.shared.volumes.save_project(&retention::kept(&row)).await?;
        self.shared.catalog.set_image(row.id, row.image.as_deref(), row.base)?;
        self.shared.set_project(row.clone());
        info!(project = %row.name, image = row.image, "set the image of a project");
        Ok(view::project(&row))
    }
}

/// What a project's branches start from in an image: the same archive, loaded by its mongod.
async fn base_in(
    shared: &Arc<Shared>,
    row: &ProjectRow,
    image: Option<&str>,
    progress: OnPull<'_>,
) -> Result<Option<VersionId>, BranchError> {
    let maker = seed::maker(shared, image, progress).await?;
    let Some(base) = row.base else { return Ok(None) };
    match base::loaded_again(shared, base, &maker).await? {
        Some(base) => Ok(Some(base)),
        None => Err(BranchError::OtherBase { project: row.name.clone() }),
    }
}
