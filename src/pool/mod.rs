//! mongods that were started ahead.
//!
//! Job: keep a few mongods parked, each on a mount of its own that shows next to nothing, held before
//! it opens its storage; give one to a wake; replace what was taken, died or hangs, when no wake is
//! under way. Not its job: which branch gets one, and what becomes of it then.
//!
//! Invariant: a parked mongod is given away once, and serves what it was given to its end; nothing of
//! a branch is ever in the pool.

mod keeper;
mod member;
mod plan;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::metrics::Metrics;
use crate::compute::Compute;
use crate::mount::lazy::{Access, Template};

pub use member::{ParkedMongod, Place};

use plan::Standing;

/// What a mongod is started with that cannot be changed later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// WiredTiger's cache, GB.
    pub cache_gb: f64,
    /// Size of the oplog of a new volume, MB.
    pub oplog_mb: u32,
}

/// What a pool is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many mongods are kept parked; 0: none.
    pub size: usize,
    /// Where their mounts and logs are; the pool's own.
    pub directory: PathBuf,
    /// The directory in which each has one for its socket.
    pub sockets: PathBuf,
    /// What they are started with.
    pub terms: Terms,
    /// Who must be able to use their mounts.
    pub access: Access,
}

/// How a pool stands, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How many are to be parked.
    pub size: usize,
    /// How many are.
    pub parked: usize,
    /// How many are on their way there.
    pub starting: usize,
    /// Why the last one was lost, while none has been parked since.
    pub failure: Option<String>,
}

/// The parked mongods of a server. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    compute: Arc<dyn Compute>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Something that a plan is made by has changed.
    changed: Notify,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    /// It is being filled.
    open: bool,
    parked: VecDeque<ParkedMongod>,
    starting: usize,
    /// Wakes that are under way.
    wakes: usize,
    /// When the last one ended.
    calm_since: Option<Instant>,
    /// Losses in a row, and when the last one was.
    failures: u32,
    failed: Option<Instant>,
    failure: Option<String>,
    /// Counts those that were started.
    next: u64,
}

/// A wake that is under way. Meanwhile no mongod is started for the pool.
#[derive(Debug)]
pub struct Waking {
    pool: Pool,
}

impl Pool {
    /// A pool with nothing in it, to be filled when [`Self::open`] is called.
    pub fn new(compute: Arc<dyn Compute>, metrics: Arc<Metrics>, settings: Settings) -> Self {
        let inner = Inner {
            settings,
            compute,
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How many mongods it is to keep, where they can be kept at all.
    pub fn size(&self) -> usize {
        if self.inner.compute.can_park() { self.inner.settings.size } else { 0 }
    }

    /// Begins to keep mongods parked, on mounts that show this.
    pub fn open(&self, template: Template) {
        if self.size() == 0 {
            return;
        }
        self.inner.lock().open = true;
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move { keeper::keep(&inner, &template).await });
    }

    /// Says that a wake begins; it ends when what is given is dropped.
    pub fn wake(&self) -> Waking {
        self.inner.lock().wakes += 1;
        Waking { pool: self.clone() }
    }

    /// One of them, started with these terms; `None` where none is parked.
    pub fn take(&self, terms: Terms) -> Option<ParkedMongod> {
        if !plan::fits(self.inner.settings.terms, terms) {
            return None;
        }
        loop {
            let parked = self.inner.lock().parked.pop_front()?;
            self.inner.changed.notify_one();
            if parked.is_sound() {
                return Some(parked);
            }
            self.inner.lose(parked, "it was killed");
        }
    }

    /// Takes one back that was not let go on.
    pub fn give_back(&self, parked: ParkedMongod) {
        self.inner.lock().parked.push_front(parked);
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let state = self.inner.lock();
        Status {
            size: if state.open { self.inner.settings.size } else { 0 },
            parked: state.parked.len(),
            starting: state.starting,
            failure: state.failure.clone(),
        }
    }

    /// Ends what is parked, and parks nothing any more. Returns when nothing of it is left.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        let parked: Vec<_> = self.inner.lock().parked.drain(..).collect();
        for one in parked {
            one.end().await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            size: self.settings.size,
            here: state.parked.len(),
            wakes: state.wakes,
            calm_for: state.calm_since.map(|since| since.elapsed()),
            failures: state.failures,
            failed_for: state.failed.map(|failed| failed.elapsed()),
        }
    }

    /// Ends one that nobody can use, in the background.
    fn lose(&self, parked: ParkedMongod, why: &str) {
        self.lost(why);
        self.tasks.spawn(parked.end());
    }

    fn lost(&self, why: &str) {
        tracing::warn!("a mongod that was started ahead is lost: {why}");
        self.metrics.parked_lost();
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.failed = Some(Instant::now());
        state.failure = Some(why.to_owned());
        drop(state);
        self.changed.notify_one();
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        let mut state = self.pool.inner.lock();
        state.wakes -= 1;
        state.calm_since = Some(Instant::now());
        drop(state);
        self.pool.inner.changed.notify_one();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("status", &self.status()).finish_non_exhaustive()
    }
}
