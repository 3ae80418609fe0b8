//! Pages as they were when a mount was sealed, of those that were overwritten since.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pages::PAGE_BYTES;

/// A file that takes its time to be freed.
const LONG_BYTES: u64 = 16 << 20;

/// A file without a name that holds such pages. It ends with the seal, or with the process: what
/// is sealed is in no log.
#[derive(Debug)]
pub(super) struct Aside {
    file: File,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Where a page of a node is, in pages.
    taken: HashMap<(u64, u64), u64>,
    free: Vec<u64>,
    end: u64,
}

impl Drop for Aside {
    /// To free gigabytes of a file takes the kernel seconds, which nobody is to wait for.
    fn drop(&mut self) {
        if self.lock().end * PAGE_BYTES < LONG_BYTES {
            return;
        }
        let last = self.file.try_clone();
        // Where no thread can be had, it is freed here.
        drop(std::thread::Builder::new().name("aside".to_owned()).spawn(move || drop(last)));
    }
}

impl Aside {
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join("aside");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self { file, slots: Mutex::default() })
    }

    /// Keeps a page.
    pub(super) fn keep(&self, node: u64, page: u64, content: &[u8]) -> io::Result<()> {
        let slot = {
            let mut slots = self.lock();
            slots.free.pop().unwrap_or_else(|| {
                slots.end += 1;
                slots.end - 1
            })
        };
        self.file.write_all_at(content, slot * PAGE_BYTES)?;
        self.lock().taken.insert((node, page), slot);
        Ok(())
    }

    /// Reads a page; false where it was not kept.
    pub(super) fn read(&self, node: u64, page: u64, into: &mut [u8]) -> io::Result<bool> {
        let slot = self.lock().taken.get(&(node, page)).copied();
        match slot {
            Some(slot) => self.file.read_exact_at(into, slot * PAGE_BYTES).map(|()| true),
            None => Ok(false),
        }
    }

    /// A page is needed no more.
    pub(super) fn forget(&self, node: u64, page: u64) {
        let mut slots = self.lock();
        if let Some(slot) = slots.taken.remove(&(node, page)) {
            slots.free.push(slot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
