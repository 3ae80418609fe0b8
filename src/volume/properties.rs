//! What is written is read back, whatever it is.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use zstd::bulk::{Compressor, Decompressor};

use super::fetch::Wanted;
use super::head::{Head, Origin};
use super::pack::{HEADER_BYTES, PackKind, PackWriter, TRAILER_BYTES, Trailer};
use super::page::{PAGE_BLOCKS, Page, pages_of};
use super::reference::{Encoded, Encoding, Frame, Reference, ZSTD_LEVEL};
use super::version::{Cause, MongodVersion, Root, Version};
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, Epoch, PackId, ProjectId, ServerId, VersionId};
use crate::base::limits::BLOCK_BYTES;
use crate::base::own_time::OwnTime;
use crate::mount::{DirectoryEntry, FileEntry, Tree, VolumePath};

/// Times and numbers are kept in BSON, which has no unsigned ones.
const NUMBER_MAX: u64 = i64::MAX as u64;

fn version_id() -> impl Strategy<Value = VersionId> {
    any::<[u8; 16]>().prop_map(VersionId::from_bytes)
}

fn branch_id() -> impl Strategy<Value = BranchId> {
    any::<[u8; 16]>().prop_map(BranchId::from_bytes)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..=NUMBER_MAX).prop_map(Timestamp::from_unix_ms)
}

/// A reference to a frame with this much content.
fn reference(raw: u32) -> impl Strategy<Value = Reference> {
    let place = (HEADER_BYTES as u32..60_000_000, 0..4_u8, 1..=raw, any::<bool>(), any::<u8>());
    place.prop_map(move |(offset, pack, stored, whole, content)| {
        let (encoding, stored) =
            if whole { (Encoding::Raw, raw) } else { (Encoding::Zstd, stored) };
        let frame = Frame { offset, stored, raw, encoding, hash: blake3::hash(&[content]) };
        Reference { pack: PackId::from_bytes([pack; 16]), frame }
    })
}

fn a_head() -> impl Strategy<Value = Head> {
    let names = ("[a-z0-9]{1,63}", "[a-z0-9]{1,63}");
    let ids = (branch_id(), any::<[u8; 16]>(), version_id(), option::of(any::<[u8; 16]>()));
    let origin = option::of((branch_id(), version_id()));
    let own_time = || option::of(0..=NUMBER_MAX).prop_map(OwnTime::from_ms);
    let own = (own_time(), own_time(), own_time());
    let times = (time(), option::of(time()), 0..=NUMBER_MAX);
    (names, ids, origin, own, times).prop_map(|(names, ids, origin, own, times)| Head {
        branch: ids.0,
        branch_name: names.0.parse().unwrap(),
        project: ProjectId::from_bytes(ids.1),
        project_name: names.1.parse().unwrap(),
        version: ids.2,
        epoch: Epoch(times.2),
        owner: ids.3.map(ServerId::from_bytes),
        created: times.0,
        deleted: times.1,
        origin: origin.map(|(branch, version)| Origin { branch, version }),
        idle_timeout: own.0,
        snapshot_every: own.1,
        keep_warm: own.2,
    })
}

fn a_version() -> impl Strategy<Value = Version> {
    let ids = (version_id(), option::of(version_id()), option::of(branch_id()));
    let cause = prop_oneof![Just(Cause::Suspend), Just(Cause::Base), Just(Cause::Empty)];
    let texts = (option::of(".{0,30}"), "[0-9.]{1,8}", "[0-9.]{1,4}", option::of(".{0,80}"));
    let bytes = (0..=NUMBER_MAX, 0..=NUMBER_MAX, 0..=NUMBER_MAX);
    (ids, cause, texts, time(), bytes).prop_map(|(ids, cause, texts, created, bytes)| Version {
        id: ids.0,
        parent: ids.1,
        branch: ids.2,
        cause,
        label: texts.0,
        created,
        mongod: MongodVersion { version: texts.1, fcv: texts.2, image: texts.3 },
        total_bytes: bytes.0,
        new_bytes: bytes.1,
        stored_bytes: bytes.2,
    })
}

/// Files below one directory, each with its pages.
fn files() -> impl Strategy<Value = BTreeMap<String, (u32, u64, Option<Reference>)>> {
    const THREE_PAGES: u64 = 3 * (PAGE_BLOCKS * BLOCK_BYTES) as u64;
    let page = option::of(reference(4096));
    btree_map("[a-zA-Z0-9é ]{1,20}", (0..=0o777_u32, 0..=THREE_PAGES, page), 0..6)
}

proptest! {
    #[test]
    fn heads(head in a_head()) {
        prop_assert_eq!(Head::open(head.branch, &head.seal().unwrap()).unwrap(), head);
    }

    #[test]
    fn versions(
        version in a_version(),
        files in files(),
        mode in 0..=0o777_u32,
        whole in reference(BLOCK_BYTES as u32),
        chosen: u64,
    ) {
        let path = |text: &str| VolumePath::new(text).unwrap();
        let entry = |(name, (mode, bytes, _)): (&String, &(u32, u64, _))| FileEntry {
            path: path(&format!("db/{name}")),
            mode: *mode,
            bytes: *bytes,
        };
        let tree = Tree::new(
            vec![DirectoryEntry { path: path("db"), mode }],
            files.iter().map(entry).collect(),
        );
        // Any of the first 64 blocks of a file that are not its last.
        let of_file = |(file, (_, bytes, _)): (usize, &(u32, u64, _))| {
            let blocks = (0..*bytes / BLOCK_BYTES as u64).take(64);
            let chosen = blocks.filter(|block| chosen >> block & 1 == 1);
            chosen.map(|index| Wanted { reference: whole, file, index }).collect::<Vec<_>>()
        };
        let boot = files.values().enumerate().flat_map(of_file).collect();
        let pages = files.values().map(|(_, bytes, page)| vec![*page; pages_of(*bytes) as usize]);
        let root = Root { version, tree: tree.unwrap(), pages: pages.collect(), boot };
        prop_assert_eq!(Root::open(root.version.id, &root.seal().unwrap()).unwrap(), root);
    }

    #[test]
    fn pages(
        blocks in vec(option::of(reference(BLOCK_BYTES as u32)), 0..PAGE_BLOCKS),
        last in reference(100),
    ) {
        // The last block is a short one.
        let covered = (blocks.len() * BLOCK_BYTES + 100) as u32;
        let slots = [blocks, vec![Some(last)]].concat();
        let page = Page::new(covered, slots.clone());
        let read = Page::decode(&page.encode()).unwrap();
        prop_assert_eq!((read.covered(), read.slots()), (covered, &slots[..]));
    }

    #[test]
    fn packs(contents in vec(vec(0..3_u8, 1..3000), 1..12), id: [u8; 16]) {
        let mut compressor = Compressor::new(ZSTD_LEVEL).unwrap();
        let mut writer = PackWriter::new(PackKind::Blocks, PackId::from_bytes(id));
        let references: Vec<Reference> = contents
            .iter()
            .map(|one| Encoded::new(one, blake3::hash(one), &mut compressor).unwrap())
            .map(|encoded| writer.push(&encoded))
            .collect();
        let object = writer.finish();
        let trailer = &object[object.len() - TRAILER_BYTES..];
        let trailer = Trailer::read(trailer, object.len() as u64).unwrap();
        let table = trailer.table().start as usize..trailer.table().end as usize;
        let (head, id) = (&object[..HEADER_BYTES], PackId::from_bytes(id));
        let frames = trailer.frames(PackKind::Blocks, id, head, &object[table]).unwrap();
        let written: Vec<Frame> = references.iter().map(|reference| reference.frame).collect();
        prop_assert_eq!(&frames, &written);
        let mut decompressor = Decompressor::new().unwrap();
        for (frame, content) in frames.iter().zip(&contents) {
            let stored = object.slice(frame.offset as usize..frame.end() as usize);
            prop_assert_eq!(&frame.decode(stored, &mut decompressor).unwrap(), content);
        }
    }
}
