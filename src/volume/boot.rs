//! The boot set: blocks that mongod reads while it starts, and where a wake reads them at once.
//!
//! Each is a reference of its own beside that of its index page: to the same frame, or to a copy among
//! the others of the set, where they would cost too many reads.

use std::collections::{BTreeMap, BTreeSet};

use super::fetch::{Batch, Wanted, plan};
use super::format::{Fields, FormatError};
use super::reference::Reference;
use crate::base::ids::PackId;
use crate::base::limits::BLOCK_BYTES;
use crate::mount::Tree;

/// Most blocks of a boot set that are written: 64 MiB.
pub const BLOCKS_MAX: usize = 1024;
/// Most that are read.
const BLOCKS_READ_MAX: u64 = 4096;
/// Bytes of a run of blocks.
const RUN_BYTES: usize = 12;
/// A read that brings fewer blocks costs about as much as one that brings so many.
const SMALL_READ_BLOCKS: usize = 8;
/// With more of these the blocks in them are copied side by side: so many are one round trip.
const SMALL_READS_MAX: usize = 16;

/// A block, by its file in the tree and its number there.
pub type BlockPlace = (usize, u64);

/// The two fields of the format: runs of blocks, and a reference for each of them.
pub fn encode(boot: &[Wanted]) -> (Vec<u8>, Vec<u8>) {
    let (mut runs, mut references) = (Vec::<[u32; 3]>::new(), Vec::new());
    for Wanted { reference, file, index } in boot {
        let (file, index) = (*file as u32, *index as u32);
        match runs.last_mut() {
            Some([same, first, blocks]) if *same == file && *first + *blocks == index => {
                *blocks += 1
            }
            _ => runs.push([file, index, 1]),
        }
        Reference::write(Some(reference), &mut references);
    }
    let runs = runs.into_iter().flatten().flat_map(u32::to_le_bytes).collect();
    (runs, references)
}

/// Reads them, for the files of `tree`.
pub fn decode(runs: &[u8], references: &[u8], tree: &Tree) -> Result<Vec<Wanted>, FormatError> {
    let (mut runs, mut references) = (Fields(runs), Fields(references));
    let mut boot: Vec<Wanted> = Vec::new();
    while !runs.0.is_empty() {
        let mut run = Fields(runs.slice(RUN_BYTES)?);
        let (file, first) = (run.u32()? as usize, u64::from(run.u32()?));
        let blocks = u64::from(run.u32()?);
        let bytes = tree.files().get(file).map_or(0, |file| file.bytes);
        if blocks == 0 || first + blocks > bytes.div_ceil(BLOCK_BYTES as u64) {
            return Err(FormatError::invalid("the boot set has blocks that are in no file"));
        }
        if boot.last().is_some_and(|last| (last.file, last.index) >= (file, first)) {
            return Err(FormatError::invalid("the boot set is not sorted"));
        }
        let found = boot.len() as u64 + blocks;
        if found > BLOCKS_READ_MAX {
            let field = "the boot set's count of blocks";
            return Err(FormatError::Limit { field, found, most: BLOCKS_READ_MAX });
        }
        for index in first..first + blocks {
            let length = (bytes - index * BLOCK_BYTES as u64).min(BLOCK_BYTES as u64);
            let reference = Reference::read(&mut references)?;
            let reference = reference.filter(|one| u64::from(one.frame.raw) == length);
            let reference = reference.ok_or_else(|| {
                FormatError::invalid("the boot set has a reference that is none to its block")
            })?;
            boot.push(Wanted { reference, file, index });
        }
    }
    super::format::exactly(0, references.0)?;
    Ok(boot)
}

/// What starts read.
#[derive(Debug, Default)]
pub struct Read {
    /// Blocks that the last one read, if it was seen.
    pub now: Option<Vec<BlockPlace>>,
    /// Blocks that were written since, and that the next one reads, most likely.
    pub next: Vec<BlockPlace>,
}

/// The blocks of a new version's boot set: those that its mongod read, and what the version below had
/// where that was not seen. A block that was read by chance, like those of the oplog that mongod samples, is
/// gone from it with the next start; as a reference it costs 64 bytes until then.
pub fn choose(read: Read, before: &[Wanted]) -> Vec<BlockPlace> {
    let now = read.now.filter(|now| !now.is_empty());
    let now = now.unwrap_or_else(|| before.iter().map(|one| (one.file, one.index)).collect());
    capped(now.into_iter().chain(read.next).collect())
}

/// At most [`BLOCKS_MAX`]: of the files with the most blocks only the first ones.
fn capped(blocks: BTreeSet<BlockPlace>) -> Vec<BlockPlace> {
    let mut counts = BTreeMap::<usize, usize>::new();
    blocks.iter().for_each(|(file, _)| *counts.entry(*file).or_default() += 1);
    let fits =
        |quota: usize| counts.values().map(|count| quota.min(*count)).sum::<usize>() <= BLOCKS_MAX;
    let (mut quota, mut too_many) = (0, BLOCKS_MAX + 1);
    while quota + 1 < too_many {
        let half = (quota + too_many) / 2;
        if fits(half) { quota = half } else { too_many = half }
    }
    let mut taken = BTreeMap::<usize, usize>::new();
    let kept = blocks.into_iter().filter(|(file, _)| {
        let taken = taken.entry(*file).or_default();
        *taken += 1;
        *taken <= quota
    });
    kept.collect()
}

/// Where a block of the boot set is to be read, if it is to be read at `now` by its index page.
pub fn carry(before: Option<&Reference>, now: Reference) -> Reference {
    let same = |before: &&Reference| before.frame.hash == now.frame.hash;
    before.filter(same).copied().unwrap_or(now)
}

/// The blocks that are to be copied side by side, as places in `boot`: nothing where a wake reads
/// them well as they lie. What lies in a pack of `new` was written just now, and stays there.
pub fn scattered(boot: &[Wanted], new: &BTreeSet<PackId>) -> Vec<usize> {
    let old = boot.iter().filter(|one| !new.contains(&one.reference.pack)).copied();
    let small = |batch: &Batch| batch.wanted.len() < SMALL_READ_BLOCKS;
    let small: Vec<_> = plan(old.collect()).into_iter().filter(small).collect();
    if small.len() <= SMALL_READS_MAX {
        return Vec::new();
    }
    let copied = small.iter().flat_map(|batch| &batch.wanted);
    let copied: BTreeSet<BlockPlace> = copied.map(|one| (one.file, one.index)).collect();
    let is_copied = |one: &Wanted| copied.contains(&(one.file, one.index));
    (0..boot.len()).filter(|place| is_copied(&boot[*place])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{FileEntry, VolumePath};
    use crate::volume::reference::{Encoding, Frame};

    fn wanted(file: usize, index: u64, pack: u8, offset: u32) -> Wanted {
        let hash = blake3::hash(&offset.to_le_bytes());
        let frame = Frame { offset, stored: 1_000, raw: 65_536, encoding: Encoding::Zstd, hash };
        Wanted { reference: Reference { pack: PackId::from_bytes([pack; 16]), frame }, file, index }
    }

    fn tree() -> Tree {
        let file = |name: &str, bytes| FileEntry {
            path: VolumePath::new(name).unwrap(),
            mode: 0o600,
            bytes,
        };
        Tree::new(vec![], vec![file("a", 10 * 65_536), file("b", 5_000 * 65_536)]).unwrap()
    }

    #[test]
    fn runs_come_back_and_what_was_made_to_harm_is_refused() {
        let places = [(0, 1), (0, 2), (0, 9), (1, 0), (1, 4_999)];
        let boot: Vec<_> = places.iter().map(|&(file, index)| wanted(file, index, 1, 32)).collect();
        let (runs, references) = encode(&boot);
        assert_eq!((runs.len(), references.len()), (4 * 12, 5 * 64));
        assert_eq!(decode(&runs, &references, &tree()).unwrap(), boot);
        assert_eq!(decode(&[], &[], &tree()).unwrap(), []);
        let run = |numbers: [u32; 3]| numbers.map(u32::to_le_bytes).concat();
        let bytes = |blocks: usize| {
            let (_, one) = encode(&boot[..1]);
            one.repeat(blocks)
        };
        for (runs, references, words) in [
            (runs[..47].to_vec(), references.clone(), "11 bytes"),
            (runs.clone(), references[..319].to_vec(), "63 bytes"),
            (runs.clone(), bytes(6), "64 bytes"),
            (run([2, 0, 1]), bytes(1), "in no file"),
            (run([0, 0, 0]), bytes(0), "in no file"),
            (run([0, 9, 2]), bytes(2), "in no file"),
            (run([0, u32::MAX, u32::MAX]), bytes(1), "in no file"),
            ([run([0, 1, 2]), run([0, 2, 1])].concat(), bytes(3), "not sorted"),
            ([run([1, 1, 2]), run([0, 2, 1])].concat(), bytes(3), "not sorted"),
            (run([1, 0, 4_097]), bytes(1), "4096 is the most"),
            (run([0, 0, 1]), vec![0; 64], "none to its block"),
        ] {
            let error = decode(&runs, &references, &tree()).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn a_set_is_what_the_last_start_read_and_what_the_next_one_will() {
        let set = |range: std::ops::Range<u64>| range.map(|index| (1, index)).collect::<Vec<_>>();
        let before: Vec<_> = (0..100).map(|index| wanted(1, index, 1, 32)).collect();
        let choose = |now: Option<Vec<BlockPlace>>, next, before: &[Wanted]| {
            super::choose(Read { now, next }, before)
        };
        assert_eq!(choose(None, vec![], &before), set(0..100));
        assert_eq!(choose(Some(vec![]), vec![], &before), set(0..100), "nothing was seen");
        assert_eq!(choose(Some(set(10..110)), vec![], &before), set(10..110));
        let written = vec![(1, 120), (0, 3), (1, 15)];
        let with = |set: Vec<BlockPlace>| [vec![(0, 3)], set, vec![(1, 120)]].concat();
        assert_eq!(choose(Some(set(10..110)), written.clone(), &before), with(set(10..110)));
        assert_eq!(choose(None, written, &before), with(set(0..100)));
        // A file that was read whole does not drive out the others.
        let seen = [set(0..3_000), vec![(0, 3)]].concat();
        let chosen = choose(Some(seen), vec![], &[]);
        assert_eq!((chosen.len(), chosen[0], chosen[1]), (BLOCKS_MAX, (0, 3), (1, 0)));
        assert_eq!(choose(Some(set(0..BLOCKS_MAX as u64)), vec![], &[]).len(), BLOCKS_MAX);
    }

    #[test]
    fn only_what_costs_many_reads_is_copied() {
        let none = BTreeSet::new();
        let side_by_side = (0..500).map(|n| wanted(1, n, 1, 32 + n as u32 * 1_000));
        let mut boot: Vec<_> = side_by_side.collect();
        assert_eq!(scattered(&boot, &none), [0; 0]);
        boot.extend((500..516).map(|n| wanted(1, n, (n - 400) as u8, 32)));
        assert_eq!(scattered(&boot, &none), [0; 0]);
        boot.push(wanted(1, 600, 77, 32));
        assert_eq!(scattered(&boot, &none), (500..517).collect::<Vec<_>>());
        let new = BTreeSet::from([PackId::from_bytes([77; 16])]);
        assert_eq!(scattered(&boot, &new), [0; 0]);
    }
}
