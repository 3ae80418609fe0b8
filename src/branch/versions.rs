//! What is asked about versions: to make one, to list a branch's, to pin one.

use argon_admin::types;

use super::{BranchError, Branches, history, view};
use crate::base::ids::VersionId;

impl Branches {
    /// Makes a version of what a branch is now, on request. A branch that runs on a lazy mount goes
    /// on; on a plain directory it is suspended for it, its clients keep their connections, and their
    /// next command wakes it. One that sleeps gets a version that shares every block with the one
    /// before.
    ///
    /// # Errors
    /// There is no such branch, the label is none or is taken, or the version could not be stored.
    pub async fn snapshot(
        &self,
        project: &str,
        branch: &str,
        label: Option<&str>,
    ) -> Result<types::Version, BranchError> {
        let label = label.map(str::parse).transpose()?;
        let cell = self.live(project, branch)?;
        let id = cell.snapshot(&self.shared, label).await?;
        self.version(id)
    }

    /// What a branch started from and its own versions, oldest first; of a deleted branch too.
    ///
    /// # Errors
    /// There is no such branch.
    pub fn versions(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<Vec<types::Version>, BranchError> {
        let cell = match self.live(project, branch) {
            Err(unknown @ BranchError::UnknownBranch { .. }) => {
                self.deleted(project, branch).map_err(|_| unknown)?
            }
            live => live?,
        };
        Ok(history::versions(&self.shared, &cell.row())?.iter().map(view::version).collect())
    }

    /// Keeps a version for good, whatever the rules of its project say.
    ///
    /// # Errors
    /// There is no such version, or the store cannot be written.
    pub async fn pin(&self, version: &str) -> Result<types::Version, BranchError> {
        let id = self.version_id(version)?;
        // The store first: what it says is pinned, is kept.
        self.shared.volumes.pin(id).await?;
        self.shared.catalog.pin_version(id)?;
        self.version(id)
    }

    /// Lets a version go when its time comes; one that is not pinned stays as it is.
    ///
    /// # Errors
    /// There is no such version, or the store cannot be written.
    pub async fn unpin(&self, version: &str) -> Result<types::Version, BranchError> {
        let id = self.version_id(version)?;
        self.shared.volumes.unpin(id).await?;
        self.shared.catalog.unpin_version(id)?;
        self.version(id)
    }

    fn version_id(&self, text: &str) -> Result<VersionId, BranchError> {
        let id = text.parse()?;
        self.version(id).map(|_| id)
    }

    fn version(&self, id: VersionId) -> Result<types::Version, BranchError> {
        let row = self.shared.catalog.version(id)?;
        row.as_ref()
            .map(view::version)
            .ok_or_else(|| BranchError::NoVersion { version: id.to_string() })
    }
}
