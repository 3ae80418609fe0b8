//! Projects, as the store knows them: so that a lost catalog can be made again.

use serde::{Deserialize, Serialize};

use super::envelope::{self, Kind};
use super::error::VolumeError;
use super::format::{FormatError, ms};
use super::{Volumes, keys};
use crate::base::clock::Timestamp;
use crate::base::ids::{ProjectId, VersionId};
use crate::base::name::Name;
use crate::base::retention::Retention;
use crate::store::{Condition, Key};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: Name,
    /// When it was made.
    #[serde(rename = "created_ms", with = "ms")]
    pub created: Timestamp,
    /// The version that new branches start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<VersionId>,
    /// How long its versions and deleted branches are kept; the usual where it says nothing.
    #[serde(default)]
    pub retention: Retention,
    /// The image that new branches begin with; none is the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Project {
    pub(super) fn open(object: &[u8]) -> Result<Self, FormatError> {
        envelope::open(Kind::Project, object)
    }
}

impl Volumes {
    /// Writes a project, over an earlier state of it.
    pub async fn save_project(&self, project: &Project) -> Result<(), VolumeError> {
        let key = keys::project(project.id);
        let bytes =
            envelope::seal(Kind::Project, project).map_err(VolumeError::unwritable(&key))?;
        let written = self.store.write(&key, bytes, Condition::Always).await;
        written.map(drop).map_err(VolumeError::store(|| format!("write {key}")))
    }

    /// Deletes a project; one that does not exist is fine.
    pub async fn delete_project(&self, project: ProjectId) -> Result<(), VolumeError> {
        let key = keys::project(project);
        self.store.delete(&key).await.map_err(VolumeError::store(|| format!("delete {key}")))
    }

    /// All projects, by id.
    ///
    /// # Errors
    /// The store fails, or one of them cannot be read.
    pub async fn projects(&self) -> Result<Vec<Project>, VolumeError> {
        let read = |_: &Key, object: &[u8]| Project::open(object);
        self.documents(keys::PROJECTS, read).await?.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::volume::testing::volumes;

    #[tokio::test]
    async fn projects_are_kept_and_listed() {
        let (volumes, store) = volumes();
        let project = |n: u8| Project {
            id: ProjectId::from_bytes([n; 16]),
            name: format!("p{n}").parse().unwrap(),
            created: Timestamp::from_unix_ms(n.into()),
            base: None,
            retention: Retention::default(),
            image: None,
        };
        for n in [2, 1, 3] {
            volumes.save_project(&project(n)).await.unwrap();
        }
        let base = Some(VersionId::from_bytes([7; 16]));
        let second = Project { base, image: Some("mongo:8.0".to_owned()), ..project(2) };
        volumes.save_project(&second).await.unwrap();
        for _ in 0..2 {
            volumes.delete_project(project(3).id).await.unwrap();
        }
        assert_eq!(volumes.projects().await.unwrap(), [project(1), second]);

        // As an Argon wrote it that knew no rules.
        let old = bson::doc! { "id": project(4).id.to_string(), "name": "p4", "created_ms": 4_i64 };
        let old = envelope::seal(Kind::Project, &old).unwrap();
        assert_eq!(Project::open(&old), Ok(project(4)));

        let broken = "projects/junk".parse().unwrap();
        store.write(&broken, "junk".into(), Condition::Always).await.unwrap();
        let error = volumes.projects().await.unwrap_err();
        assert!(error.to_string().contains("projects/junk is damaged"), "{error}");
    }
}
