//! A store with faults, for tests: it stands before another one and lets its calls fail, as often
//! as told and in the order that a seed gives.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, ETag, Key, LIST_PAGE, Listed, Object, Store, StoreError};

/// So many of the last changes are missing in a stale list.
const STALE_CHANGES: usize = 8;

/// What can go wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing.
    Before,
    /// It does its work and fails: applied, but reported as failed.
    After,
    /// It does nothing, and the time is up.
    TimedOutBefore,
    /// It does its work, and the time is up.
    TimedOutAfter,
    /// No space: nothing is done.
    Full,
    /// Not allowed: nothing is done.
    Denied,
    /// What is read is too short.
    Short,
    /// The tag that is given is not the object's.
    WrongTag,
    /// The list lacks what was just written and has what was just deleted.
    Stale,
    /// It takes long.
    Slow,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Before,
        Self::After,
        Self::TimedOutBefore,
        Self::TimedOutAfter,
        Self::Full,
        Self::Denied,
        Self::Short,
        Self::WrongTag,
        Self::Stale,
        Self::Slow,
    ];

    /// Whether a call of this kind can have it.
    fn is_of(self, call: Call) -> bool {
        match self {
            Self::Short => call == Call::Read,
            Self::WrongTag => matches!(call, Call::Read | Call::Write),
            Self::Stale => call == Call::List,
            Self::Full => call == Call::Write,
            _ => true,
        }
    }
}

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `read`, `read_range` and `size`.
    Read,
    /// `write` and `write_file`.
    Write,
    /// `delete`.
    Delete,
    /// `list`.
    List,
}

/// A store whose calls fail. Made without any fault.
#[derive(Debug)]
pub struct Faults {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
}

#[derive(Debug)]
struct Plan {
    random: u64,
    /// Of a thousand calls so many have a fault, one of these.
    per_mille: u64,
    kinds: Vec<Fault>,
    /// One fault that is to come, once, after so many calls of its kind.
    single: Option<(Call, u32, Fault)>,
    slow: Duration,
    happened: u64,
    /// The last changes, for stale lists: what was written, and what was deleted.
    written: VecDeque<Key>,
    deleted: VecDeque<Listed>,
}

impl Faults {
    /// In front of `inner`; the same seed and the same calls give the same faults.
    pub fn new(inner: Arc<dyn Store>, seed: u64) -> Arc<Self> {
        let plan = Plan {
            random: seed,
            per_mille: 0,
            kinds: Vec::new(),
            single: None,
            slow: Duration::from_millis(20),
            happened: 0,
            written: VecDeque::new(),
            deleted: VecDeque::new(),
        };
        Arc::new(Self { inner, plan: Mutex::new(plan) })
    }

    /// From now on so many of a thousand calls have one of these faults; 0 ends it.
    pub fn often(&self, per_mille: u64, kinds: &[Fault]) {
        let mut plan = self.plan();
        (plan.per_mille, plan.kinds) = (per_mille, kinds.to_vec());
    }

    /// The `number`-th call of this kind from now on (1 is the next) has this fault, once.
    pub fn once(&self, call: Call, number: u32, fault: Fault) {
        self.plan().single = Some((call, number, fault));
    }

    /// No faults any more. Gives whether one that was set by [`Self::once`] has not come.
    pub fn calm(&self) -> bool {
        let mut plan = self.plan();
        plan.per_mille = 0;
        plan.single.take().is_some()
    }

    /// Time has passed: what was changed until now is in every list from now on.
    pub fn settle(&self) {
        let mut plan = self.plan();
        plan.written.clear();
        plan.deleted.clear();
    }

    /// How many faults there were so far.
    pub fn happened(&self) -> u64 {
        self.plan().happened
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the work: which fault this call has, if any.
    async fn begin(
        &self,
        call: Call,
        doing: &'static str,
        subject: &str,
    ) -> Result<Option<Fault>, StoreError> {
        let (fault, slow) = {
            let mut plan = self.plan();
            (plan.due(call), plan.slow)
        };
        let (subject, source) = (subject.to_owned(), "as asked".into());
        match fault {
            Some(Fault::Before) => Err(StoreError::Io { doing, subject, source }),
            Some(Fault::TimedOutBefore) => Err(StoreError::TimedOut { doing, subject, source }),
            Some(Fault::Full) => Err(StoreError::Full { doing, subject, source }),
            Some(Fault::Denied) => Err(StoreError::Denied { doing, subject, source }),
            Some(Fault::Slow) => {
                tokio::time::sleep(slow).await;
                Ok(fault)
            }
            fault => Ok(fault),
        }
    }
}

/// After the work: an answer that is lost.
fn end<T>(
    fault: Option<Fault>,
    doing: &'static str,
    subject: &str,
    done: Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (subject, source) = (subject.to_owned(), "the answer was lost, as asked".into());
    match fault {
        Some(Fault::After) => Err(StoreError::Unreachable { doing, subject, source }),
        Some(Fault::TimedOutAfter) => Err(StoreError::TimedOut { doing, subject, source }),
        _ => done,
    }
}

/// Half of it, and never all.
fn cut(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len() / 2)
}

fn wrong(tag: &ETag) -> ETag {
    ETag(format!("not {}", tag.0))
}

impl Plan {
    fn due(&mut self, call: Call) -> Option<Fault> {
        if let Some((of, number, fault)) = self.single
            && of == call
        {
            self.single = (number > 1).then_some((of, number - 1, fault));
            if number <= 1 {
                self.happened += 1;
                return Some(fault);
            }
        }
        if self.next() % 1000 >= self.per_mille {
            return None;
        }
        let fit: Vec<_> = self.kinds.iter().copied().filter(|kind| kind.is_of(call)).collect();
        let place = (self.next() % fit.len().max(1) as u64) as usize;
        let fault = fit.get(place).copied()?;
        self.happened += 1;
        Some(fault)
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn note_written(&mut self, key: &Key) {
        self.deleted.retain(|entry| entry.key != *key);
        self.written.retain(|written| written != key);
        self.written.push_back(key.clone());
        if self.written.len() > STALE_CHANGES {
            self.written.pop_front();
        }
    }

    fn note_deleted(&mut self, entry: Listed) {
        self.deleted.push_back(entry);
        if self.deleted.len() > STALE_CHANGES {
            self.deleted.pop_front();
        }
    }

    /// A page as it was before the last changes.
    fn stale(&self, page: Vec<Listed>, prefix: &str, after: Option<&Key>) -> Vec<Listed> {
        let full = page.len() == LIST_PAGE;
        let last = page.last().map(|entry| entry.key.clone());
        let gone = self.deleted.iter().filter(|entry| {
            entry.key.as_str().starts_with(prefix)
                && after.is_none_or(|after| entry.key > *after)
                && (!full || last.as_ref().is_some_and(|last| entry.key <= *last))
        });
        let mut stale: Vec<_> = gone.cloned().collect();
        // A full page stays one, or it would say that nothing comes after it.
        stale.extend(page.into_iter().filter(|entry| full || !self.written.contains(&entry.key)));
        stale.sort_by(|a, b| a.key.cmp(&b.key));
        stale.truncate(LIST_PAGE);
        stale
    }
}

#[async_trait]
impl Store for Faults {
    fn describe(&self) -> String {
        format!("{}, with faults", self.inner.describe())
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        let fault = self.begin(Call::Read, "read", key.as_str()).await?;
        let mut read = end(fault, "read", key.as_str(), self.inner.read(key).await)?;
        match fault {
            Some(Fault::Short) => read.bytes = cut(&read.bytes),
            Some(Fault::WrongTag) => read.etag = wrong(&read.etag),
            _ => {}
        }
        Ok(read)
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let fault = self.begin(Call::Read, "read", key.as_str()).await?;
        let read = self.inner.read_range(key, range).await;
        let read = end(fault, "read", key.as_str(), read)?;
        Ok(if fault == Some(Fault::Short) { cut(&read) } else { read })
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        let fault = self.begin(Call::Write, "write", key.as_str()).await?;
        let written = self.inner.write(key, bytes, condition).await;
        if written.is_ok() {
            self.plan().note_written(key);
        }
        let tag = end(fault, "write", key.as_str(), written)?;
        Ok(if fault == Some(Fault::WrongTag) { wrong(&tag) } else { tag })
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        let fault = self.begin(Call::Write, "write", key.as_str()).await?;
        let written = self.inner.write_file(key, file).await;
        if written.is_ok() {
            self.plan().note_written(key);
        }
        let tag = end(fault, "write", key.as_str(), written)?;
        Ok(if fault == Some(Fault::WrongTag) { wrong(&tag) } else { tag })
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let fault = self.begin(Call::Read, "look at", key.as_str()).await?;
        end(fault, "look at", key.as_str(), self.inner.size(key).await)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let fault = self.begin(Call::Delete, "delete", key.as_str()).await?;
        let before = self.inner.list(key.as_str(), None).await.unwrap_or_default();
        let deleted = self.inner.delete(key).await;
        if deleted.is_ok()
            && let Some(entry) = before.into_iter().find(|entry| entry.key == *key)
        {
            self.plan().note_deleted(entry);
        }
        end(fault, "delete", key.as_str(), deleted)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        let fault = self.begin(Call::List, "list", prefix).await?;
        let listed = end(fault, "list", prefix, self.inner.list(prefix, after).await)?;
        if fault != Some(Fault::Stale) {
            return Ok(listed);
        }
        Ok(self.plan().stale(listed, prefix, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalStore;
    use crate::store::suite::{self, key};

    fn faults(seed: u64) -> (tempfile::TempDir, Arc<Faults>) {
        let directory = tempfile::tempdir().unwrap();
        let inner = LocalStore::open(directory.path()).unwrap();
        (directory, Faults::new(Arc::new(inner), seed))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_faults_it_is_a_store() {
        let (_directory, store) = faults(1);
        suite::all(store.clone()).await;
        assert_eq!(store.happened(), 0);
    }

    #[tokio::test]
    async fn each_fault_is_what_it_says() {
        let (_directory, store) = faults(1);
        let name = key("a/b");
        let write = |text: &'static str| store.write(&name, text.into(), Condition::Always);
        store.once(Call::Write, 2, Fault::Before);
        let first = write("first").await.unwrap();
        write("lost").await.unwrap_err();
        assert_eq!(store.read(&name).await.unwrap().bytes, "first");
        for fault in [Fault::After, Fault::TimedOutAfter] {
            store.once(Call::Write, 1, fault);
            write("second").await.unwrap_err();
            assert_eq!(store.read(&name).await.unwrap().bytes, "second");
        }
        store.once(Call::Write, 1, Fault::Full);
        assert!(matches!(write("x").await, Err(StoreError::Full { .. })));
        store.once(Call::Read, 1, Fault::Short);
        assert_eq!(store.read(&name).await.unwrap().bytes, "sec");
        store.once(Call::Read, 1, Fault::Short);
        assert_eq!(store.read_range(&name, 0..4).await.unwrap(), "se");
        store.once(Call::Read, 1, Fault::WrongTag);
        assert_ne!(store.read(&name).await.unwrap().etag, store.read(&name).await.unwrap().etag);
        store.once(Call::Write, 1, Fault::WrongTag);
        assert_ne!(write("first").await.unwrap(), first);
        store.once(Call::List, 1, Fault::Stale);
        assert_eq!(store.list("", None).await.unwrap(), []);
        assert_eq!(store.list("", None).await.unwrap().len(), 1);
        store.delete(&name).await.unwrap();
        store.once(Call::List, 1, Fault::Stale);
        assert_eq!(store.list("a/", None).await.unwrap().len(), 1);
        assert_eq!(store.list("a/", None).await.unwrap(), []);
        write("first").await.unwrap();
        store.settle();
        store.once(Call::List, 1, Fault::Stale);
        assert_eq!(store.list("", None).await.unwrap().len(), 1);
        assert!(!store.calm());
    }

    #[tokio::test]
    async fn a_seed_gives_the_same_faults_again() {
        async fn run(seed: u64) -> Vec<bool> {
            let (_directory, store) = faults(seed);
            store.often(300, &Fault::ALL);
            let mut outcomes = Vec::new();
            for number in 0..100 {
                let name = key(&format!("k/{number}"));
                outcomes.push(store.write(&name, "x".into(), Condition::Absent).await.is_ok());
            }
            assert!(store.happened() > 10, "{}", store.happened());
            outcomes
        }
        assert_eq!(run(7).await, run(7).await);
        assert_ne!(run(7).await, run(8).await);
    }
}
