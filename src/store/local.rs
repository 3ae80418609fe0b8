//! A directory as a store.
//!
//! An object is the file at its key. It is written beside (`.tmp/`), flushed, and then takes its
//! name in one step, so that neither a reader nor a crash ever sees a part of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, ETag, Key, Listed, Object, READ_BYTES_MAX, Store, StoreError};
use crate::base::blocking::blocking;

mod list;
mod staging;

use staging::Staging;

/// A store in a local directory. Several processes may have the same directory open.
#[derive(Clone, Debug)]
pub struct LocalStore {
    directory: Arc<Directory>,
}

impl LocalStore {
    /// Opens the directory, creating it where it does not exist, and sweeps what writers that died
    /// left unfinished. Blocks.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let opened = fs::create_dir_all(&root).and_then(|()| Staging::open(&root));
        let staging = opened.map_err(|e| StoreError::io("open", root.display(), e))?;
        Ok(Self { directory: Arc::new(Directory { root, staging }) })
    }

    async fn run<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Directory, &Key) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (directory, key) = (self.directory.clone(), key.clone());
        blocking(move || work(&directory, &key)).await
    }
}

#[async_trait]
impl Store for LocalStore {
    fn describe(&self) -> String {
        format!("directory {}", self.directory.root.display())
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        self.run(key, Directory::read).await
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.run(key, move |directory, key| directory.read_range(key, range)).await
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.run(key, move |directory, key| directory.write(key, &bytes, &condition)).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        let file = file.to_owned();
        self.run(key, move |directory, key| directory.write_file(key, &file)).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.run(key, |directory, key| Ok(directory.open(key)?.1)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.run(key, Directory::delete).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        let (directory, prefix, after) =
            (self.directory.clone(), prefix.to_owned(), after.cloned());
        blocking(move || {
            list::list(&directory.root, &prefix, after.as_ref())
                .map_err(|e| StoreError::io("list", format!("{prefix}*"), e))
        })
        .await
    }
}

#[derive(Debug)]
struct Directory {
    root: PathBuf,
    staging: Staging,
}

impl Directory {
    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn open(&self, key: &Key) -> Result<(File, u64), StoreError> {
        let opened = File::open(self.path(key)).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((facts, file)) if facts.is_file() => Ok((file, facts.len())),
            Ok(_) => Err(StoreError::NotFound { key: key.clone() }),
            // Where the whole directory is away, nobody knows what is in it.
            Err(e) if is_absence(&e) && self.root.is_dir() => {
                Err(StoreError::NotFound { key: key.clone() })
            }
            Err(e) => Err(StoreError::io("read", key, e)),
        }
    }

    fn read(&self, key: &Key) -> Result<Object, StoreError> {
        let (mut file, bytes) = self.open(key)?;
        if bytes > READ_BYTES_MAX {
            return Err(StoreError::TooLarge { key: key.clone(), bytes });
        }
        let mut content = Vec::with_capacity(bytes as usize);
        file.read_to_end(&mut content).map_err(|e| StoreError::io("read", key, e))?;
        Ok(Object { etag: etag(&content), bytes: content.into() })
    }

    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (file, bytes) = self.open(key)?;
        if range.start > range.end || range.end > bytes {
            return Err(StoreError::ShortRange { key: key.clone(), bytes, end: range.end });
        }
        let mut content = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut content, range.start)
            .map_err(|e| StoreError::io("read", key, e))?;
        Ok(content.into())
    }

    fn write(&self, key: &Key, bytes: &[u8], condition: &Condition) -> Result<ETag, StoreError> {
        let written = self.staging.write(|file| file.write_all(bytes));
        let staged = written.map_err(|e| StoreError::io("write", key, e))?;
        self.publish(key, staged.path(), condition)?;
        Ok(etag(bytes))
    }

    fn write_file(&self, key: &Key, source: &Path) -> Result<ETag, StoreError> {
        let mut hasher = blake3::Hasher::new();
        let written = self.staging.write(|staged| {
            io::copy(&mut File::open(source)?, staged)?;
            staged.rewind()?;
            hasher.update_reader(staged)?;
            Ok(())
        });
        let subject = || format!("{key} from {}", source.display());
        let staged = written.map_err(|e| StoreError::io("write", subject(), e))?;
        self.publish(key, staged.path(), &Condition::Always)?;
        Ok(ETag(hasher.finalize().to_hex().to_string()))
    }

    /// Gives a finished file its name, if the condition holds, and makes the name durable.
    fn publish(&self, key: &Key, staged: &Path, condition: &Condition) -> Result<(), StoreError> {
        let target = self.path(key);
        let failed = |e| StoreError::io("write", key, e);
        let conflict = || StoreError::Conflict { key: key.clone() };
        let directory = target.parent().expect("a key's path is below the root");
        self.make(directory).map_err(failed)?;
        match condition {
            // link(2) fails where the name is taken: atomic without a lock.
            Condition::Absent => fs::hard_link(staged, &target).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => conflict(),
                _ => failed(e),
            })?,
            Condition::Always => {
                let _lock = self.lock().map_err(failed)?;
                fs::rename(staged, &target).map_err(failed)?;
            }
            Condition::Matches(expected) => {
                let _lock = self.lock().map_err(failed)?;
                match self.read(key) {
                    Ok(found) if found.etag == *expected => {
                        fs::rename(staged, &target).map_err(failed)?;
                    }
                    Ok(_) | Err(StoreError::NotFound { .. }) => return Err(conflict()),
                    Err(e) => return Err(e),
                }
            }
        }
        self.sync_directories(directory).map_err(failed)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("delete", key, e);
        let target = self.path(key);
        let _lock = self.lock().map_err(failed)?;
        match fs::remove_file(&target) {
            Ok(()) => {}
            Err(e) if is_absence(&e) => return Ok(()),
            Err(e) => return Err(failed(e)),
        }
        let directory = target.parent().expect("a key's path is below the root");
        self.sync_directories(directory).map_err(failed)
    }

    /// Makes a directory below the root, and never the root: where that is away, an empty one in its
    /// place would say that there is nothing.
    fn make(&self, directory: &Path) -> io::Result<()> {
        use io::ErrorKind::{AlreadyExists, NotFound};
        if directory == self.root {
            return Ok(());
        }
        match (fs::create_dir(directory), directory.parent()) {
            (Err(error), Some(parent)) if error.kind() == NotFound && parent != self.root => {
                self.make(parent)?;
                self.make(directory)
            }
            (Err(error), _) if error.kind() == AlreadyExists => Ok(()),
            (made, _) => made,
        }
    }

    /// Held while a name changes its file. `flock` belongs to the open file, so that each call
    /// excludes the other threads as well as the other processes.
    fn lock(&self) -> io::Result<File> {
        let path = self.root.join(".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        lock.lock()?;
        Ok(lock)
    }

    /// Flushes `directory` and all above it up to the root: the names on the way may be as new as
    /// the file's own, made by another writer a moment ago.
    fn sync_directories(&self, directory: &Path) -> io::Result<()> {
        for directory in directory.ancestors() {
            File::open(directory)?.sync_all()?;
            if directory == self.root {
                break;
            }
        }
        Ok(())
    }
}

fn etag(content: &[u8]) -> ETag {
    ETag(blake3::hash(content).to_hex().to_string())
}

/// Both mean that no object has this key: a missing file, and a file or directory in its way.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

#[cfg(test)]
mod tests;
