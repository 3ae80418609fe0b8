//! For tests: stores that do not keep conditions, as some S3 servers do not.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, ETag, Key, Listed, LocalStore, Object, Store, StoreError};

/// A local store behind carelessness.
#[derive(Debug)]
pub struct Careless {
    inner: LocalStore,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Every write succeeds.
    Ignores,
    /// `If-Match` alone is ignored.
    IgnoresMatch,
    /// `If-Match` never holds.
    RefusesMatch,
    /// It looks first and writes later.
    LooksThenWrites,
}

impl Careless {
    pub fn ignoring(root: &Path) -> Arc<Self> {
        Self::new(root, How::Ignores)
    }

    pub fn ignoring_match(root: &Path) -> Arc<Self> {
        Self::new(root, How::IgnoresMatch)
    }

    pub fn refusing_match(root: &Path) -> Arc<Self> {
        Self::new(root, How::RefusesMatch)
    }

    pub fn looking_then_writing(root: &Path) -> Arc<Self> {
        Self::new(root, How::LooksThenWrites)
    }

    fn new(root: &Path, how: How) -> Arc<Self> {
        Arc::new(Self { inner: LocalStore::open(root).unwrap(), how })
    }

    async fn holds(&self, key: &Key, condition: &Condition) -> bool {
        let found = self.inner.read(key).await.ok().map(|object| object.etag);
        match condition {
            Condition::Always => true,
            Condition::Absent => found.is_none(),
            Condition::Matches(tag) => found.as_ref() == Some(tag),
        }
    }
}

#[async_trait]
impl Store for Careless {
    fn describe(&self) -> String {
        "a careless store".to_owned()
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        self.inner.read(key).await
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.read_range(key, range).await
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        let is_match = matches!(condition, Condition::Matches(_));
        let condition = match self.how {
            How::Ignores => Condition::Always,
            How::IgnoresMatch if is_match => Condition::Always,
            How::RefusesMatch if is_match => {
                return Err(StoreError::Conflict { key: key.clone() });
            }
            How::LooksThenWrites => {
                if !self.holds(key, &condition).await {
                    return Err(StoreError::Conflict { key: key.clone() });
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                Condition::Always
            }
            _ => condition,
        };
        self.inner.write(key, bytes, condition).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        self.inner.write_file(key, file).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after).await
    }
}
