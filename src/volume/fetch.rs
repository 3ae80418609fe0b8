//! Reading frames: few range reads for many frames, each verified before anybody sees it.

use bytes::Bytes;
use zstd::bulk::Decompressor;

use super::error::VolumeError;
use super::format::{FormatError, exactly};
use super::keys;
use super::pack::PackKind;
use super::reference::Reference;
use crate::base::blocking::blocking;
use crate::base::ids::PackId;
use crate::store::Store;

/// Most bytes of one range read.
const BATCH_STORED_MAX: u64 = 4 * 1024 * 1024;
/// Most frames of one range read: 8 MiB of content.
const BATCH_FRAMES_MAX: usize = 128;
/// So many unwanted bytes are read rather than asked around: a request costs more.
const GAP_MAX: u64 = 64 * 1024;

/// A frame that is wanted, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub reference: Reference,
    /// The file that needs it, by its place in the tree.
    pub file: usize,
    /// The block, or page, of that file.
    pub index: u64,
}

/// Frames of one pack that are read at once.
#[derive(Debug)]
pub struct Batch {
    pack: PackId,
    start: u64,
    end: u64,
    /// What is in it.
    pub wanted: Vec<Wanted>,
}

impl Batch {
    /// Bytes that are read.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// Puts frames that lie side by side into common reads.
pub fn plan(wanted: Vec<Wanted>) -> Vec<Batch> {
    plan_reads(wanted, BATCH_STORED_MAX)
}

/// The same, with so many bytes at most in a read of several frames.
pub fn plan_reads(mut wanted: Vec<Wanted>, stored_max: u64) -> Vec<Batch> {
    wanted.sort_unstable_by_key(|w| (w.reference.pack, w.reference.frame.offset, w.file, w.index));
    let mut batches: Vec<Batch> = Vec::new();
    for next in wanted {
        let Reference { pack, frame } = next.reference;
        let (start, end) = (u64::from(frame.offset), u64::from(frame.end()));
        match batches.last_mut() {
            Some(batch)
                if batch.pack == pack
                    && start <= batch.end + GAP_MAX
                    && end.max(batch.end) - batch.start <= stored_max
                    && batch.wanted.len() < BATCH_FRAMES_MAX =>
            {
                batch.end = batch.end.max(end);
                batch.wanted.push(next);
            }
            _ => batches.push(Batch { pack, start, end, wanted: vec![next] }),
        }
    }
    batches
}

/// Of `following`, in the order of their file, what is read along with `first`: as long as it follows
/// in the same object, without much between, up to this many bytes and frames of them all.
pub fn ahead(
    first: &Wanted,
    following: impl Iterator<Item = Wanted>,
    stored_max: u64,
    frames_max: usize,
) -> Vec<Wanted> {
    let Reference { pack, frame } = first.reference;
    let (start, mut end) = (u64::from(frame.offset), u64::from(frame.end()));
    let follows = |next: &Wanted| {
        let (at, next_end) =
            (u64::from(next.reference.frame.offset), u64::from(next.reference.frame.end()));
        let near = at >= end && at <= end + GAP_MAX && next_end - start <= stored_max;
        let follows = next.reference.pack == pack && near;
        if follows {
            end = next_end;
        }
        follows
    };
    following.take_while(follows).take(frames_max.saturating_sub(1)).collect()
}

/// Reads and decodes the frames of a batch, in the order of `wanted`. `name` says what a file is
/// called, for errors.
pub async fn fetch(
    store: &dyn Store,
    kind: PackKind,
    batch: &Batch,
    name: impl Fn(&Wanted) -> String + Send + 'static,
) -> Result<Vec<Bytes>, VolumeError> {
    fetch_each(store, kind, batch, name, |_, _| {}).await?.into_iter().collect()
}

/// The same, where one frame's being bad is nothing to the others. `found` is shown each good one,
/// on a thread that may block.
pub async fn fetch_each(
    store: &dyn Store,
    kind: PackKind,
    batch: &Batch,
    name: impl Fn(&Wanted) -> String + Send + 'static,
    found: impl Fn(&Wanted, &Bytes) + Send + 'static,
) -> Result<Vec<Result<Bytes, VolumeError>>, VolumeError> {
    let key = keys::pack(kind, batch.pack);
    let range = batch.start..batch.end;
    let stored = store.read_range(&key, range.clone()).await.map_err(VolumeError::store(|| {
        let (start, end, first) = (range.start, range.end, name(&batch.wanted[0]));
        format!("read bytes {start} to {end} of {key}, from {first} on")
    }))?;
    // A store may break its promise; a short body must not become a panic below.
    exactly((batch.end - batch.start) as usize, &stored)
        .map_err(VolumeError::damaged(&key, "the bytes that the store gave for a range"))?;
    let (start, wanted) = (batch.start, batch.wanted.clone());
    blocking(move || {
        let decoded = decode(&stored, start, &wanted).into_iter().zip(&wanted);
        let named = decoded.map(|(decoded, wanted)| {
            let content = decoded.map_err(|source| {
                let place = format!("at {}, {}", wanted.reference.frame.offset, name(wanted));
                VolumeError::damaged(&key, &place)(source)
            })?;
            found(wanted, &content);
            Ok(content)
        });
        Ok(named.collect())
    })
    .await
}

/// The contents, or how they are bad.
fn decode(stored: &Bytes, start: u64, wanted: &[Wanted]) -> Vec<Result<Bytes, FormatError>> {
    let mut decompressor = None;
    let mut contents: Vec<Result<Bytes, FormatError>> = Vec::with_capacity(wanted.len());
    for (place, one) in wanted.iter().enumerate() {
        let frame = one.reference.frame;
        let content = match contents.last() {
            // One frame for many places: equal blocks may be stored once.
            Some(Ok(same)) if wanted[place - 1].reference == one.reference => Ok(same.clone()),
            _ => {
                let at = (u64::from(frame.offset) - start) as usize;
                let bytes = stored.slice(at..at + frame.stored as usize);
                match &mut decompressor {
                    Some(decompressor) => frame.decode(bytes, decompressor),
                    none => Decompressor::new()
                        .map_err(FormatError::invalid)
                        .and_then(|new| frame.decode(bytes, none.insert(new))),
                }
            }
        };
        contents.push(content);
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::reference::{Encoding, Frame};

    fn wanted(pack: u8, offset: u32, stored: u32) -> Wanted {
        let hash = blake3::hash(b"");
        let frame = Frame { offset, stored, raw: 65_536, encoding: Encoding::Zstd, hash };
        let reference = Reference { pack: PackId::from_bytes([pack; 16]), frame };
        Wanted { reference, file: 0, index: offset.into() }
    }

    #[test]
    fn neighbours_are_read_together_and_never_too_much() {
        let check = |frames: &[(u8, u32, u32)], ranges: &[(u8, u64, u64)]| {
            let frames = frames.iter().map(|&(pack, at, stored)| wanted(pack, at, stored));
            let batches = plan(frames.collect());
            let found: Vec<_> =
                batches.iter().map(|b| (b.pack.to_bytes()[0], b.start, b.end)).collect();
            assert_eq!(found, ranges);
        };
        check(&[], &[]);
        check(&[(1, 132, 50), (1, 32, 100)], &[(1, 32, 182)]);
        check(&[(1, 32, 100), (2, 132, 50)], &[(1, 32, 132), (2, 132, 182)]);
        check(&[(1, 32, 100), (1, 32, 100)], &[(1, 32, 132)]);
        check(&[(1, 32, 100), (1, 65_668, 1)], &[(1, 32, 65_669)]);
        check(&[(1, 32, 100), (1, 65_669, 1)], &[(1, 32, 132), (1, 65_669, 65_670)]);
        let many: Vec<_> = (0..129).map(|n| (1, 32 + n * 10, 10)).collect();
        check(&many, &[(1, 32, 1312), (1, 1312, 1322)]);
        let large: Vec<_> = (0..65).map(|n| (1, 32 + n * 65_536, 65_536)).collect();
        check(&large, &[(1, 32, 4_194_336), (1, 4_194_336, 4_259_872)]);
    }
}
