//! For tests: changes made of two models, and a store that writes down what it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::model::Model;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::lazy::{Changes, Source};
use crate::mount::{DirectoryEntry, FileEntry, Tree, VolumePath};
use crate::store::{Condition, ETag, Key, Listed, Object, Store, StoreError};

/// What a mount would give: one model as it became from another.
#[derive(Debug)]
pub struct Sealed {
    tree: Tree,
    contents: Vec<Vec<u8>>,
    origins: Vec<Option<usize>>,
    changed: Vec<BTreeSet<u64>>,
    pub boot: Option<Vec<(usize, u64)>>,
    pub next_boot: Vec<(usize, u64)>,
    /// Blocks that were read, and not told to be done.
    pub held: Mutex<BTreeSet<(usize, u64)>>,
    pub read: Mutex<BTreeMap<(usize, u64), u32>>,
}

impl Sealed {
    /// `after`, in which a file goes back to that of the same name in `before`, or else of the same
    /// content, which was renamed.
    pub fn new(below: &dyn Source, before: &Model, after: &Model) -> Self {
        let path = |text: &str| VolumePath::new(text).unwrap();
        let (mut directories, mut files, mut contents) = (Vec::new(), Vec::new(), Vec::new());
        for (name, content) in after {
            match content {
                None => directories.push(DirectoryEntry { path: path(name), mode: 0o755 }),
                Some(content) => {
                    let bytes = content.len() as u64;
                    files.push(FileEntry { path: path(name), mode: 0o644, bytes });
                    contents.push(content.clone());
                }
            }
        }
        let tree = Tree::new(directories, files).unwrap();
        let gone = |name: &&String| before[*name].is_some() && !after.contains_key(*name);
        let (mut origins, mut changed) = (Vec::new(), Vec::new());
        for (file, content) in tree.files().iter().zip(&contents) {
            let name = file.path.to_string();
            let renamed =
                || before.keys().filter(gone).find(|old| before[*old].as_ref() == Some(content));
            let old = before.get_key_value(&name).map(|(name, _)| name).or_else(renamed);
            let old = old.filter(|old| before[*old].is_some());
            let is_it =
                |old: &String| below.tree().files().iter().position(|f| f.path.as_str() == old);
            origins.push(old.map(|old| is_it(old).unwrap()));
            let old = old.and_then(|old| before[old].as_deref()).unwrap_or_default();
            let zeroes = [0; BLOCK_BYTES];
            let differs = |(number, block): (usize, &[u8])| {
                let was = old.chunks(BLOCK_BYTES).nth(number).unwrap_or(&zeroes[..block.len()]);
                (was != block).then_some(number as u64)
            };
            changed.push(content.chunks(BLOCK_BYTES).enumerate().filter_map(differs).collect());
        }
        let (next_boot, held, read) = Default::default();
        Self { tree, contents, origins, changed, boot: None, next_boot, held, read }
    }

    /// Says of more blocks that they may have changed.
    pub fn suspect(&mut self, file: usize, block: u64) {
        if block * (BLOCK_BYTES as u64) < self.tree.files()[file].bytes {
            self.changed[file].insert(block);
        }
    }

    /// How many blocks were read.
    pub fn reads(&self) -> u32 {
        self.read.lock().unwrap().values().sum()
    }
}

#[async_trait]
impl Changes for Sealed {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn origin(&self, file: usize) -> Option<usize> {
        self.origins[file]
    }

    fn changed(&self, file: usize) -> Vec<u64> {
        self.changed[file].iter().copied().collect()
    }

    async fn read(&self, file: usize, index: u64) -> io::Result<Bytes> {
        *self.read.lock().unwrap().entry((file, index)).or_default() += 1;
        self.held.lock().unwrap().insert((file, index));
        let block = self.contents[file].chunks(BLOCK_BYTES).nth(index as usize).unwrap();
        Ok(Bytes::copy_from_slice(block))
    }

    fn done(&self, file: usize, index: u64) {
        assert!(self.held.lock().unwrap().remove(&(file, index)), "{file} {index} is done twice");
    }

    fn boot(&self) -> Option<Vec<(usize, u64)>> {
        self.boot.clone()
    }

    fn next_boot(&self) -> Vec<(usize, u64)> {
        self.next_boot.clone()
    }
}

/// A store before another one that knows what it was asked.
#[derive(Debug)]
pub struct Witness {
    inner: Arc<dyn Store>,
    asked: Mutex<Vec<Asked>>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub what: &'static str,
    pub key: String,
    pub bytes: u64,
}

impl Witness {
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, asked: Mutex::default() })
    }

    /// What was asked since the last time.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The same, as calls of keys with these beginnings.
    pub fn take_counts<const N: usize>(&self, calls: [(&str, &str); N]) -> [usize; N] {
        let asked = self.take();
        calls.map(|(what, prefix)| {
            asked.iter().filter(|a| a.what == what && a.key.starts_with(prefix)).count()
        })
    }

    fn note(&self, what: &'static str, key: &Key, bytes: usize) {
        let asked = Asked { what, key: key.to_string(), bytes: bytes as u64 };
        self.asked.lock().unwrap().push(asked);
    }
}

#[async_trait]
impl Store for Witness {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        self.note("read", key, 0);
        self.inner.read(key).await
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.note("range", key, (range.end - range.start) as usize);
        self.inner.read_range(key, range).await
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.note("write", key, bytes.len());
        self.inner.write(key, bytes, condition).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        self.inner.write_file(key, file).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.note("size", key, 0);
        self.inner.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.note("delete", key, 0);
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(prefix, after).await
    }
}
