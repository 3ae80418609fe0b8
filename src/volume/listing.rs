//! What is in the store, found without a catalog.

use bytes::Bytes;

use super::error::VolumeError;
use super::format::FormatError;
use super::{Head, Volumes, keys};
use crate::base::ids::VersionId;
use crate::base::parallel::parallel;
use crate::store::{Key, LIST_PAGE, StoreError};

/// Objects that are read at a time.
const PARALLEL: usize = 16;

impl Volumes {
    /// Every branch's head, deleted ones too, by branch.
    ///
    /// # Errors
    /// The store fails, or one of them cannot be read: then nobody knows what is needed.
    pub async fn heads(&self) -> Result<Vec<Head>, VolumeError> {
        self.documents(keys::HEADS, Head::open_at).await?.into_iter().collect()
    }

    /// The id of every version, the oldest first.
    ///
    /// # Errors
    /// The store fails, or holds something else under `versions/`.
    pub async fn version_ids(&self) -> Result<Vec<VersionId>, VolumeError> {
        self.ids(keys::VERSIONS).await
    }

    /// The ids in all keys under a prefix.
    pub(super) async fn ids<T>(&self, prefix: &'static str) -> Result<Vec<T>, VolumeError>
    where
        T: std::str::FromStr + std::fmt::Display,
    {
        let keys = self.keys_under(prefix).await?;
        keys.iter()
            .map(|key| {
                keys::id(prefix, key).ok_or_else(|| VolumeError::damaged(key, "its key")(no_id()))
            })
            .collect()
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
        let mut keys = Vec::<Key>::new();
        loop {
            let listed = self.store.list(prefix, keys.last()).await;
            let page = listed.map_err(VolumeError::store(|| format!("list {prefix}")))?;
            let more = page.len() == LIST_PAGE;
            keys.extend(page.into_iter().map(|entry| entry.key));
            if !more {
                return Ok(keys);
            }
        }
    }
}

/// A key says which object it is of.
pub(super) fn no_id() -> FormatError {
    FormatError::invalid("its key does not end with an id")
}
