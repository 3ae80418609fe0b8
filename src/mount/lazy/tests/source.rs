//! A version in memory whose blocks come late, and fail when told to.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::{Changes, Sealed, Source};
use crate::base::ids::VersionId;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::{DirectoryEntry, FileEntry, Tree, VolumePath};

/// A file or directory of a test.
pub(super) type Files = Vec<(String, Vec<u8>)>;

#[derive(Debug)]
pub(super) struct Memory {
    version: VersionId,
    tree: Tree,
    content: Vec<Vec<u8>>,
    /// Blocks that were asked for, and are at hand from then on.
    here: Mutex<HashSet<(usize, u64)>>,
    pub(super) fails: AtomicBool,
    pub(super) fetched: AtomicU64,
    pub(super) delay: Duration,
}

impl Memory {
    pub(super) fn new(number: u8, directories: &[&str], files: &[(&str, Vec<u8>)]) -> Self {
        let path = |text: &str| VolumePath::new(text).unwrap();
        let directories =
            directories.iter().map(|text| DirectoryEntry { path: path(text), mode: 0o700 });
        let entries = files.iter().map(|(text, content)| FileEntry {
            path: path(text),
            mode: 0o600,
            bytes: content.len() as u64,
        });
        let tree = Tree::new(directories.collect(), entries.collect()).unwrap();
        let mut files = files.to_vec();
        files.sort_by(|a, b| a.0.cmp(b.0));
        let content = files.into_iter().map(|(_, content)| content).collect();
        Self::over(number, tree, content)
    }

    fn over(number: u8, tree: Tree, content: Vec<Vec<u8>>) -> Self {
        Self {
            version: VersionId::from_bytes([number; 16]),
            tree,
            content,
            here: Mutex::default(),
            fails: false.into(),
            fetched: 0.into(),
            delay: Duration::from_micros(500),
        }
    }

    /// The version that is made of a seal: unchanged blocks from the one below, as a capture does.
    pub(super) async fn capture(number: u8, below: &Memory, sealed: &Arc<Sealed>) -> Arc<Self> {
        let tree = sealed.tree().clone();
        let mut content = Vec::new();
        for (file, entry) in tree.files().iter().enumerate() {
            let mut bytes = vec![0; entry.bytes as usize];
            if let Some(origin) = sealed.origin(file) {
                let below = &below.content[origin];
                let common = below.len().min(bytes.len());
                bytes[..common].copy_from_slice(&below[..common]);
            }
            for index in sealed.changed(file) {
                let block = sealed.read(file, index).await.unwrap();
                let start = index as usize * BLOCK_BYTES;
                let end = bytes.len().min(start + BLOCK_BYTES);
                assert_eq!(block.len(), end - start);
                bytes[start..end].copy_from_slice(&block);
                sealed.done(file, index);
            }
            content.push(bytes);
        }
        Arc::new(Self::over(number, tree, content))
    }

    /// Every file as it is in the version.
    pub(super) fn files(&self) -> Files {
        let names = self.tree.files().iter().map(|entry| entry.path.as_str().to_owned());
        names.zip(self.content.iter().cloned()).collect()
    }

    fn read(&self, file: usize, index: u64) -> Bytes {
        let content = &self.content[file];
        let start = (index as usize * BLOCK_BYTES).min(content.len());
        let end = (start + BLOCK_BYTES).min(content.len());
        Bytes::copy_from_slice(&content[start..end])
    }
}

#[async_trait]
impl Source for Memory {
    fn version(&self) -> VersionId {
        self.version
    }

    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn at_hand(&self, file: usize, index: u64) -> Option<Bytes> {
        let here = self.here.lock().unwrap().contains(&(file, index));
        here.then(|| self.read(file, index))
    }

    async fn block(&self, file: usize, index: u64) -> io::Result<Bytes> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.delay).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("the store is away"));
        }
        self.here.lock().unwrap().insert((file, index));
        Ok(self.read(file, index))
    }
}

/// Whether FUSE works here. Where it must, it not working is a failure.
pub(super) fn works() -> bool {
    let temporary = tempfile::tempdir().unwrap();
    let own = tokio::runtime::Handle::try_current().is_err();
    let own = own.then(|| tokio::runtime::Runtime::new().unwrap());
    let _entered = own.as_ref().map(tokio::runtime::Runtime::enter);
    match super::super::probe(temporary.path(), Default::default(), &|_| Ok(())) {
        Ok(()) => true,
        Err(error) => {
            let must = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!must, "{error}");
            eprintln!("skipped: {error}");
            false
        }
    }
}

/// Bytes that differ from place to place.
pub(super) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

/// A small generator, so that a seed says everything: xorshift64*.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Every file below a directory, sorted.
pub(super) fn read_all(root: &Path) -> Files {
    let tree = crate::mount::walk(root).unwrap();
    tree.files()
        .iter()
        .map(|entry| {
            let path = entry.path.as_str();
            (path.to_owned(), std::fs::read(root.join(path)).unwrap())
        })
        .collect()
}
