//! A store that is as far away and as narrow as told, for measuring.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Condition, ETag, Key, Listed, Object, Store, StoreError};

/// How far and how narrow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// From a request to the first byte of its answer.
    pub answer: Duration,
    /// Bytes a second of one request.
    pub stream: f64,
    /// Bytes a second of all together, in each direction.
    pub link: f64,
}

/// A store behind a link of this pace.
#[derive(Debug)]
pub struct Throttled {
    inner: Arc<dyn Store>,
    pace: Pace,
    down: Link,
    up: Link,
}

/// One direction: when what was promised so far is through.
#[derive(Debug)]
struct Link(Mutex<Instant>);

impl Link {
    async fn pass(&self, bytes: usize, pace: Pace) {
        let now = Instant::now();
        let alone = now + Duration::from_secs_f64(bytes as f64 / pace.stream);
        let shared = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(now) + Duration::from_secs_f64(bytes as f64 / pace.link);
            *free
        };
        sleep_until(alone.max(shared)).await;
    }
}

impl Throttled {
    /// In front of `inner`, whose own time comes on top.
    pub fn new(inner: Arc<dyn Store>, pace: Pace) -> Self {
        let [down, up] = [(); 2].map(|()| Link(Mutex::new(Instant::now())));
        Self { inner, pace, down, up }
    }
}

#[async_trait]
impl Store for Throttled {
    fn describe(&self) -> String {
        format!("{}, throttled", self.inner.describe())
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        sleep(self.pace.answer).await;
        let object = self.inner.read(key).await?;
        self.down.pass(object.bytes.len(), self.pace).await;
        Ok(object)
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        sleep(self.pace.answer).await;
        let bytes = self.inner.read_range(key, range).await?;
        self.down.pass(bytes.len(), self.pace).await;
        Ok(bytes)
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        sleep(self.pace.answer).await;
        self.up.pass(bytes.len(), self.pace).await;
        self.inner.write(key, bytes, condition).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        sleep(self.pace.answer).await;
        self.inner.write_file(key, file).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        sleep(self.pace.answer).await;
        self.inner.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        sleep(self.pace.answer).await;
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        sleep(self.pace.answer).await;
        self.inner.list(prefix, after).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::parallel::parallel;
    use crate::store::suite::key;
    use crate::store::{LocalStore, suite};

    #[tokio::test(start_paused = true)]
    async fn streams_share_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let inner = Arc::new(LocalStore::open(directory.path()).unwrap());
        let pace = Pace { answer: Duration::from_millis(30), stream: 1e6, link: 2e6 };
        inner.write(&key("a"), vec![1; 1_000_000].into(), Condition::Absent).await.unwrap();
        let store = Arc::new(Throttled::new(inner, pace));
        for (readers, wanted_ms) in [(1, 1030), (2, 1030), (8, 4030)] {
            let begun = Instant::now();
            let reads = (0..readers).map(|_| {
                let store = store.clone();
                async move { store.read(&key("a")).await.map(drop) }
            });
            parallel(readers, reads.collect::<Vec<_>>()).await.unwrap();
            let took_ms = begun.elapsed().as_millis();
            assert!(took_ms.abs_diff(wanted_ms) < 20, "{readers}: {took_ms}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let inner = Arc::new(LocalStore::open(directory.path()).unwrap());
        let pace = Pace { answer: Duration::ZERO, stream: 1e10, link: 1e10 };
        suite::all(Arc::new(Throttled::new(inner, pace))).await;
    }
}
