//! A mount's files as they were at one instant, while writes go on.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::Changes;
use super::aside::Aside;
use super::names::Names;
use super::node::{Guard, Node, Origin, State};
use super::overlay::{Overlay, Seal};
use super::pages::{PAGE_BYTES, PageMap};
use crate::base::blocking::blocking;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::{DirectoryEntry, FileEntry, MountError, Tree, VolumePath};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// A new file that is no larger is read whole by a start: a file of the journal, a table of few documents,
/// what WiredTiger writes anew to rename it.
const SMALL_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Of these so many at most, the newest: every start reads the last two files of the journal.
const SMALL_FILES_MAX: usize = 32;

/// A sealed mount. Dropping it without a rebase is giving it up: what it held differs from the
/// version below as before.
#[derive(Debug)]
pub struct Sealed {
    tree: Tree,
    files: Vec<Arc<SealedFile>>,
    boot: Option<Vec<(usize, u64)>>,
    next_boot: Vec<(usize, u64)>,
    pause: Duration,
    overlay: Arc<Overlay>,
    aside: Arc<Aside>,
    names_changed: bool,
    /// The seal has ended: by a rebase.
    settled: AtomicBool,
}

#[derive(Debug)]
pub(super) struct SealedFile {
    pub(super) node: Arc<Node>,
    pub(super) bytes: u64,
    origin: Option<Origin>,
    source_bytes: u64,
    changed: PageMap,
    /// Of those, what is in the data file or aside; the others are the source's up to
    /// `source_bytes`.
    local: PageMap,
    touched: bool,
}

/// What is taken while the gate is closed.
#[derive(Default)]
struct Taken {
    directories: Vec<(String, u32)>,
    files: Vec<(String, u32, SealedFile)>,
    names_changed: bool,
    /// Something could not be copied.
    failed: Option<io::Error>,
}

impl Overlay {
    /// Seals all files at one instant. Blocks.
    pub(super) fn seal(self: &Arc<Self>) -> Result<Arc<Sealed>, MountError> {
        {
            let mut held = self.sealed();
            if *held != Seal::None {
                return Err(MountError::SealHeld { path: self.directory.clone() });
            }
            *held = Seal::Held { changed: true, pages: 0 };
        }
        let sealed = self.seal_claimed();
        if sealed.is_err() {
            *self.sealed() = Seal::None;
        }
        sealed
    }

    fn seal_claimed(self: &Arc<Self>) -> Result<Arc<Sealed>, MountError> {
        let aside = Aside::create(&self.directory);
        let aside = Arc::new(aside.map_err(MountError::io("create a file in", &self.directory))?);
        let begun = Instant::now();
        let mut taken = {
            let _closed = self.close_gate();
            let mut names = self.names_mut();
            take(&mut names, &aside)
        };
        let pause = begun.elapsed();
        taken.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let tree = match taken.failed.take() {
            None => tree(&taken)
                .map_err(|source| MountError::Tree { path: self.directory.clone(), source }),
            Some(error) => Err(MountError::io("copy the journal of", &self.directory)(error)),
        };
        let files: Vec<_> = taken.files.into_iter().map(|(.., file)| Arc::new(file)).collect();
        let names_changed = taken.names_changed;
        let tree = match tree {
            Ok(tree) => tree,
            Err(error) => {
                self.give_back(&files, names_changed);
                return Err(error);
            }
        };
        let changed = names_changed || files.iter().any(|file| file.touched);
        let pages = files.iter().map(|file| file.changed.count()).sum();
        *self.sealed() = Seal::Held { changed, pages };
        Ok(Arc::new(Sealed {
            tree,
            boot: boot(self, &files),
            next_boot: next_boot(&files),
            files,
            pause,
            overlay: self.clone(),
            aside,
            names_changed,
            settled: AtomicBool::new(false),
        }))
    }

    /// The version below stays: everything that was sealed counts as changed again.
    fn give_back(&self, files: &[Arc<SealedFile>], names_changed: bool) {
        for file in files {
            if let Ok(mut state) = file.node.write() {
                state.guard = None;
                state.changed.join(&file.changed);
                state.touched |= file.touched;
            }
        }
        self.names_mut().changed |= names_changed;
        *self.sealed() = Seal::None;
    }
}

/// What the kernel writes by itself is not kept from changing: a copy is kept, as long as the state says.
fn keep_all(node: &Node, state: &State, aside: &Aside) -> io::Result<()> {
    let mut content = vec![0; PAGE_BYTES as usize];
    for page in 0..state.bytes.div_ceil(PAGE_BYTES) {
        let start = page * PAGE_BYTES;
        let content = &mut content[..PAGE_BYTES.min(state.bytes - start) as usize];
        state.open_data()?.read_exact_at(content, start)?;
        aside.keep(node.number, page, content)?;
    }
    Ok(())
}

fn take(names: &mut Names, aside: &Arc<Aside>) -> Taken {
    let mut taken = Taken { names_changed: names.changed, ..Taken::default() };
    for (path, entry) in names.walk_volume() {
        let Ok(mut state) = entry.node.write() else {
            taken.directories.push((path, entry.mode));
            continue;
        };
        let changed = std::mem::take(&mut state.changed);
        let local = changed.within(&state.present, state.source_end());
        let pages = match state.direct {
            None => local.clone(),
            Some(_) => {
                let kept = keep_all(&entry.node, &state, aside);
                taken.failed = taken.failed.or(kept.err());
                // What is kept already needs no guard.
                PageMap::default()
            }
        };
        let guard = Guard { pages, aside: aside.clone(), shrunk: u64::MAX };
        state.guard = Some(guard);
        let file = SealedFile {
            node: entry.node.clone(),
            bytes: state.bytes,
            origin: state.origin.clone(),
            source_bytes: state.source_bytes,
            changed,
            local,
            touched: std::mem::take(&mut state.touched),
        };
        taken.files.push((path, entry.mode, file));
    }
    names.changed = false;
    taken
}

fn tree(taken: &Taken) -> Result<Tree, crate::mount::InvalidTree> {
    let directory = |(path, mode): &(String, u32)| {
        Ok(DirectoryEntry { path: VolumePath::new(path)?, mode: *mode })
    };
    let file = |(path, mode, file): &(String, u32, SealedFile)| {
        Ok(FileEntry { path: VolumePath::new(path)?, mode: *mode, bytes: file.bytes })
    };
    Tree::new(
        taken.directories.iter().map(directory).collect::<Result<_, _>>()?,
        taken.files.iter().map(file).collect::<Result<_, _>>()?,
    )
}

fn boot(overlay: &Overlay, files: &[Arc<SealedFile>]) -> Option<Vec<(usize, u64)>> {
    let places: HashMap<u64, usize> =
        files.iter().enumerate().map(|(place, file)| (file.node.number, place)).collect();
    let read = overlay.boot.blocks()?;
    let mut blocks: Vec<_> = read
        .into_iter()
        .filter_map(|(node, index)| Some((*places.get(&node)?, index)))
        .filter(|(place, index)| index * BLOCK < files[*place].bytes)
        .collect();
    blocks.sort_unstable();
    Some(blocks)
}

fn next_boot(files: &[Arc<SealedFile>]) -> Vec<(usize, u64)> {
    let touched = || files.iter().enumerate().filter(|(_, file)| file.touched);
    let small = |file: &SealedFile| file.origin.is_none() && file.bytes <= SMALL_FILE_BYTES;
    let mut whole: Vec<_> = touched().filter(|(_, file)| small(file)).collect();
    whole.sort_unstable_by_key(|(_, file)| std::cmp::Reverse(file.node.number));
    whole.truncate(SMALL_FILES_MAX);
    let whole = whole
        .into_iter()
        .flat_map(|(place, file)| (0..file.bytes.div_ceil(BLOCK)).map(move |index| (place, index)));
    let last = touched().flat_map(|(place, file)| {
        let there = file.node.last.blocks().filter(|index| index * BLOCK < file.bytes);
        there.map(move |index| (place, index))
    });
    let mut blocks: Vec<_> = whole.chain(last).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

impl Sealed {
    /// How long nothing could be changed for the seal.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Whether anything differs from the version below.
    pub fn is_changed(&self) -> bool {
        self.names_changed || self.files.iter().any(|file| file.touched)
    }

    pub(super) fn files(&self) -> &[Arc<SealedFile>] {
        &self.files
    }

    pub(super) fn is_of(&self, overlay: &Arc<Overlay>) -> bool {
        Arc::ptr_eq(&self.overlay, overlay) && !self.settled.load(Ordering::Acquire)
    }

    /// The version below is this one now.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if !self.settled.load(Ordering::Acquire) {
            self.overlay.give_back(&self.files, self.names_changed);
        }
    }
}

impl SealedFile {
    /// A block as far as it is on this machine; and whether it takes the source's block too.
    fn read_local(&self, index: u64, aside: &Aside) -> io::Result<(Vec<u8>, PageMap)> {
        let start = index * BLOCK;
        let length = self.bytes.saturating_sub(start).min(BLOCK);
        let (mut out, mut from_source) = (vec![0; length as usize], PageMap::default());
        let state = self.node.opened()?;
        for (place, part) in out.chunks_mut(PAGE_BYTES as usize).enumerate() {
            let at = start + place as u64 * PAGE_BYTES;
            let page = at / PAGE_BYTES;
            if self.local.has(page) {
                if !aside.read(self.node.number, page, part)? {
                    state.open_data()?.read_exact_at(part, at)?;
                }
            } else if at < self.source_bytes {
                // Written before and uploaded since: as good as the source's, and here.
                if state.present.has(page) && !state.changed.has(page) {
                    state.open_data()?.read_exact_at(part, at)?;
                } else {
                    from_source.insert(place as u64);
                }
            }
        }
        Ok((out, from_source))
    }

    /// Puts in what is the source's.
    fn add_source(
        &self,
        index: u64,
        out: &mut [u8],
        from_source: &PageMap,
        block: &[u8],
    ) -> io::Result<()> {
        let counts = self.source_bytes.saturating_sub(index * BLOCK).min(BLOCK) as usize;
        for (place, part) in out.chunks_mut(PAGE_BYTES as usize).enumerate() {
            if from_source.has(place as u64) {
                let from = place * PAGE_BYTES as usize;
                let to = (from + part.len()).min(counts);
                let theirs = block.get(from..to).ok_or_else(too_short)?;
                part[..theirs.len()].copy_from_slice(theirs);
            }
        }
        Ok(())
    }
}

fn too_short() -> io::Error {
    io::Error::other("the source's block is shorter than its file says")
}

#[async_trait]
impl Changes for Sealed {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn origin(&self, file: usize) -> Option<usize> {
        self.files[file].origin.as_ref().map(|origin| origin.file)
    }

    fn changed(&self, file: usize) -> Vec<u64> {
        let file = &self.files[file];
        let blocks = file.bytes.div_ceil(BLOCK);
        let pages = BLOCK / PAGE_BYTES;
        let mut changed: Vec<u64> = file
            .changed
            .runs()
            .flat_map(|(start, end)| start / pages..end.div_ceil(pages).min(blocks))
            .collect();
        if let Some(origin) = &file.origin {
            let below = origin.source.tree().files()[origin.file].bytes;
            if file.bytes > below {
                changed.extend(below / BLOCK..blocks);
            } else if file.bytes < below && !file.bytes.is_multiple_of(BLOCK) {
                changed.push(file.bytes / BLOCK);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    async fn read(&self, file: usize, index: u64) -> io::Result<Bytes> {
        let (entry, aside) = (self.files[file].clone(), self.aside.clone());
        let local = blocking(move || entry.read_local(index, &aside));
        let (mut out, from_source) = local.await?;
        let entry = &self.files[file];
        if !from_source.is_empty()
            && let Some(origin) = &entry.origin
        {
            let block = match origin.source.at_hand(origin.file, index) {
                Some(block) => block,
                None => origin.source.block(origin.file, index).await?,
            };
            entry.add_source(index, &mut out, &from_source, &block)?;
        }
        Ok(out.into())
    }

    fn done(&self, file: usize, index: u64) {
        let entry = &self.files[file];
        let pages = BLOCK / PAGE_BYTES;
        let (first, last) = (index * pages, (index + 1) * pages);
        if let Ok(mut state) = entry.node.write()
            && let Some(guard) = &mut state.guard
        {
            guard.pages.remove_range(first, last);
            (first..last).for_each(|page| self.aside.forget(entry.node.number, page));
        }
    }

    fn boot(&self) -> Option<Vec<(usize, u64)>> {
        self.boot.clone()
    }

    fn next_boot(&self) -> Vec<(usize, u64)> {
        self.next_boot.clone()
    }
}
