//! Frames on demand: from memory, from this machine's cache, from the store, each asked for once at
//! a time however many want it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OnceCell};

use super::cache::BlockCache;
use super::error::VolumeError;
use super::fetch::{Batch, Wanted, fetch_each, plan};
use super::pack::PackKind;
use super::recent::Recent;
use super::reference::{Encoding, Frame};
use crate::store::Store;

/// How a frame's place is called in errors.
pub type Name = Arc<dyn Fn(&Wanted) -> String + Send + Sync>;

/// What all lazy volumes of a store share.
#[derive(Debug, Default)]
pub struct Reads {
    cache: Option<Arc<BlockCache>>,
    recent: Recent,
    /// By the hash of what is being fetched.
    flights: Mutex<HashMap<blake3::Hash, Arc<Flight>>>,
    /// Fetches that somebody waits for.
    demand: AtomicUsize,
    calm: Notify,
}

/// One range read that is under way. Whoever waits for it carries it on when its first asker goes.
#[derive(Debug)]
struct Flight {
    batch: Batch,
    landed: OnceCell<Landed>,
}

type Landed = HashMap<blake3::Hash, Result<Bytes, Arc<VolumeError>>>;

/// What is to be done about a frame.
enum Joined {
    Flight(Arc<Flight>),
    /// Nothing more.
    Landed(Bytes),
}

/// A fetch that somebody waits for, as long as it is held.
#[derive(Debug)]
pub struct Demand<'r>(&'r Reads);

impl Reads {
    /// With a cache on disk.
    pub fn with_cache(cache: Arc<BlockCache>) -> Self {
        Self { cache: Some(cache), ..Self::default() }
    }

    /// The cache on disk, where there is one.
    pub fn cache(&self) -> Option<&Arc<BlockCache>> {
        self.cache.as_ref()
    }

    /// A frame's content if this machine has it. Reads the disk at most.
    pub fn local(&self, kind: PackKind, frame: &Frame) -> Option<Bytes> {
        if let Some(content) = self.recent.find(&frame.hash) {
            return Some(content);
        }
        let content = self.cache.as_ref()?.read(&frame.hash, frame.raw as usize)?;
        if kind == PackKind::Blocks {
            self.recent.insert(frame.hash, content.clone());
        }
        Some(content)
    }

    /// Whether [`Self::local`] would probably have it on disk.
    pub fn is_cached(&self, frame: &Frame) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.contains(&frame.hash))
    }

    /// Keeps content on disk that was made here. Blocks.
    pub fn keep(&self, hash: &blake3::Hash, content: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.insert(hash, content);
        }
    }

    /// A frame's content from the store, and `ahead`, what is read along with it, into the cache.
    pub async fn demand(
        &self,
        store: &dyn Store,
        kind: PackKind,
        wanted: Wanted,
        ahead: Vec<Wanted>,
        name: &Name,
    ) -> Result<Bytes, Arc<VolumeError>> {
        let _demand = self.waiting();
        let flight = match self.join(wanted, ahead) {
            Joined::Landed(content) => return Ok(content),
            Joined::Flight(flight) => flight,
        };
        let alone = flight.batch.wanted.len() == 1;
        match self.land(store, kind, &flight, name).await.get(&wanted.reference.frame.hash) {
            Some(Ok(content)) => return Ok(content.clone()),
            Some(Err(error)) if alone || error.is_missing() => return Err(error.clone()),
            _ => {}
        }
        // What is wrong may be wrong with its neighbours only.
        let flight = match self.join(wanted, Vec::new()) {
            Joined::Landed(content) => return Ok(content),
            Joined::Flight(flight) => flight,
        };
        let landed = self.land(store, kind, &flight, name).await;
        landed.get(&wanted.reference.frame.hash).expect("it was asked for").clone()
    }

    /// Frames from the store into the cache, in one read. Gives their contents, in the order of the
    /// batch's `wanted`.
    pub async fn batch(
        &self,
        store: &dyn Store,
        kind: PackKind,
        batch: &Batch,
        name: &Name,
    ) -> Result<Vec<Result<Bytes, VolumeError>>, VolumeError> {
        let (cache, name) = (self.cache.clone(), name.clone());
        let keep = move |wanted: &Wanted, content: &Bytes| {
            if let Some(cache) = &cache {
                cache.insert(&wanted.reference.frame.hash, content);
            }
        };
        let found = fetch_each(store, kind, batch, move |wanted| name(wanted), keep).await?;
        let own = |(wanted, content): (&Wanted, Result<Bytes, VolumeError>)| {
            content.map(|content| own(&wanted.reference.frame, content))
        };
        Ok(batch.wanted.iter().zip(found).map(own).collect())
    }

    /// Tells the background, as long as it is held, that somebody waits for the store.
    pub fn waiting(&self) -> Demand<'_> {
        Demand::new(self)
    }

    /// Waits until nobody waits for the store.
    pub async fn calm(&self) {
        loop {
            let calm = self.calm.notified();
            tokio::pin!(calm);
            calm.as_mut().enable();
            if self.demand.load(Ordering::SeqCst) == 0 {
                return;
            }
            calm.await;
        }
    }

    /// The flight that brings this frame: one that is under way, or a new one.
    fn join(&self, wanted: Wanted, ahead: Vec<Wanted>) -> Joined {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&wanted.reference.frame.hash) {
            return Joined::Flight(flight.clone());
        }
        // It may have landed since it was looked for here.
        if let Some(content) = self.recent.find(&wanted.reference.frame.hash) {
            return Joined::Landed(content);
        }
        let mut batch = ahead;
        batch.retain(|one| {
            let frame = &one.reference.frame;
            !flights.contains_key(&frame.hash) && !self.is_cached(frame)
        });
        batch.insert(0, wanted);
        // One read, unless what lay between was left out; then what is wanted and what is next to it.
        let mut batches = plan(batch);
        let its = |batch: &Batch| batch.wanted.contains(&wanted);
        let place = batches.iter().position(its).expect("every frame is in a batch");
        let batch = batches.swap_remove(place);
        let flight = Arc::new(Flight { batch, landed: OnceCell::new() });
        for one in &flight.batch.wanted {
            flights.insert(one.reference.frame.hash, flight.clone());
        }
        Joined::Flight(flight)
    }

    async fn land<'f>(
        &self,
        store: &dyn Store,
        kind: PackKind,
        flight: &'f Arc<Flight>,
        name: &Name,
    ) -> &'f Landed {
        let landed = flight.landed.get_or_init(|| self.fly(store, kind, &flight.batch, name)).await;
        let mut flights = self.flights();
        for one in &flight.batch.wanted {
            let hash = &one.reference.frame.hash;
            if flights.get(hash).is_some_and(|other| Arc::ptr_eq(other, flight)) {
                flights.remove(hash);
            }
        }
        landed
    }

    async fn fly(&self, store: &dyn Store, kind: PackKind, batch: &Batch, name: &Name) -> Landed {
        let hashes = batch.wanted.iter().map(|wanted| wanted.reference.frame.hash);
        let contents = match self.batch(store, kind, batch, name).await {
            Ok(contents) => contents,
            Err(error) => {
                let error = Arc::new(error);
                return hashes.map(|hash| (hash, Err(error.clone()))).collect();
            }
        };
        let landed = hashes.zip(contents).map(|(hash, content)| {
            if let Ok(content) = &content {
                self.recent.insert(hash, content.clone());
            }
            (hash, content.map_err(Arc::new))
        });
        landed.collect()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<blake3::Hash, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'r> Demand<'r> {
    fn new(reads: &'r Reads) -> Self {
        reads.demand.fetch_add(1, Ordering::SeqCst);
        Self(reads)
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        if self.0.demand.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.calm.notify_waiters();
        }
    }
}

/// Content that keeps nothing else in memory: a raw frame is a part of all that was read with it.
fn own(frame: &Frame, content: Bytes) -> Bytes {
    match frame.encoding {
        Encoding::Raw => Bytes::copy_from_slice(&content),
        Encoding::Zstd => content,
    }
}
