//! Lazy volumes against whole captures and restores, and what they ask of the store.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::bench::{Bench, read_all};
use super::*;
use crate::base::ids::PackId;
use crate::mount::FileEntry;
use crate::mount::lazy::Changes;
use crate::volume::model::{Model, assert_restores, assert_same, edit, make, noise};
use crate::volume::page::{PAGE_COVERS, Page};
use crate::volume::sealed::Sealed;
use crate::volume::testing::{Random, request};

pub(super) fn one_file(blocks: usize) -> Model {
    Model::from([("a".to_owned(), Some(noise(&mut Random(1), blocks * BLOCK_BYTES)))])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_by_its_changes_is_what_a_whole_capture_would_be() {
    for seed in 0..4 {
        let bench = Bench::new([None, Some(3), Some(100)][seed as usize % 3]);
        let mut random = Random(seed);
        let first = bench.captured(&Model::new()).await;
        let first = bench.volumes.open(first).await.unwrap();
        let mut made = vec![(first, Model::new())];
        for number in 0..10 {
            let what = format!("seed {seed}, {number}");
            let (below, before) = &made[random.below(made.len())];
            let below = match random.below(2) {
                0 => below.clone(),
                _ => bench.volumes.open(below.version()).await.unwrap(),
            };
            let mut after = before.clone();
            (0..random.below(6)).for_each(|_| edit(&mut after, &mut random));
            let mut sealed = Sealed::new(&*below, before, &after);
            for _ in 0..random.below(4) {
                let files = sealed.tree().files().len();
                if files > 0 {
                    sealed.suspect(random.below(files), random.below(6) as u64);
                }
            }
            let asked = request(None);
            let captured = bench.volumes.capture_changes(&below, &sealed, asked).await;
            let (version, lazy) = captured.unwrap();
            assert!(sealed.held.lock().unwrap().is_empty(), "{what}");
            assert_eq!(version.parent, Some(below.version()));
            assert_eq!(bench.volumes.version(version.id).await.unwrap(), version);
            assert_restores(&bench.volumes, version.id, &after, &what).await;
            assert_same(&read_all(&lazy).await, &after, &what);
            let opened = bench.volumes.open(version.id).await.unwrap();
            assert_same(&read_all(&opened).await, &after, &what);
            same_as_whole(&bench, below.version(), version.id, &after, &what).await;
            made.push((lazy, after));
        }
    }
}

/// A capture of the directory as a whole finds the same blocks in the same places.
async fn same_as_whole(
    bench: &Bench,
    parent: VersionId,
    version: VersionId,
    model: &Model,
    what: &str,
) {
    let directory = tempfile::tempdir().unwrap();
    make(model, directory.path());
    let whole = bench.volumes.capture(directory.path(), request(Some(parent))).await.unwrap().id;
    let mut blocks = Vec::new();
    for version in [version, whole] {
        let index = bench.volumes.index(version).await.unwrap();
        let files = 0..index.root.tree.files().len();
        let of_file = |file| index.blocks(file).map(|one| (one.index, one.reference.frame.hash));
        blocks.push(files.map(|file| of_file(file).collect()).collect::<Vec<BTreeMap<_, _>>>());
    }
    assert_eq!(blocks[0], blocks[1], "{what}");
}

#[tokio::test]
async fn opening_costs_one_request_and_what_is_here_costs_none() {
    let bench = Bench::new(Some(100));
    let mut model = one_file(40);
    model.insert("b".to_owned(), Some(vec![0; 20 * 1024 * 1024]));
    let version = bench.captured(&model).await;
    let volume = bench.volumes.open(version).await.unwrap();
    let asked = bench.store.take();
    assert_eq!((asked.len(), asked[0].what), (1, "read"), "{asked:?}");
    assert_eq!(volume.at_hand(1, 7).unwrap(), vec![0; BLOCK_BYTES], "no page is there at all");
    assert_eq!(volume.at_hand(0, 7), None);
    assert_eq!(bench.store.take(), []);

    volume.block(0, 7).await.unwrap();
    assert_eq!(bench.store.take_counts([("range", "pages/"), ("range", "packs/")]), [1, 1]);
    // What follows came with it.
    assert!(volume.at_hand(0, 8).is_some() && volume.at_hand(0, 6).is_none());
    assert_eq!(bench.store.take(), []);

    assert_same(&read_all(&volume).await, &model, "read");
    let [pages, packs] = bench.store.take_counts([("range", "pages/"), ("range", "packs/")]);
    assert!(pages == 0 && packs <= 6, "{pages} {packs}");
    // The next life of the server has them on its disk, index pages too.
    let volume = bench.anew(100).open(version).await.unwrap();
    bench.store.take();
    assert_same(&read_all(&volume).await, &model, "from the disk");
    assert_eq!(bench.store.take(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_want_at_once_is_asked_for_once() {
    let bench = Bench::new(None);
    let version = bench.captured(&one_file(8)).await;
    let volume = bench.volumes.open(version).await.unwrap();
    bench.store.take();
    let reads = (0..64).map(|n| {
        let volume = volume.clone();
        tokio::spawn(async move { volume.block(0, n % 4).await.unwrap().len() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), BLOCK_BYTES);
    }
    let [pages, packs] = bench.store.take_counts([("range", "pages/"), ("range", "packs/")]);
    assert!(pages == 1 && packs <= 4, "{pages} {packs}");
}

#[tokio::test]
async fn a_version_costs_what_changed_and_nothing_else_is_read() {
    let bench = Bench::new(Some(1_000));
    // Three index pages.
    let before = one_file(600);
    let version = bench.captured(&before).await;
    let below = bench.volumes.open(version).await.unwrap();
    bench.store.take();

    let same = Sealed::new(&*below, &before, &before);
    let (version, below) =
        bench.volumes.capture_changes(&below, &same, request(None)).await.unwrap();
    assert_eq!((version.new_bytes, version.stored_bytes, same.reads()), (0, 0, 0));
    let asked = bench.store.take();
    let ranges = asked.iter().filter(|asked| asked.what == "range").count();
    let writes: u64 = asked.iter().filter(|a| a.what == "write").map(|a| a.bytes).sum();
    assert!(ranges == 0 && writes < 1_000, "{asked:?}");

    let mut after = before.clone();
    let content = after.get_mut("a").unwrap().as_mut().unwrap();
    let changed: Vec<usize> = (0..12).chain([300]).collect();
    for block in &changed {
        content[block * BLOCK_BYTES + 77] ^= 1;
    }
    let sealed = Sealed::new(&*below, &before, &after);
    let (version, lazy) =
        bench.volumes.capture_changes(&below, &sealed, request(None)).await.unwrap();
    let blocks = (changed.len() * BLOCK_BYTES) as u64;
    assert_eq!((version.new_bytes, sealed.reads() as usize), (blocks, changed.len()));
    let asked = bench.store.take();
    let writes: u64 = asked.iter().filter(|a| a.what == "write").map(|a| a.bytes).sum();
    assert!(writes as f64 <= blocks as f64 * 1.15, "{writes} for {blocks}");
    let read = |prefix: &str| {
        asked.iter().filter(|a| a.what == "range" && a.key.starts_with(prefix)).count()
    };
    assert_eq!((read("pages/"), read("packs/")), (1, 0), "the two pages, and no block");
    for block in changed {
        assert!(lazy.at_hand(0, block as u64).is_some(), "what was captured is here");
    }
    assert_eq!(bench.store.take(), []);
    assert_restores(&bench.volumes, version.id, &after, "after").await;
}

#[tokio::test]
async fn the_rest_comes_in_the_background_as_far_as_there_is_room() {
    let model = one_file(300);
    for (room, wanted) in [(400, 300), (100, 100)] {
        let bench = Bench::new(None);
        let version = bench.captured(&model).await;
        let volumes = bench.elsewhere(room);
        let volume = volumes.open(version).await.unwrap();
        let filled = volume.fill(CancellationToken::new()).await.unwrap();
        assert!(filled.blocks >= wanted && filled.bytes >= wanted * BLOCK_BYTES as u64 - 1);
        assert!(filled.blocks < wanted + 128, "{filled:?}");
        bench.store.take();
        if room == 400 {
            assert_same(&read_all(&volume).await, &model, "filled");
            assert_eq!(bench.store.take(), []);
            assert_eq!(volume.fill(CancellationToken::new()).await.unwrap(), Filled::default());
        }
    }
    let bench = Bench::new(Some(400));
    let volume = bench.volumes.open(bench.captured(&model).await).await.unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    assert_eq!(volume.fill(cancelled).await.unwrap(), Filled::default());
}

#[tokio::test]
async fn a_volume_of_ten_gigabytes_takes_little_memory() {
    const PAGES: u64 = 640;
    let bench = Bench::new(None);
    let version = bench.captured(&one_file(1)).await;
    let mut root = bench.volumes.root(version).await.unwrap();
    let reference = root.pages[0][0].unwrap();
    let file = &root.tree.files()[0];
    let bytes = PAGES * PAGE_COVERS;
    root.tree = Tree::new(vec![], vec![FileEntry { bytes, ..file.clone() }]).unwrap();
    root.pages[0] = vec![Some(reference); PAGES as usize];
    let volume = LazyVolume::new(bench.volumes.clone(), root);
    let opened = volume.pages.memory();
    for index in 0..PAGES {
        let slot = |slot: usize| {
            let mut reference = reference;
            reference.pack = PackId::from_bytes([(slot % 5) as u8; 16]);
            reference.frame.offset += (index as usize * PAGE_BLOCKS + slot) as u32;
            Some(reference)
        };
        let page = Page::new(PAGE_COVERS as u32, (0..PAGE_BLOCKS).map(slot).collect());
        volume.adopt(&Wanted { reference, file: 0, index }, &page.encode()).unwrap();
    }
    let whole = volume.pages.memory();
    println!("10 GB: {opened} bytes of memory when opened, {whole} once every page was read");
    assert!(opened < 100_000 && whole < 8_000_000, "{opened} {whole}");
}
