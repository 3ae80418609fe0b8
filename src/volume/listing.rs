//! What is in the store, found without a catalog.

use bytes::Bytes;

use super::error::VolumeError;
use super::format::FormatError;
use super::pack::PackKind;
use super::{Head, Volumes, keys};
use crate::base::ids::{BranchId, PackId, VersionId};
use crate::base::parallel::parallel;
use crate::store::{Key, LIST_PAGE, Listed, StoreError};

/// Objects that are read at a time.
const PARALLEL: usize = 16;

impl Volumes {
    /// Every branch's head, deleted ones too, by branch.
    ///
    /// # Errors
    /// The store fails, or one of them cannot be read: then nobody knows what is needed.
    pub async fn heads(&self) -> Result<Vec<Head>, VolumeError> {
        self.documents(keys::HEADS, open_head).await?.into_iter().collect()
    }

    /// The id of every branch that has a head.
    ///
    /// # Errors
    /// The store fails, or holds something else under `heads/`.
    pub async fn branch_ids(&self) -> Result<Vec<BranchId>, VolumeError> {
        self.ids(keys::HEADS).await
    }

    /// The id of every version, the oldest first.
    ///
    /// # Errors
    /// The store fails, or holds something else under `versions/`.
    pub async fn version_ids(&self) -> Result<Vec<VersionId>, VolumeError> {
        self.ids(keys::VERSIONS).await
    }

    /// The same with what the store says of their objects.
    pub(super) async fn version_objects(&self) -> Result<Vec<(VersionId, Listed)>, VolumeError> {
        let listed = self.listed(keys::VERSIONS).await?.into_iter();
        listed
            .map(|entry| {
                let id = keys::id(keys::VERSIONS, &entry.key).ok_or_else(|| no_id(&entry.key))?;
                Ok((id, entry))
            })
            .collect()
    }

    /// All packs, or pages objects. What else may lie there is not Argon's.
    pub(super) async fn packs(&self, kind: PackKind) -> Result<Vec<(PackId, Listed)>, VolumeError> {
        let prefix = keys::packs(kind);
        let listed = self.listed(prefix).await?.into_iter();
        Ok(listed.filter_map(|entry| keys::id(prefix, &entry.key).map(|id| (id, entry))).collect())
    }

    /// The ids in all keys under a prefix.
    pub(super) async fn ids<T>(&self, prefix: &'static str) -> Result<Vec<T>, VolumeError>
    where
        T: std::str::FromStr + std::fmt::Display,
    {
        let keys = self.keys_under(prefix).await?;
        keys.iter().map(|key| keys::id(prefix, key).ok_or_else(|| no_id(key))).collect()
    }

    /// What `read` makes of every object under a prefix, in the order of the keys; what is damaged
    /// is an error in its place.
    pub(super) async fn documents<T: Send + 'static>(
        &self,
        prefix: &'static str,
        read: fn(&Key, &[u8]) -> Result<T, FormatError>,
    ) -> Result<Vec<Result<T, VolumeError>>, VolumeError> {
        let keys = self.keys_under(prefix).await?;
        let reads = keys.into_iter().map(|key| self.clone().document(key, read));
        let mut documents: Vec<_> = parallel(PARALLEL, reads.collect::<Vec<_>>()).await?;
        documents.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        Ok(documents.into_iter().filter_map(|(_, document)| document).collect())
    }

    async fn document<T>(
        self,
        key: Key,
        read: fn(&Key, &[u8]) -> Result<T, FormatError>,
    ) -> Result<(Key, Option<Result<T, VolumeError>>), VolumeError> {
        let object: Bytes = match self.store.read(&key).await {
            Ok(object) => object.bytes,
            // Deleted since it was listed.
            Err(StoreError::NotFound { .. }) => return Ok((key, None)),
            Err(source) => {
                return Err(VolumeError::Store { doing: format!("read {key}"), source });
            }
        };
        let document = read(&key, &object).map_err(VolumeError::damaged(&key, "its document"));
        Ok((key, Some(document)))
    }

    async fn keys_under(&self, prefix: &'static str) -> Result<Vec<Key>, VolumeError> {
        Ok(self.listed(prefix).await?.into_iter().map(|entry| entry.key).collect())
    }

    /// Every object under a prefix, in the order of the keys.
    pub(super) async fn listed(&self, prefix: &'static str) -> Result<Vec<Listed>, VolumeError> {
        let mut found = Vec::<Listed>::new();
        loop {
            let after = found.last().map(|entry| &entry.key);
            let listed = self.store.list(prefix, after).await;
            let page = listed.map_err(VolumeError::store(|| format!("list {prefix}")))?;
            let more = page.len() == LIST_PAGE;
            found.extend(page);
            if !more {
                return Ok(found);
            }
        }
    }
}

/// The head under this key.
pub(super) fn open_head(key: &Key, object: &[u8]) -> Result<Head, FormatError> {
    Head::open(branch_of(key)?, object)
}

fn branch_of(key: &Key) -> Result<BranchId, FormatError> {
    keys::id(keys::HEADS, key).ok_or_else(|| FormatError::invalid(NO_ID))
}

const NO_ID: &str = "its key does not end with an id";

fn no_id(key: &Key) -> VolumeError {
    VolumeError::damaged(key, "its key")(FormatError::invalid(NO_ID))
}
