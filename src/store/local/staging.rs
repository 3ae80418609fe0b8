//! Where objects are written before they take their names.
//!
//! Every open store has a directory of its own below `.tmp/`, which it holds locked. Whatever lies
//! in one that is not locked was left by a process that died, and is swept by the next to open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// One store's own place for unfinished objects; removed when dropped.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// The open directory, locked as long as the store lives.
    _alive: File,
    count: AtomicU64,
}

/// A finished file without its name; removed when dropped.
pub struct Staged {
    path: PathBuf,
}

impl Staging {
    /// Sweeps the places of the dead and makes a new one, below `root`.
    pub fn open(root: &Path) -> io::Result<Self> {
        let all = root.join(".tmp");
        fs::create_dir_all(&all)?;
        // Without this a place just made, but not yet locked, would look dead to another process.
        let opening = File::open(&all)?;
        opening.lock()?;
        let mut number = 0;
        for entry in fs::read_dir(&all)? {
            let path = entry?.path();
            if File::open(&path)?.try_lock().is_ok() {
                fs::remove_dir_all(&path)?;
            } else if let Some(taken) = path.file_name().and_then(|n| n.to_str()?.parse().ok()) {
                number = number.max(taken);
            }
        }
        let path = all.join((number + 1u64).to_string());
        fs::create_dir(&path)?;
        let alive = File::open(&path)?;
        alive.lock()?;
        Ok(Self { path, _alive: alive, count: AtomicU64::new(0) })
    }

    /// A new file with what `fill` writes, flushed to the disk.
    pub fn write(&self, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Staged> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let staged = Staged { path: self.path.join(number.to_string()) };
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&staged.path)?;
        fill(&mut file)?;
        file.sync_all()?;
        Ok(staged)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is not removed here is swept at the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Staged {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing here any more.
        let _ = fs::remove_file(&self.path);
    }
}
