//! For tests: a store in memory, and processes that use it until they crash.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::testing::{ManualClock, When};
use crate::base::clock::{Clock, Timestamp};
use crate::store::{Condition, ETag, Key, LIST_PAGE, Listed, Object, Store, StoreError};

/// What outlives every process.
#[derive(Debug)]
pub struct Memory {
    objects: Mutex<BTreeMap<String, (Bytes, Timestamp)>>,
    clock: Arc<ManualClock>,
}

/// A process with its connection to the store. After its crash everything fails.
#[derive(Debug)]
pub struct Process {
    memory: Arc<Memory>,
    left: Mutex<Left>,
}

/// What a process has left to live.
#[derive(Clone, Copy, Debug)]
enum Left {
    AsLongAsItLikes,
    /// Operations, and whether the last one takes effect.
    Operations(u32, When),
    Nothing,
}

impl Memory {
    pub fn new(clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self { objects: Mutex::default(), clock })
    }

    /// A process that does not crash unless told.
    pub fn process(self: &Arc<Self>) -> Arc<Process> {
        let left = Mutex::new(Left::AsLongAsItLikes);
        Arc::new(Process { memory: self.clone(), left })
    }

    fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        let objects = self.objects.lock().unwrap();
        let found = objects.get(key.as_str()).map(|(bytes, _)| bytes.clone());
        found.ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }

    fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<ETag, StoreError> {
        let mut objects = self.objects.lock().unwrap();
        let found = objects.get(key.as_str()).map(|(bytes, _)| etag(bytes));
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => found.is_none(),
            Condition::Matches(expected) => found.as_ref() == Some(expected),
        };
        if !holds {
            return Err(StoreError::Conflict { key: key.clone() });
        }
        let etag = etag(&bytes);
        objects.insert(key.to_string(), (bytes, self.clock.now()));
        Ok(etag)
    }
}

impl Process {
    /// Ends the process at its `operation`-th operation from now on; 1 is the next.
    pub fn crash_at(&self, operation: u32, when: When) {
        *self.left.lock().unwrap() = Left::Operations(operation, when);
    }

    pub fn has_crashed(&self) -> bool {
        matches!(*self.left.lock().unwrap(), Left::Nothing)
    }

    fn run<T>(
        &self,
        effect: impl FnOnce(&Memory) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut left = self.left.lock().unwrap();
        match *left {
            Left::AsLongAsItLikes => return effect(&self.memory),
            Left::Operations(2.., _) => {
                if let Left::Operations(operations, _) = &mut *left {
                    *operations -= 1;
                }
                return effect(&self.memory);
            }
            Left::Operations(_, When::AfterTheEffect) => drop(effect(&self.memory)),
            Left::Operations(_, When::BeforeTheEffect) | Left::Nothing => {}
        }
        *left = Left::Nothing;
        let source = "the process is gone".into();
        Err(StoreError::Io { doing: "reach", subject: "the store".to_owned(), source })
    }
}

fn etag(bytes: &[u8]) -> ETag {
    ETag(blake3::hash(bytes).to_string())
}

#[async_trait]
impl Store for Process {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        let bytes = self.run(|memory| memory.get(key))?;
        Ok(Object { etag: etag(&bytes), bytes })
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.run(|memory| memory.get(key))?;
        if range.end > bytes.len() as u64 {
            let (key, end) = (key.clone(), range.end);
            return Err(StoreError::ShortRange { key, bytes: bytes.len() as u64, end });
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.run(|memory| memory.put(key, bytes, &condition))
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        let bytes = std::fs::read(file).unwrap().into();
        self.run(|memory| memory.put(key, bytes, &Condition::Always))
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.run(|memory| memory.get(key).map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.run(|memory| {
            memory.objects.lock().unwrap().remove(key.as_str());
            Ok(())
        })
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        self.run(|memory| {
            let objects = memory.objects.lock().unwrap();
            let listed = objects.iter().filter(|(key, _)| {
                key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after.as_str())
            });
            let entry = |(key, (bytes, modified)): (&String, &(Bytes, Timestamp))| Listed {
                key: key.parse().unwrap(),
                bytes: bytes.len() as u64,
                modified: *modified,
            };
            Ok(listed.take(LIST_PAGE).map(entry).collect())
        })
    }
}
