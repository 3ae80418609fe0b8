//! Wakes: the boot set, its copies, and what garbage collection does to both.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bench::{Bench, plain, read_all};
use super::*;
use crate::base::ids::PackId;
use crate::store::throttle::{Pace, Throttled};
use crate::store::{Condition, LocalStore, Store};
use crate::volume::boot::BlockPlace;
use crate::volume::index::Index;
use crate::volume::lazy::tests::one_file;
use crate::volume::model::{Model, assert_restores, assert_same, noise};
use crate::volume::sealed::Sealed;
use crate::volume::testing::{Random, head, request};
use crate::volume::{Capture, Collect, Head, Mode, keys};

/// Two files of three index pages each, of which a start reads every tenth block.
fn scattered() -> (Model, Vec<BlockPlace>) {
    let mut random = Random(3);
    let mut model = Model::new();
    for name in ["a", "b"] {
        model.insert(name.to_owned(), Some(noise(&mut random, 520 * BLOCK_BYTES + 7)));
    }
    let blocks = (0..520).step_by(10);
    (
        model,
        blocks
            .flat_map(|index| [(0, index), (1, index)])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    )
}

async fn next(
    bench: &Bench,
    below: &Arc<LazyVolume>,
    [before, after]: [&Model; 2],
    boot: Option<&[BlockPlace]>,
) -> Arc<LazyVolume> {
    let mut sealed = Sealed::new(&**below, before, after);
    sealed.boot = boot.map(<[_]>::to_vec);
    let asked = Capture { branch: Some(head(1).branch), ..request(None) };
    bench.volumes.capture_changes(below, &sealed, asked).await.unwrap().1
}

/// A version with a boot set that was scattered.
async fn booted(bench: &Bench) -> (Arc<LazyVolume>, Model, Vec<BlockPlace>) {
    let (model, boot) = scattered();
    let below = bench.volumes.open(bench.captured(&model).await).await.unwrap();
    let booted = next(bench, &below, [&model; 2], Some(&boot)).await;
    (booted, model, boot)
}

fn places(volume: &LazyVolume) -> Vec<BlockPlace> {
    volume.pages.boot().iter().map(|one| (one.file, one.index)).collect()
}

fn packs(volume: &LazyVolume) -> BTreeSet<PackId> {
    volume.pages.boot().iter().map(|one| one.reference.pack).collect()
}

#[tokio::test]
async fn a_wake_reads_the_boot_set_at_once_and_then_nothing() {
    for cache in [Some(4_000), None] {
        let bench = Bench::new(cache);
        let (booted, model, boot) = booted(&bench).await;
        assert_eq!((places(&booted), packs(&booted).len()), (boot.clone(), 1));
        let volumes = match cache {
            Some(blocks) => bench.elsewhere(blocks),
            None => plain(bench.store.clone()),
        };
        let volume = volumes.open(booted.version()).await.unwrap();
        bench.store.take();
        let fetched = volume.fetch_boot().await.unwrap();
        let wanted = boot.len() as u64;
        assert_eq!((fetched.blocks, fetched.fetched), (wanted, wanted));
        assert!(fetched.bytes >= (wanted - 2) * BLOCK_BYTES as u64);
        let counts =
            bench.store.take_counts([("range", "packs/"), ("range", "pages/"), ("read", "")]);
        assert_eq!(counts, [fetched.reads as usize, 1, 0]);
        assert!(fetched.reads <= 8, "{fetched:?}");
        for (file, index) in boot {
            let content = model.values().nth(file).unwrap().as_ref().unwrap();
            let wanted = content.chunks(BLOCK_BYTES).nth(index as usize).unwrap();
            assert!(volume.at_hand(file, index).unwrap() == wanted, "{file} {index}");
        }
        assert_eq!(bench.store.take(), []);
        let again = volume.fetch_boot().await.unwrap();
        assert_eq!((again.fetched, bench.store.take().len()), (0, 0), "it is here");
        assert_same(&read_all(&volume).await, &model, "and the rest");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_takes_two_round_trips() {
    let bench = Bench::new(None);
    let (booted, ..) = booted(&bench).await;
    let answer = Duration::from_millis(100);
    let pace = Pace { answer, stream: 1e12, link: 1e12 };
    let local: &LocalStore = &bench.inner;
    let volumes = plain(Arc::new(Throttled::new(Arc::new(local.clone()), pace)));
    let begun = Instant::now();
    let volume = volumes.open(booted.version()).await.unwrap();
    let fetched = volume.fetch_boot().await.unwrap();
    let took = begun.elapsed();
    assert!(fetched.fetched > 100 && took >= 2 * answer && took < 3 * answer, "{took:?}");
    // What no cache took is held for as long as a start may take, and no longer.
    let (file, index) = places(&volume)[0];
    let hash = volume.pages.boot()[0].reference.frame.hash;
    assert!(volume.at_hand(file, index).is_some() && volume.held.find(&hash).is_some());
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(volume.held.find(&hash).is_none());
}

#[tokio::test]
async fn a_boot_set_goes_on_and_costs_little() {
    let bench = Bench::new(Some(4_000));
    let (mut volume, model, boot) = booted(&bench).await;
    let copies = packs(&volume);
    // Starts that read the same, or nothing that was seen: only the version is written.
    let fewer = boot.len() - 3;
    for (seen, set) in
        [(Some(&boot[..]), &boot[..]), (None, &boot), (Some(&boot[..fewer]), &boot[..fewer])]
    {
        bench.store.take();
        volume = next(&bench, &volume, [&model; 2], seen).await;
        let written: u64 =
            bench.store.take().iter().filter(|a| a.what == "write").map(|a| a.bytes).sum();
        assert!(written < 20_000, "{written}");
        assert_eq!((places(&volume), packs(&volume)), (set.to_vec(), copies.clone()));
    }
    let boot = &boot[..fewer];
    // It is reopened, so that no page is known.
    volume = bench.volumes.open(volume.version()).await.unwrap();
    let mut after = model.clone();
    let content = after.get_mut("a").unwrap().as_mut().unwrap();
    content[..BLOCK_BYTES].fill(0);
    content[10 * BLOCK_BYTES..][..99].fill(1);
    content.truncate(500 * BLOCK_BYTES);
    let content = after.remove("b").unwrap();
    after.insert("a-b-renamed".to_owned(), content);
    let mut sealed = Sealed::new(&*volume, &model, &after);
    // The next start reads more than any did before.
    sealed.next_boot = vec![(0, 10), (0, 77)];
    let asked = Capture { branch: Some(head(1).branch), ..request(None) };
    volume = bench.volumes.capture_changes(&volume, &sealed, asked).await.unwrap().1;
    let kept = boot.iter().filter(|place| **place != (0, 0) && (place.0 == 1 || place.1 < 500));
    let kept: BTreeSet<_> = kept.copied().chain([(0, 77)]).collect();
    assert_eq!(places(&volume), kept.into_iter().collect::<Vec<_>>());
    assert_eq!(packs(&volume).len(), 3, "what changed lies elsewhere, and what no start read, too");
    let volume = bench.elsewhere(4_000).open(volume.version()).await.unwrap();
    let fetched = volume.fetch_boot().await.unwrap();
    bench.store.take();
    for (file, index) in places(&volume) {
        assert!(volume.at_hand(file, index).is_some(), "{file} {index}");
    }
    assert_eq!((bench.store.take(), fetched.fetched), (vec![], fetched.blocks));
    assert_restores(&bench.volumes, volume.version(), &after, "after").await;

    // A whole capture inherits it as well.
    let whole = tempfile::tempdir().unwrap();
    crate::volume::model::make(&after, whole.path());
    let asked = request(Some(volume.version()));
    let whole = bench.volumes.capture(whole.path(), asked).await.unwrap().id;
    let whole = bench.volumes.open(whole).await.unwrap();
    assert_eq!(whole.pages.boot(), volume.pages.boot());
}

fn collect(given_up: impl IntoIterator<Item = VersionId>) -> Collect {
    let given_up: HashSet<_> = given_up.into_iter().collect();
    Collect { mode: Mode::Run, min_age: Duration::ZERO, given_up, awaited: HashSet::new() }
}

/// A branch whose head is this version, so that it lives.
async fn keep(bench: &Bench, version: VersionId) {
    bench.volumes.create_head(&Head { version, ..head(1) }).await.unwrap();
}

async fn object(bench: &Bench, pack: PackId) -> bool {
    bench.store.size(&keys::pack(PackKind::Blocks, pack)).await.is_ok()
}

#[tokio::test]
async fn a_boot_pack_lives_with_its_versions_and_moves_when_little_of_it_is_needed() {
    let bench = Bench::new(None);
    let (first, model, boot) = booted(&bench).await;
    let copies = *packs(&first).first().unwrap();
    // The next version reads only some of them in the copies; its others are new.
    let mut after = model.clone();
    for name in ["a", "b"] {
        let content = after.get_mut(name).unwrap().as_mut().unwrap();
        (0..400).step_by(10).for_each(|block| content[block * BLOCK_BYTES] ^= 1);
    }
    let second = next(&bench, &first, [&model, &after], None).await;
    assert!(packs(&second).contains(&copies));
    keep(&bench, second.version()).await;
    let opened = bench.volumes.open(second.version()).await.unwrap();
    let below = first.description().parent.unwrap();
    for round in 0..4 {
        bench.volumes.collect(&collect([first.version(), below]), &|_| {}).await.unwrap();
        let scrubbed = bench.volumes.scrub(&|_| {}).await.unwrap();
        assert_eq!(scrubbed.damages, [], "round {round}");
    }
    assert!(bench.volumes.version(first.version()).await.is_err(), "it was given up");
    assert!(!object(&bench, copies).await, "what lives of it moved");
    let now = bench.volumes.open(second.version()).await.unwrap();
    assert_eq!(places(&now), boot);
    now.fetch_boot().await.unwrap();
    // Those that were opened before find what moved, whatever they ask for first.
    assert_eq!(opened.fetch_boot().await.unwrap().blocks, boot.len() as u64);
    assert_same(&read_all(&second).await, &after, "opened before");
    let third = next(&bench, &second, [&after, &model], None).await;
    assert_restores(&bench.volumes, third.version(), &model, "captured upon what moved").await;
}

#[tokio::test]
async fn a_version_that_was_opened_long_ago_is_captured_upon_as_it_lies_now() {
    let bench = Bench::new(None);
    let (first, model, _) = booted(&bench).await;
    let mut after = model.clone();
    let content = after.get_mut("a").unwrap().as_mut().unwrap();
    (0..520).filter(|n| n % 8 != 0).for_each(|block| content[block * BLOCK_BYTES] ^= 1);
    let second = next(&bench, &first, [&model, &after], None).await;
    // Everything of it is known, so that nothing has to be read and nothing is noticed.
    assert_same(&read_all(&second).await, &after, "second");
    keep(&bench, second.version()).await;
    let parents = [first.version(), first.description().parent.unwrap()];
    for _ in 0..4 {
        bench.volumes.collect(&collect(parents), &|_| {}).await.unwrap();
    }
    assert!(bench.volumes.version(first.version()).await.is_err(), "it was given up");
    let third = next(&bench, &second, [&after; 2], None).await;
    assert_restores(&bench.volumes, third.version(), &after, "third").await;
    assert_eq!(bench.volumes.scrub(&|_| {}).await.unwrap().damages, []);
}

#[tokio::test]
async fn upon_a_condemned_version_everything_is_stored_anew() {
    let bench = Bench::new(Some(100));
    let (first, model, boot) = booted(&bench).await;
    let second = next(&bench, &first, [&model; 2], None).await;
    keep(&bench, second.version()).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let condemn = Collect { min_age: day, ..collect([first.version()]) };
    bench.volumes.collect(&condemn, &|_| {}).await.unwrap();
    // All blocks are read: the changes bring those of the version below, too.
    let third = next(&bench, &first, [&model; 2], Some(&boot)).await;
    let [index, old] =
        [third.version(), first.version()].map(|version| bench.volumes.index(version));
    let (index, old) = (index.await.unwrap(), old.await.unwrap());
    let packs = |index: &Index| {
        let blocks = (0..2).flat_map(|file| index.blocks(file)).collect::<Vec<_>>();
        let all = blocks.into_iter().chain(index.root.boot.iter().copied());
        all.map(|one| one.reference.pack).collect::<BTreeSet<_>>()
    };
    assert!(packs(&index).is_disjoint(&packs(&old)));
    assert_eq!(places(&third), boot);
    assert_restores(&bench.volumes, third.version(), &model, "third").await;
}

#[tokio::test]
async fn a_boot_pack_that_is_damaged_or_gone_is_found_and_costs_time_only() {
    for gone in [false, true] {
        let bench = Bench::new(None);
        let (booted, model, _) = booted(&bench).await;
        keep(&bench, booted.version()).await;
        let copies = *packs(&booted).first().unwrap();
        let key = keys::pack(PackKind::Blocks, copies);
        if gone {
            bench.store.delete(&key).await.unwrap();
        } else {
            let mut object = bench.store.read(&key).await.unwrap().bytes.to_vec();
            object[100] ^= 1;
            bench.store.write(&key, object.into(), Condition::Always).await.unwrap();
        }
        let scrubbed = bench.volumes.scrub(&|_| {}).await.unwrap();
        let [damage] = &scrubbed.damages[..] else { panic!("{scrubbed:?}") };
        assert_eq!((&damage.object, damage.hurts.len()), (&key, 1), "{damage:?}");
        assert!(bench.volumes.check(booted.version()).await.is_err());
        let volume = plain(bench.store.clone()).open(booted.version()).await.unwrap();
        let error = volume.fetch_boot().await.unwrap_err().chain();
        assert!(error.contains(key.as_str()), "{error}");
        assert_same(&read_all(&volume).await, &model, "all the same");
    }
}

#[tokio::test]
async fn little_that_lies_well_is_not_copied() {
    let bench = Bench::new(Some(100));
    let model = one_file(60);
    let below = bench.volumes.open(bench.captured(&model).await).await.unwrap();
    bench.store.take();
    let boot: Vec<_> = (5..40).map(|index| (0, index)).collect();
    let volume = next(&bench, &below, [&model; 2], Some(&boot)).await;
    assert_eq!(places(&volume), boot);
    assert_eq!(bench.store.take_counts([("write", "packs/"), ("write", "versions/")]), [0, 1]);
}
