//! Volumes: immutable versions of a dbpath in the object store, and branch heads that point at them.
//!
//! Job: capture a directory as a version that shares with its parent what did not change; restore
//! and check versions; read and move heads and servers' leases by compare-and-swap; keep projects; find and
//! delete what nothing needs. The bytes are described in `data/README.md`. Not its job: when to do so,
//! names and states of branches, running mongod, the catalog.
//!
//! Public: [`Volumes`], [`Capture`], [`Version`], [`LazyVolume`], [`BlockCache`], [`Head`], [`ServerLease`], [`Project`], [`VolumeError`].
//! Invariant: what a version refers to is in the store as long as the version is, and what a version
//! holds never changes; bytes are verified before anybody sees them.

mod boot;
mod cache;
mod capture;
mod changes;
mod check;
mod collect;
mod compact;
mod condemned;
mod envelope;
mod error;
#[cfg(test)]
mod faulty;
mod fetch;
mod format;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod garbage;
#[cfg(test)]
mod golden;
mod head;
#[cfg(test)]
mod hostile;
mod index;
mod keys;
mod lazy;
mod listing;
mod mark;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod model;
mod next_boot;
mod pack;
mod page;
mod pin;
mod project;
#[cfg(test)]
mod properties;
mod reads;
mod recent;
mod reference;
mod restore;
mod rewrite;
mod scrub;
#[cfg(test)]
mod scrubbing;
#[cfg(test)]
mod sealed;
mod server_lease;
mod stretch;
mod survey;
#[cfg(test)]
mod testing;
mod upload;
mod uploads;
mod version;
mod whole;
#[cfg(test)]
mod world;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Clock;
use crate::base::ids::VersionId;
use crate::store::{Condition, ETag, Key, Store, StoreError};
use envelope::Kind;
use reads::Reads;
use uploads::Uploads;
use version::Root;

pub use cache::BlockCache;
pub use capture::Capture;
pub use check::Checked;
pub use collect::{Collect, Collected, Mode, Tally};
pub use error::VolumeError;
pub use format::FormatError;
pub use head::{Head, Origin};
pub use lazy::{BootFetched, Filled, LazyVolume};
pub use project::Project;
pub use restore::Restored;
pub use scrub::{Damage, Hurt, Scrubbed};
pub use server_lease::ServerLease;
pub use survey::Survey;
pub use version::{Cause, MongodVersion, Version};

/// The newest layout of keys that is known here.
const LAYOUT: i32 = 1;

/// All volumes of one store.
#[derive(Clone, Debug)]
pub struct Volumes {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    uploads: Arc<Uploads>,
    reads: Arc<Reads>,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    layout: i32,
}

impl Volumes {
    /// The volumes in this store. Call [`Self::prepare`] once before anything is written. Clones know
    /// of each other's captures; a process makes one for a store, and clones it.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, uploads: Arc::default(), reads: Arc::default() }
    }

    /// The same volumes, whose lazy reads go through this cache.
    pub fn with_cache(self, cache: Arc<BlockCache>) -> Self {
        Self { reads: Arc::new(Reads::with_cache(cache)), ..self }
    }

    /// Marks a new store as Argon's, or makes sure that this Argon understands it.
    ///
    /// # Errors
    /// [`VolumeError::Newer`] where a later Argon has laid it out.
    pub async fn prepare(&self) -> Result<(), VolumeError> {
        let key = keys::marker();
        let object = match self.store.read(&key).await {
            Ok(object) => object.bytes,
            Err(StoreError::NotFound { .. }) => {
                let marker = envelope::seal(Kind::Format, &Marker { layout: LAYOUT });
                let marker = marker.map_err(VolumeError::unwritable(&key))?;
                let written = self.write_once(&key, marker).await;
                return written.map_err(VolumeError::store(|| format!("write {key}")));
            }
            Err(source) => {
                return Err(VolumeError::Store { doing: format!("read {key}"), source });
            }
        };
        let damaged = VolumeError::damaged(&key, "its document");
        let marker: Marker = envelope::open(Kind::Format, &object).map_err(damaged)?;
        if marker.layout > LAYOUT {
            let [found, known] = [marker.layout, LAYOUT].map(|layout| layout as u32);
            return Err(VolumeError::Newer { object: key, found, known });
        }
        Ok(())
    }

    /// What is known of a version; reads its root document, but none of its pages and packs.
    pub async fn version(&self, version: VersionId) -> Result<Version, VolumeError> {
        Ok(self.root(version).await?.version)
    }

    async fn root(&self, version: VersionId) -> Result<Root, VolumeError> {
        Ok(self.root_marked(version).await?.0)
    }

    /// The root, and the mark by which it can be replaced.
    async fn root_marked(&self, version: VersionId) -> Result<(Root, ETag), VolumeError> {
        let key = keys::version(version);
        match self.store.read(&key).await {
            Ok(object) => {
                let root = Root::open(version, &object.bytes)
                    .map_err(VolumeError::damaged(&key, "its document"))?;
                Ok((root, object.etag))
            }
            Err(StoreError::NotFound { .. }) => Err(VolumeError::NoVersion { version }),
            Err(source) => Err(VolumeError::Store { doing: format!("read {key}"), source }),
        }
    }

    /// Writes an object that is never written again. That it is there already with these bytes is a
    /// success: an earlier try of the store's own took effect and reported a failure.
    async fn write_once(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        match self.store.write(key, bytes.clone(), Condition::Absent).await {
            Ok(_) => Ok(()),
            Err(conflict @ StoreError::Conflict { .. }) => match self.store.read(key).await? {
                object if object.bytes == bytes => Ok(()),
                _ => Err(conflict),
            },
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::volumes;

    #[tokio::test]
    async fn a_store_is_marked_once_and_a_later_ones_is_refused() {
        let (volumes, store) = volumes();
        for _ in 0..2 {
            volumes.prepare().await.unwrap();
        }
        for (layout, words) in [(2, "argon/format is of format version 2"), (i32::MAX, "newer")] {
            let later = envelope::seal(Kind::Format, &Marker { layout }).unwrap();
            store.write(&keys::marker(), later, Condition::Always).await.unwrap();
            let error = volumes.prepare().await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        store.write(&keys::marker(), "else".into(), Condition::Always).await.unwrap();
        let error = volumes.prepare().await.unwrap_err();
        assert!(matches!(error, VolumeError::Damaged { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_written_once_stays() {
        let (volumes, _store) = volumes();
        let key = keys::marker();
        for _ in 0..2 {
            volumes.write_once(&key, "1".into()).await.unwrap();
        }
        let other = volumes.write_once(&key, "2".into()).await;
        assert!(matches!(other, Err(StoreError::Conflict { .. })), "{other:?}");
    }
}
