//! For the tests of lazy volumes: a store that is watched, and machines with a cache.

use std::sync::Arc;

use super::super::Volumes;
use super::LazyVolume;
use crate::base::clock::SystemClock;
use crate::base::ids::VersionId;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::lazy::Source;
use crate::store::{LocalStore, Store};
use crate::volume::model::{Model, make};
use crate::volume::sealed::Witness;
use crate::volume::testing::{TestStore, head, request};
use crate::volume::{BlockCache, Capture};

/// Volumes whose store is watched, and everything they need.
pub struct Bench {
    pub volumes: Volumes,
    pub store: Arc<Witness>,
    pub inner: TestStore,
    place: tempfile::TempDir,
}

impl Bench {
    pub fn new(cache_blocks: Option<u64>) -> Self {
        let (inner, place) = (TestStore::new(), tempfile::tempdir().unwrap());
        let local: &LocalStore = &inner;
        let store = Witness::new(Arc::new(local.clone()));
        let mut bench = Self { volumes: plain(store.clone()), store, inner, place };
        if let Some(blocks) = cache_blocks {
            bench.volumes = bench.anew(blocks);
        }
        bench
    }

    /// As after a start of the server, with the cache that is there.
    pub fn anew(&self, blocks: u64) -> Volumes {
        let bytes = blocks * BLOCK_BYTES as u64;
        let cache = BlockCache::open(&self.place.path().join("cache"), bytes).unwrap();
        plain(self.store.clone()).with_cache(Arc::new(cache))
    }

    /// As on another machine.
    pub fn elsewhere(&self, blocks: u64) -> Volumes {
        std::fs::remove_dir_all(self.place.path().join("cache")).ok();
        self.anew(blocks)
    }

    pub async fn captured(&self, model: &Model) -> VersionId {
        let directory = tempfile::tempdir().unwrap();
        make(model, directory.path());
        let asked = Capture { branch: Some(head(1).branch), ..request(None) };
        let version = self.volumes.capture(directory.path(), asked).await.unwrap().id;
        self.store.take();
        version
    }
}

pub fn plain(store: Arc<dyn Store>) -> Volumes {
    Volumes::new(store, Arc::new(SystemClock::default()))
}

/// All that a volume holds, read block by block as a mount does.
pub async fn read_all(volume: &LazyVolume) -> Model {
    let directories = volume.tree().directories().iter();
    let mut model: Model = directories.map(|entry| (entry.path.to_string(), None)).collect();
    for (place, file) in volume.tree().files().iter().enumerate() {
        let mut content = Vec::new();
        for index in 0..file.bytes.div_ceil(BLOCK_BYTES as u64) {
            let block = match volume.at_hand(place, index) {
                Some(block) => block,
                None => volume.block(place, index).await.unwrap(),
            };
            content.extend_from_slice(&block);
        }
        model.insert(file.path.to_string(), Some(content));
    }
    model
}
