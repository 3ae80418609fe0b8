//! Projects, and what new ones start from.

use std::path::PathBuf;

use argon_admin::types;
use tracing::info;

use super::{BranchError, Branches, base, news, retention, seed, view};
use crate::base::ids::{ProjectId, ServerId};
use crate::base::name::Name;
use crate::base::retention::Retention;
use crate::catalog::{CatalogError, Deleted, ProjectRow};
use crate::compute::OnPull;

impl Branches {
    /// Makes a project; the first one loads the base archive, which takes seconds.
    ///
    /// # Errors
    /// The name is none or is taken; the base archive is damaged; there is no such image.
    pub async fn create_project(
        &self,
        name: &str,
        image: Option<String>,
        progress: OnPull<'_>,
    ) -> Result<types::Project, BranchError> {
        let name: Name = name.parse()?;
        let exists = |project| BranchError::ProjectExists { project };
        if self.shared.project(&name).is_ok() {
            return Err(exists(name));
        }
        let maker = seed::maker(&self.shared, image.as_deref(), progress).await?;
        let base = Some(base::loaded(&self.shared, &maker).await?);
        let created = self.shared.clock.now();
        let (id, retention) = (ProjectId::generate(created), Retention::default());
        let row = ProjectRow { id, name, created, base, retention, image };
        self.shared.catalog.insert_project(&row).map_err(|error| match error {
            CatalogError::NameTaken { .. } => exists(row.name.clone()),
            other => other.into(),
        })?;
        // For whoever has the store alone and must make the catalog again.
        if let Err(error) = self.shared.volumes.save_project(&retention::kept(&row)).await {
            self.shared.catalog.delete_project(row.id)?;
            return Err(error.into());
        }
        self.shared.add_project(row.clone());
        info!(project = %row.name, "created a project");
        Ok(view::project(&row))
    }

    /// All projects, by name.
    pub fn projects(&self) -> Vec<types::Project> {
        // Those of other servers are in the next list.
        news::look_soon(&self.shared);
        self.shared.projects().iter().map(view::project).collect()
    }

    /// Deletes a project, and its deleted branches for good.
    ///
    /// # Errors
    /// There is none of that name, or it still has live branches.
    pub async fn delete_project(&self, name: &str) -> Result<(), BranchError> {
        let name: Name = name.parse()?;
        let row = self.shared.project(&name)?;
        let live = self.shared.live_branches(&name)?;
        if !live.is_empty() {
            let names: Vec<_> = live.iter().map(|cell| cell.name.to_string()).collect();
            return Err(BranchError::ProjectNotEmpty { project: name, branches: names.join(", ") });
        }
        let _turn = self.shared.changing.lock().await;
        for deleted in self.shared.catalog.branches(row.id, Deleted::Only)? {
            self.purge_id(deleted.id).await?;
        }
        self.shared.volumes.delete_project(row.id).await?;
        self.shared.catalog.delete_project(row.id)?;
        self.shared.remove_project(&name);
        Ok(())
    }

    /// The project that is meant where none is named: the only one.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn default_project(&self) -> Result<Name, BranchError> {
        let mut projects = self.shared.projects();
        match projects.len() {
            0 => {
                news::look_soon(&self.shared);
                Err(BranchError::NoProject)
            }
            1 => Ok(projects.remove(0).name),
            _ => {
                let names: Vec<_> = projects.iter().map(|row| row.name.to_string()).collect();
                Err(BranchError::WhichProject { choices: names.join(", ") })
            }
        }
    }

    /// Makes an archive what new projects start from.
    ///
    /// # Errors
    /// It is damaged or cannot be loaded; then everything stays as it was.
    pub async fn set_base(&self, archive: PathBuf) -> Result<types::Base, BranchError> {
        base::set(&self.shared, &archive).await
    }

    /// What new projects start from.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn base(&self) -> Result<types::Base, BranchError> {
        base::show(&self.shared).await
    }

    /// A file for an archive on its way in.
    pub fn temporary_file(&self) -> PathBuf {
        self.shared.layout.temporary(ServerId::generate(self.shared.clock.now()))
    }
}
