//! The cache against a trivial model, damage, and many threads.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::volume::testing::Random;

fn block(number: u64) -> (blake3::Hash, Vec<u8>) {
    let mut random = Random(number);
    let length = [BLOCK_BYTES, 10_000, 1][random.below(3)];
    let bytes: Vec<u8> =
        (0..length / 8 + 1).flat_map(|_| random.next().to_le_bytes()).take(length).collect();
    (blake3::hash(&bytes), bytes)
}

fn open(directory: &Path, blocks: u64) -> BlockCache {
    BlockCache::open(directory, blocks * BLOCK_BYTES as u64).unwrap()
}

fn held(cache: &BlockCache, number: u64) -> bool {
    let (hash, bytes) = block(number);
    match cache.read(&hash, bytes.len()) {
        Some(found) => {
            assert!(found == bytes, "block {number}");
            true
        }
        None => false,
    }
}

/// Bytes of disk under the slab.
fn on_disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(directory.join("blocks")).unwrap().blocks() * 512
}

#[test]
fn whatever_is_done_a_block_is_right_or_not_there_and_never_too_many_are() {
    for seed in 0..8 {
        let temporary = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        let (mut limit, mut most) = (8, 8);
        let mut cache = open(temporary.path(), most);
        for step in 0..600_u32 {
            let number = random.below(20) as u64;
            let (hash, bytes) = block(number);
            match random.below(40) {
                0 => {
                    (most, limit) = (4 + random.below(8) as u64, u64::MAX);
                    drop(cache);
                    cache = open(temporary.path(), most);
                }
                1 => {
                    limit = random.below(10) as u64;
                    cache.shrink_to(limit * BLOCK_BYTES as u64);
                }
                2 => {
                    // A byte somewhere in either file.
                    let name = ["blocks", "table"][random.below(2)];
                    let mut file = fs::read(temporary.path().join(name)).unwrap();
                    if !file.is_empty() {
                        let at = random.below(file.len());
                        file[at] ^= 1;
                        fs::write(temporary.path().join(name), file).unwrap();
                    }
                }
                3..20 => {
                    cache.insert(&hash, &bytes);
                    // What was damaged since it was written is found out by the next read.
                    if limit.min(most) > 0 && !held(&cache, number) {
                        cache.insert(&hash, &bytes);
                        assert!(held(&cache, number), "seed {seed}, step {step}");
                    }
                }
                _ => drop(held(&cache, number)),
            }
            let taken = cache.bytes() / BLOCK_BYTES as u64;
            assert!(taken <= limit.min(most), "seed {seed}, step {step}: {taken} of {limit}");
        }
    }
}

#[test]
fn what_was_used_stays_and_what_was_not_goes() {
    let temporary = tempfile::tempdir().unwrap();
    let cache = open(temporary.path(), 4);
    let insert = |number| {
        let (hash, bytes) = block(number);
        cache.insert(&hash, &bytes);
    };
    (0..4).for_each(insert);
    assert!(!cache.has_room());
    for number in 4..20 {
        assert!(held(&cache, 0), "it is used all the time");
        insert(number);
    }
    assert!(held(&cache, 0) && held(&cache, 19) && !held(&cache, 1));
}

#[test]
fn it_is_there_at_the_next_start_and_damage_is_not() {
    let temporary = tempfile::tempdir().unwrap();
    let fill = || {
        let cache = open(temporary.path(), 8);
        (0..8).for_each(|number| {
            let (hash, bytes) = block(number);
            cache.insert(&hash, &bytes);
        });
    };
    let count = |blocks| {
        let cache = open(temporary.path(), blocks);
        (0..8).filter(|number| held(&cache, *number)).count()
    };
    fill();
    assert_eq!(count(8), 8);
    assert_eq!((count(5), count(8)), (5, 5), "a smaller bound is kept to");
    fill();
    let [slab, table] = ["blocks", "table"].map(|name| temporary.path().join(name));
    let mut flipped = fs::read(&slab).unwrap();
    flipped[2 * BLOCK_BYTES] ^= 1;
    fs::write(&slab, flipped).unwrap();
    assert_eq!((count(8), count(8)), (7, 7));
    // Cut where a crash may cut.
    fill();
    fs::write(&slab, &fs::read(&slab).unwrap()[..3 * BLOCK_BYTES]).unwrap();
    assert_eq!(count(8), 3);
    fill();
    let whole = fs::read(&table).unwrap();
    fs::write(&table, &whole[..HEADER.len() + 3 * ENTRY_BYTES + 7]).unwrap();
    assert_eq!(count(8), 3);
    for damaged in
        [&b""[..], b"ARGN", &[0xff; 4096], &[b"ARGNCACHE".as_slice(), &[0; 999]].concat()]
    {
        fill();
        fs::write(&table, damaged).unwrap();
        assert_eq!(count(8), 0, "{damaged:?}");
        assert_eq!(on_disk(temporary.path()), 0);
    }
    fill();
    assert_eq!(count(8), 8, "and then it works again");
}

#[test]
fn disk_is_given_back() {
    let temporary = tempfile::tempdir().unwrap();
    let cache = open(temporary.path(), 32);
    for number in 0..32 {
        let (hash, bytes) = block(number);
        cache.insert(&hash, &bytes);
    }
    let before = on_disk(temporary.path());
    cache.shrink_to(8 * BLOCK_BYTES as u64);
    assert_eq!(cache.bytes(), 8 * BLOCK_BYTES as u64);
    assert!(on_disk(temporary.path()) < before / 2);
    assert_eq!((0..32).filter(|number| held(&cache, *number)).count(), 8);
    cache.shrink_to(0);
    assert_eq!((cache.bytes(), on_disk(temporary.path())), (0, 0));
    cache.shrink_to(u64::MAX);
    assert!(cache.has_room());
}

#[test]
fn where_no_part_of_a_file_can_be_freed_all_of_it_goes() {
    let temporary = tempfile::tempdir().unwrap();
    let cache = open(temporary.path(), 8);
    let fill = || {
        (0..8).for_each(|number| {
            let (hash, bytes) = block(number);
            cache.insert(&hash, &bytes);
        });
    };
    fill();
    let victims = cache.slots().set_limit(3);
    cache.empty(victims, 3);
    assert_eq!((cache.bytes(), on_disk(temporary.path())), (0, 0));
    assert!((0..8).all(|number| !held(&cache, number)));
    fill();
    assert_eq!(cache.bytes(), 3 * BLOCK_BYTES as u64);
    assert!(held(&cache, 7));
}

#[test]
fn many_use_it_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let cache = Arc::new(open(temporary.path(), 6));
    let workers = (0..8).map(|seed| {
        let cache = cache.clone();
        thread::spawn(move || {
            let mut random = Random(seed);
            let mut hits = 0;
            for _ in 0..400 {
                let number = random.below(12) as u64;
                if random.below(3) == 0 {
                    let (hash, bytes) = block(number);
                    cache.insert(&hash, &bytes);
                } else if random.below(50) == 0 {
                    cache.shrink_to((2 + random.below(5)) as u64 * BLOCK_BYTES as u64);
                } else {
                    hits += u32::from(held(&cache, number));
                }
                assert!(cache.bytes() <= 6 * BLOCK_BYTES as u64);
            }
            hits
        })
    });
    let workers: Vec<_> = workers.collect();
    let hits: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert!(hits > 100, "{hits}");
}

#[test]
fn a_table_for_ten_gigabytes_is_small() {
    let names = (0..163_840_u64).map(|n| Some(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let slots = Slots::new(163_840, names);
    assert!(slots.memory() < 16_000_000, "{}", slots.memory());
    println!("{} bytes of memory for 10 GB", slots.memory());
}
