//! Reading and writing a file's content.
//!
//! Nothing here waits for a block: what is needed of the source is asked for by returning
//! [`Step::Need`], and the operation is tried again with it.

use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::disk::{fallocate, zero};
use super::node::{Node, State};
use super::overlay::Overlay;
use super::pages::{PAGE_BYTES, PageMap, touched};
use super::record::Record;
use crate::base::ids::VersionId;
use crate::base::limits::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Done, or the blocks of the file's origin that it takes.
#[derive(Debug)]
pub(super) enum Step<T> {
    Done(T),
    Need(Vec<u64>),
}

/// Blocks of one file's origin, fetched for one operation on it.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// What they are of. A rebase in between makes them useless.
    version: Option<VersionId>,
    blocks: Vec<(u64, Bytes)>,
}

impl Blocks {
    pub(super) fn insert(&mut self, version: VersionId, index: u64, bytes: Bytes) {
        if self.version != Some(version) {
            (self.version, self.blocks) = (Some(version), Vec::new());
        }
        self.blocks.push((index, bytes));
    }

    fn get(&self, state: &State, index: u64) -> Option<&Bytes> {
        let version = state.origin.as_ref()?.source.version();
        let found = self.blocks.iter().find(|(known, _)| *known == index)?;
        (self.version == Some(version)).then_some(&found.1)
    }

    /// Copies what of the source belongs at `start`; asks for what is not there.
    fn fill(&self, state: &State, start: u64, into: &mut [u8], need: &mut Vec<u64>) {
        let end = (start + into.len() as u64).min(state.source_bytes);
        let mut at = start;
        while at < end {
            let index = at / BLOCK;
            let stop = end.min((index + 1) * BLOCK);
            match self.get(state, index) {
                Some(block) => {
                    let from = (at - index * BLOCK) as usize;
                    // Shorter than the file says would be the source's mistake: never zeros.
                    match block.get(from..from + (stop - at) as usize) {
                        Some(part) => {
                            into[(at - start) as usize..][..part.len()].copy_from_slice(part)
                        }
                        None => need.push(index),
                    }
                }
                None if need.last() != Some(&index) => need.push(index),
                None => {}
            }
            at = stop;
        }
    }
}

fn step<T>(value: T, need: Vec<u64>) -> Step<T> {
    if need.is_empty() { Step::Done(value) } else { Step::Need(need) }
}

impl Overlay {
    /// Up to `length` bytes from `offset`; fewer only at the file's end.
    pub(super) fn read(
        &self,
        node: &Node,
        offset: u64,
        length: usize,
        blocks: &Blocks,
    ) -> io::Result<Step<Vec<u8>>> {
        let state = node.opened()?;
        let end = state.bytes.min(offset.saturating_add(length as u64));
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        let need = read_range(&state, offset, &mut out, blocks)?;
        Ok(step(out, need))
    }

    /// The blocks of a range that are the source's, in part at least.
    pub(super) fn foreign_blocks(&self, node: &Node, from: u64, to: u64) -> io::Result<Vec<u64>> {
        let state = node.read()?;
        let pages = BLOCK / PAGE_BYTES;
        let foreign =
            |block: &u64| (block * pages..(block + 1) * pages).any(|page| !state.is_local(page));
        Ok((from..to).filter(foreign).collect())
    }

    /// Writes all of `data`.
    pub(super) fn write(
        &self,
        node: &Node,
        offset: u64,
        data: &[u8],
        blocks: &Blocks,
    ) -> io::Result<Step<()>> {
        let _gate = self.gate();
        self.touch()?;
        let end = offset.checked_add(data.len() as u64).ok_or_else(too_large)?;
        let (first, last) = touched(offset, end);
        {
            // Most writes: nothing changes but the content.
            let state = node.opened()?;
            let guarded =
                || state.guard.as_ref().is_some_and(|guard| guard.pages.has_any(first, last));
            let known = |page| state.changed.has(page) && state.is_local(page);
            if end <= state.bytes && state.touched && (first..last).all(known) && !guarded() {
                state.open_data()?.write_all_at(data, offset)?;
                node.modified_now();
                node.last.wrote(offset, end);
                return Ok(Step::Done(()));
            }
        }
        let mut state = node.write()?;
        let step = write_slow(node, &mut state, offset, data, blocks)?;
        node.modified_now();
        node.last.wrote(offset, end);
        Ok(step)
    }

    /// Makes the file shorter or longer. Bytes behind the new end never come back.
    pub(super) fn truncate(&self, node: &Node, bytes: u64) -> io::Result<()> {
        let _gate = self.gate();
        self.touch()?;
        let mut state = node.write()?;
        node.modified_now();
        if bytes == state.bytes {
            return Ok(());
        }
        let data = node.data(&mut state)?;
        if bytes > state.bytes {
            data.set_len(bytes)?;
            (state.bytes, state.touched) = (bytes, true);
            return Ok(());
        }
        keep_aside(node, &mut state, bytes / PAGE_BYTES, u64::MAX)?;
        let logged = bytes < state.source_bytes || state.floor.is_some_and(|floor| bytes < floor);
        if logged {
            self.log.append(Record::Cut { node: node.number, bytes })?;
            self.sync_first()?;
        }
        // From here on it is cut, whatever the data file says.
        state.shrink(bytes, logged);
        data.set_len(bytes)?;
        if logged {
            self.log.append(Record::CutDone { node: node.number })?;
        }
        Ok(())
    }

    /// Zeros, as a hole where the disk can. The size stays.
    pub(super) fn punch(
        &self,
        node: &Node,
        offset: u64,
        length: u64,
        blocks: &Blocks,
    ) -> io::Result<Step<()>> {
        let _gate = self.gate();
        self.touch()?;
        let mut state = node.write()?;
        let end = offset.checked_add(length).ok_or_else(too_large)?.min(state.bytes);
        if offset >= end {
            return Ok(Step::Done(()));
        }
        // A page that is only partly zeroed is written like any other; behind the end of the file
        // there is nothing to keep.
        let whole = (
            offset.div_ceil(PAGE_BYTES),
            if end == state.bytes { end.div_ceil(PAGE_BYTES) } else { end / PAGE_BYTES },
        );
        let edges = if whole.0 >= whole.1 {
            [(offset, end), (0, 0)]
        } else {
            [(offset, whole.0 * PAGE_BYTES), ((whole.1 * PAGE_BYTES).min(end), end)]
        };
        let mut need = Vec::new();
        for (start, stop) in edges.into_iter().filter(|(start, stop)| start < stop) {
            let zeros = vec![0; (stop - start) as usize];
            if let Step::Need(more) = write_slow(node, &mut state, start, &zeros, blocks)? {
                need.extend(more);
            }
        }
        if !need.is_empty() {
            return Ok(Step::Need(need));
        }
        if whole.0 < whole.1 {
            let data = node.data(&mut state)?;
            keep_aside(node, &mut state, whole.0, whole.1)?;
            let start = whole.0 * PAGE_BYTES;
            zero(&data, start, whole.1 * PAGE_BYTES)?;
            state.mark(whole.0, whole.1);
        }
        node.modified_now();
        Ok(Step::Done(()))
    }

    /// Reserves space. Makes the file longer, if `grow`.
    pub(super) fn reserve(
        &self,
        node: &Node,
        offset: u64,
        length: u64,
        grow: Grow,
    ) -> io::Result<()> {
        let _gate = self.gate();
        self.touch()?;
        let mut state = node.write()?;
        let end = offset.checked_add(length).ok_or_else(too_large)?;
        let data = node.data(&mut state)?;
        let mode = if grow == Grow::Yes { 0 } else { libc::FALLOC_FL_KEEP_SIZE };
        fallocate(&data, mode, offset, length)?;
        if grow == Grow::Yes && end > state.bytes {
            (state.bytes, state.touched) = (end, true);
            node.modified_now();
        }
        Ok(())
    }

    /// Puts a file's content, and all names up to now, on the disk. Nothing, while mongod starts.
    pub(super) fn fsync(&self, node: &Node) -> io::Result<()> {
        node.last.synced();
        if self.start.is_starting() {
            return Ok(());
        }
        self.settle()?;
        self.sync_content(&[node])?;
        self.sync_log()
    }

    /// Puts all names up to now on the disk. Nothing, while mongod starts.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        if self.start.is_starting() {
            return Ok(());
        }
        self.settle()?;
        self.sync_log()
    }

    /// Puts the content of files on the disk, and has the log say so.
    pub(super) fn sync_content(&self, nodes: &[&Node]) -> io::Result<()> {
        let mut rest = nodes.to_vec();
        while !rest.is_empty() {
            let mut synced = Vec::new();
            for node in rest {
                let state = node.opened()?;
                if !state.has_data {
                    continue;
                }
                let facts = Synced {
                    unlogged: state.unlogged.clone(),
                    bytes: state.bytes,
                    cuts: state.cuts,
                    is_first: state.floor.is_none(),
                };
                let data = state.open_data()?.clone();
                drop(state);
                data.sync_data()?;
                if facts.is_first || !facts.unlogged.is_empty() {
                    synced.push((node, facts));
                }
            }
            if synced.iter().any(|(_, facts)| facts.is_first) {
                // The log is going to say that the data file is there.
                self.sync_files()?;
            }
            rest = Vec::new();
            for (node, facts) in synced {
                let mut state = node.write()?;
                if state.cuts != facts.cuts {
                    rest.push(node);
                    continue;
                }
                for record in pages_records(node.number, facts.bytes, &facts.unlogged) {
                    self.log.append(record)?;
                }
                state.unlogged.subtract(&facts.unlogged);
                state.floor = Some(facts.bytes);
            }
        }
        Ok(())
    }
}

/// What of a file was on its way to the disk.
struct Synced {
    unlogged: PageMap,
    bytes: u64,
    cuts: u64,
    /// Its data file was on no disk before.
    is_first: bool,
}

/// Whether a reservation makes a file longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grow {
    Yes,
    No,
}

/// Reads a range that ends within the file, as far as it is local or among the blocks.
fn read_range(state: &State, offset: u64, out: &mut [u8], blocks: &Blocks) -> io::Result<Vec<u64>> {
    let end = offset + out.len() as u64;
    let mut need = Vec::new();
    let mut at = offset;
    while at < end {
        let page = at / PAGE_BYTES;
        let local = state.is_local(page);
        let mut next = page + 1;
        while next * PAGE_BYTES < end && state.is_local(next) == local {
            next += 1;
        }
        let stop = end.min(next * PAGE_BYTES);
        let part = &mut out[(at - offset) as usize..(stop - offset) as usize];
        if local {
            state.open_data()?.read_exact_at(part, at)?;
        } else {
            blocks.fill(state, at, part, &mut need);
        }
        at = stop;
    }
    Ok(need)
}

fn write_slow(
    node: &Node,
    state: &mut State,
    offset: u64,
    data: &[u8],
    blocks: &Blocks,
) -> io::Result<Step<()>> {
    let end = offset + data.len() as u64;
    let (first, last) = touched(offset, end);
    if first == last {
        return Ok(Step::Done(()));
    }
    // A page that comes from the source and is written in part is written whole.
    let bytes = state.bytes.max(end);
    let partial = |page: u64, start: u64, stop: u64| start < stop && !state.is_local(page);
    let head = first * PAGE_BYTES;
    let tail = (last * PAGE_BYTES).min(bytes);
    let widen_head = partial(first, head, offset);
    let widen_tail = partial(last - 1, end, tail);
    let (from, until) =
        (if widen_head { head } else { offset }, if widen_tail { tail } else { end });
    let mut whole = Vec::new();
    if widen_head || widen_tail {
        whole = vec![0; (until - from) as usize];
        let (before, rest) = whole.split_at_mut((offset - from) as usize);
        let mut need = Vec::new();
        blocks.fill(state, from, before, &mut need);
        blocks.fill(state, end, &mut rest[data.len()..], &mut need);
        if !need.is_empty() {
            need.dedup();
            return Ok(Step::Need(need));
        }
        rest[..data.len()].copy_from_slice(data);
    }
    let content = if whole.is_empty() { data } else { &whole };
    let file = node.data(state)?;
    keep_aside(node, state, first, last)?;
    if let Err(error) = file.write_all_at(content, from) {
        // What was written behind the end must not appear when the file grows.
        let _ = file.set_len(state.bytes);
        return Err(error);
    }
    state.bytes = bytes;
    state.mark(first, last);
    Ok(Step::Done(()))
}

/// Saves sealed pages that are about to change. A seal's pages are in the data file.
pub(super) fn keep_aside(node: &Node, state: &mut State, first: u64, last: u64) -> io::Result<()> {
    if !state.guard.as_ref().is_some_and(|guard| guard.pages.has_any(first, last)) {
        return Ok(());
    }
    let data = node.data(state)?;
    let bytes = state.bytes;
    let Some(guard) = &mut state.guard else { return Ok(()) };
    let mut content = vec![0; PAGE_BYTES as usize];
    while let Some(page) = guard.pages.next(first).filter(|page| *page < last) {
        let start = page * PAGE_BYTES;
        let content = &mut content[..PAGE_BYTES.min(bytes.saturating_sub(start)) as usize];
        data.read_exact_at(content, start)?;
        guard.aside.keep(node.number, page, content)?;
        guard.pages.remove_range(page, page + 1);
    }
    Ok(())
}

/// What the log says of a data file that is on the disk.
pub(super) fn pages_records(node: u64, bytes: u64, pages: &PageMap) -> Vec<Record> {
    let runs: Vec<_> = pages.runs().collect();
    let record = |runs: &[(u64, u64)]| Record::Pages { node, bytes, runs: runs.to_vec() };
    if runs.is_empty() {
        return vec![record(&[])];
    }
    runs.chunks(super::record::RUNS_MAX).map(record).collect()
}

impl State {
    /// These pages were written to the data file.
    fn mark(&mut self, first: u64, last: u64) {
        let source_end = self.source_end().min(last);
        if first < source_end {
            let mut page = first;
            while page < source_end {
                if !self.present.has(page) {
                    self.present.insert(page);
                    self.unlogged.insert(page);
                }
                page += 1;
            }
        }
        self.changed.insert_range(first, last);
        self.touched = true;
    }

    fn shrink(&mut self, bytes: u64, logged: bool) {
        // Up to where the source reached these pages are zero now, should they come back.
        let until = self.source_end().max(self.bytes.div_ceil(PAGE_BYTES));
        self.changed.insert_range(bytes / PAGE_BYTES, until);
        let behind = bytes.div_ceil(PAGE_BYTES);
        self.present.truncate(behind);
        self.unlogged.truncate(behind);
        self.source_bytes = self.source_bytes.min(bytes);
        if let Some(guard) = &mut self.guard {
            guard.shrunk = guard.shrunk.min(bytes);
        }
        if logged {
            self.floor = self.floor.map(|floor| floor.min(bytes));
            self.cut = Some(bytes);
        }
        self.cuts += 1;
        (self.bytes, self.touched) = (bytes, true);
    }
}

fn too_large() -> io::Error {
    io::Error::from_raw_os_error(libc::EFBIG)
}
