//! A store for one writer alone, on top of one that does not keep conditions.
//!
//! Within this process conditions hold as everywhere: writes of one key take turns, and each looks
//! at the object before it writes. Against another process nothing is promised; what keeps a
//! second server away is the lock on the data directory, if it uses the same one.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};

use super::{Condition, ETag, Key, Listed, Object, Store, StoreError};

/// Locks that keys share by their hash.
const LOCKS: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct SingleWriter {
    inner: Arc<dyn Store>,
    locks: [Mutex<()>; LOCKS],
}

impl SingleWriter {
    /// On top of `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, locks: std::array::from_fn(|_| Mutex::new(())) }
    }

    async fn turn(&self, key: &Key) -> MutexGuard<'_, ()> {
        let place = blake3::hash(key.as_str().as_bytes()).as_bytes()[0];
        self.locks[usize::from(place) % LOCKS].lock().await
    }
}

#[async_trait]
impl Store for SingleWriter {
    fn describe(&self) -> String {
        format!("{}, for one writer alone", self.inner.describe())
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
        let _turn = self.turn(key).await;
        let conflict = || StoreError::Conflict { key: key.clone() };
        match condition {
            Condition::Always => {}
            Condition::Absent => match self.inner.size(key).await {
                Err(StoreError::NotFound { .. }) => {}
                Ok(_) => return Err(conflict()),
                Err(error) => return Err(error),
            },
            Condition::Matches(tag) => match self.inner.read(key).await {
                Ok(object) if object.etag == tag => {}
                Ok(_) | Err(StoreError::NotFound { .. }) => return Err(conflict()),
                Err(error) => return Err(error),
            },
        }
        self.inner.write(key, bytes, Condition::Always).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        let _turn = self.turn(key).await;
        self.inner.write_file(key, file).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.inner.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let _turn = self.turn(key).await;
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::store::careless::Careless;
    use crate::store::probe::{Breach, Conditions, probe};
    use crate::store::suite;

    #[tokio::test(flavor = "multi_thread")]
    async fn conditions_hold_on_top_of_a_store_that_ignores_them() {
        let directory = tempfile::tempdir().unwrap();
        let careless: Arc<dyn Store> = Careless::ignoring(directory.path());
        let now = Timestamp::from_unix_ms(1_700_000_000_123);
        let found = probe(&careless, now).await.unwrap();
        assert_eq!(found, Conditions::Broken(Breach::IgnoresAbsent));
        let single: Arc<dyn Store> = Arc::new(SingleWriter::new(careless));
        assert_eq!(probe(&single, now).await.unwrap(), Conditions::Kept);
        suite::all(single).await;
    }
}
