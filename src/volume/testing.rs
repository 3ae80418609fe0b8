//! For tests: a store in a temporary directory, a store that fails when told, random numbers.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Capture, Cause, Head, MongodVersion, ServerLease, Volumes};
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::base::ids::{BranchId, Epoch, ProjectId, ServerId, VersionId};
use crate::base::own_time::OwnTime;
use crate::store::{Condition, ETag, Key, Listed, LocalStore, Object, Store, StoreError};

/// A store that is gone when dropped.
#[derive(Debug)]
pub struct TestStore {
    store: LocalStore,
    _directory: tempfile::TempDir,
}

impl Deref for TestStore {
    type Target = LocalStore;

    fn deref(&self) -> &LocalStore {
        &self.store
    }
}

impl TestStore {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: LocalStore::open(directory.path()).unwrap(), _directory: directory }
    }

    /// How many objects there are under each of these prefixes.
    pub async fn count<const N: usize>(&self, prefixes: [&str; N]) -> [usize; N] {
        let mut counts = [0; N];
        for (count, prefix) in counts.iter_mut().zip(prefixes) {
            *count = self.list(prefix, None).await.unwrap().len();
        }
        counts
    }
}

/// Volumes in a store of their own.
pub fn volumes() -> (Volumes, TestStore) {
    let store = TestStore::new();
    let volumes = Volumes::new(Arc::new(store.store.clone()), Arc::new(SystemClock::default()));
    (volumes, store)
}

/// Volumes in a store of their own, and their clock.
pub fn timed_volumes() -> (Volumes, TestStore, Arc<ManualClock>) {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let volumes = Volumes::new(Arc::new(store.store.clone()), clock.clone());
    (volumes, store, clock)
}

/// A head of a branch that is always the same one.
pub fn head(epoch: u64) -> Head {
    Head {
        branch: BranchId::from_bytes([1; 16]),
        branch_name: "dev".parse().unwrap(),
        project: ProjectId::from_bytes([2; 16]),
        project_name: "shop".parse().unwrap(),
        version: VersionId::from_bytes([3; 16]),
        epoch: Epoch(epoch),
        owner: None,
        created: Timestamp::from_unix_ms(1_700_000_000_123),
        deleted: None,
        origin: None,
        idle_timeout: OwnTime::Default,
        snapshot_every: OwnTime::Default,
        keep_warm: OwnTime::Default,
    }
}

/// So that a head of [`head`] can be made: whether its version can be read is not asked.
pub async fn add_version(store: &dyn Store) {
    let key = super::keys::version(head(1).version);
    store.write(&key, "a version".into(), Condition::Absent).await.unwrap();
}

/// A lease of a server that is always the same one.
pub fn server_lease() -> ServerLease {
    ServerLease {
        server: ServerId::from_bytes([4; 16]),
        session: ServerId::from_bytes([9; 16]),
        address: "127.0.0.1:27017".to_owned(),
        term: 1,
        renewals: 1,
        ttl_ms: 600_000,
        fenced_by: None,
    }
}

/// A request to capture on top of `parent`.
pub fn request(parent: Option<VersionId>) -> Capture {
    Capture {
        id: VersionId::generate(Timestamp::from_unix_ms(1_700_000_000_123)),
        parent,
        branch: None,
        cause: Cause::Suspend,
        mongod: MongodVersion { version: "6.0.5".to_owned(), fcv: "6.0".to_owned(), image: None },
        label: None,
    }
}

/// When a write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing is written, the store is full.
    BeforeTheEffect,
    /// It is written, and the answer is lost.
    AfterTheEffect,
}

/// A store whose writes fail when told.
#[derive(Debug)]
pub struct Faults {
    inner: TestStore,
    next: Mutex<Option<(u32, When)>>,
}

impl Faults {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: TestStore::new(), next: Mutex::new(None) })
    }

    pub fn volumes(self: &Arc<Self>) -> Volumes {
        Volumes::new(self.clone(), Arc::new(SystemClock::default()))
    }

    /// Makes the `number`-th write from now on fail, and only that one. 1 is the next.
    pub fn fail_write(&self, number: u32, when: When) {
        *self.next.lock().unwrap() = Some((number, when));
    }

    /// Whether the fault that was set has not come yet; it will not come any more.
    pub fn take_unused(&self) -> bool {
        self.next.lock().unwrap().take().is_some()
    }

    fn due(&self) -> Option<When> {
        let mut next = self.next.lock().unwrap();
        let (number, when) = (*next)?;
        *next = (number > 1).then_some((number - 1, when));
        next.is_none().then_some(when)
    }
}

#[async_trait]
impl Store for Faults {
    fn describe(&self) -> String {
        "a store that fails when told".to_owned()
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
        let due = self.due();
        if due == Some(When::BeforeTheEffect) {
            let source = "as asked".into();
            return Err(StoreError::Full { doing: "write", subject: key.to_string(), source });
        }
        let written = self.inner.write(key, bytes, condition).await;
        if due == Some(When::AfterTheEffect) {
            let source = "the answer was lost".into();
            return Err(StoreError::Io { doing: "write", subject: key.to_string(), source });
        }
        written
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

/// A clock that goes on when told, and a millisecond whenever it is looked at.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn new() -> Arc<Self> {
        // The machine's time, as that is when the objects of a local store were written.
        Arc::new(Self(AtomicU64::new(SystemClock::default().now().unix_ms())))
    }

    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
