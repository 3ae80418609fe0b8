//! All of a store that a catalog is made of, for whoever has lost theirs.

use super::error::VolumeError;
use super::version::Root;
use super::{Head, Project, Version, Volumes, keys};
use crate::base::ids::VersionId;
use crate::store::Key;

/// What was found, each in the order of its ids. What cannot be read is named, not left out in
/// silence.
#[derive(Debug)]
pub struct Survey {
    /// Projects.
    pub projects: Vec<Project>,
    /// Branches, deleted ones too.
    pub heads: Vec<Head>,
    /// Versions.
    pub versions: Vec<Version>,
    /// The versions that are kept for good.
    pub pins: Vec<VersionId>,
    /// What is wrong with the rest.
    pub damaged: Vec<VolumeError>,
}

impl Volumes {
    /// Whether the store has any branch.
    pub async fn has_heads(&self) -> Result<bool, VolumeError> {
        let page = self.store.list(keys::HEADS, None).await;
        page.map(|page| !page.is_empty())
            .map_err(VolumeError::store(|| format!("list {}", keys::HEADS)))
    }

    /// Reads every project, head and version.
    ///
    /// # Errors
    /// The store fails. That an object is damaged is none.
    pub async fn survey(&self) -> Result<Survey, VolumeError> {
        // The versions last: what was made meanwhile has its version before its head.
        let projects = self.documents(keys::PROJECTS, |_, bytes| Project::open(bytes)).await?;
        let heads = self.documents(keys::HEADS, Head::open_at).await?;
        let versions = self.documents(keys::VERSIONS, version).await?;
        let mut damaged = Vec::new();
        let survey = Survey {
            projects: sound(projects, &mut damaged),
            heads: sound(heads, &mut damaged),
            versions: sound(versions, &mut damaged),
            pins: self.pins().await?,
            damaged: Vec::new(),
        };
        Ok(Survey { damaged, ..survey })
    }
}

fn version(key: &Key, object: &[u8]) -> Result<Version, super::FormatError> {
    let id = keys::id(keys::VERSIONS, key).ok_or_else(super::listing::no_id)?;
    Ok(Root::open(id, object)?.version)
}

fn sound<T>(documents: Vec<Result<T, VolumeError>>, damaged: &mut Vec<VolumeError>) -> Vec<T> {
    let split = |document: Result<T, VolumeError>| document.map_err(|e| damaged.push(e)).ok();
    documents.into_iter().filter_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Condition, Store};
    use crate::volume::testing::{head, request, volumes};

    #[tokio::test]
    async fn everything_is_found_and_what_is_damaged_is_named() {
        let (volumes, store) = volumes();
        assert!(!volumes.has_heads().await.unwrap());
        let directory = tempfile::tempdir().unwrap();
        let version = volumes.capture(directory.path(), request(None)).await.unwrap();
        let head = Head { version: version.id, ..head(1) };
        volumes.create_head(&head).await.unwrap();
        volumes.pin(version.id).await.unwrap();
        assert!(volumes.has_heads().await.unwrap());
        let survey = volumes.survey().await.unwrap();
        assert_eq!((survey.heads, survey.versions), (vec![head.clone()], vec![version.clone()]));
        assert_eq!((survey.projects, survey.pins), (vec![], vec![version.id]));
        assert!(survey.damaged.is_empty());

        let other = "070w3ge1r70w3ge1r70w3ge1r7";
        let keys = [format!("projects/{other}"), "heads/junk".into(), format!("versions/{other}")];
        for key in &keys {
            store.write(&key.parse().unwrap(), "junk".into(), Condition::Always).await.unwrap();
        }
        let survey = volumes.survey().await.unwrap();
        assert_eq!((survey.heads, survey.versions), (vec![head], vec![version]));
        let damaged: Vec<_> = survey.damaged.iter().map(ToString::to_string).collect();
        let expected = keys.map(|key| format!("{key} is damaged: its document"));
        assert_eq!(damaged, expected);
    }
}
