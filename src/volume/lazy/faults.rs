//! Lazy volumes on a store with faults: what cannot be had is an error that says so, never zeroes.

use std::sync::Arc;

use super::bench::{Bench, plain, read_all};
use super::*;
use crate::store::faults::{Call, Fault, Faults};
use crate::store::{Condition, Store};
use crate::volume::lazy::tests::one_file;
use crate::volume::model::{assert_restores, assert_same};
use crate::volume::sealed::Sealed;
use crate::volume::testing::request;
use crate::volume::{BlockCache, keys};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_right_or_fails_and_the_next_one_succeeds() {
    for cache in [None, Some(8)] {
        let bench = Bench::new(None);
        let model = one_file(40);
        let version = bench.captured(&model).await;
        let faults = Faults::new(bench.store.clone(), 1);
        for fault in Fault::ALL {
            for number in 1..6 {
                let volumes = match cache {
                    None => plain(faults.clone()),
                    Some(blocks) => {
                        let place = tempfile::tempdir().unwrap();
                        let bytes = blocks * BLOCK_BYTES as u64;
                        let cache = BlockCache::open(place.path(), bytes).unwrap();
                        plain(faults.clone()).with_cache(Arc::new(cache))
                    }
                };
                faults.once(Call::Read, number, fault);
                let what = format!("{fault:?} at {number}");
                let Ok(volume) = volumes.open(version).await else {
                    faults.calm();
                    continue;
                };
                for index in (0..40).rev().step_by(3) {
                    match volume.block(0, index).await {
                        Ok(block) => {
                            let wanted = model["a"].as_ref().unwrap().chunks(BLOCK_BYTES);
                            assert!(block == wanted.into_iter().nth(index as usize).unwrap());
                        }
                        Err(error) => {
                            let text = error.to_string();
                            let named = text.contains("of file `a`") && text.contains("asked");
                            let short = text.contains("bytes stand where");
                            assert!(named || short, "{what}: {text}");
                        }
                    }
                }
                faults.calm();
                assert_same(&read_all(&volume).await, &model, &what);
            }
        }
    }
}

#[tokio::test]
async fn what_is_lost_or_damaged_is_named_and_hurts_nothing_beside_it() {
    let bench = Bench::new(None);
    let model = one_file(10);
    let version = bench.captured(&model).await;
    let index = bench.volumes.index(version).await.unwrap();
    let blocks: Vec<_> = index.blocks(0).collect();
    let key = keys::pack(PackKind::Blocks, blocks[0].reference.pack);
    let whole = bench.store.read(&key).await.unwrap().bytes;
    let put = async |bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        bench.store.write(&key, bytes, Condition::Always).await.unwrap();
        plain(bench.store.clone()).open(version).await.unwrap()
    };
    // A bit of the third block: those around it, which are read together, are whole.
    let mut damaged = whole.to_vec();
    damaged[blocks[2].reference.frame.offset as usize + 5] ^= 1;
    let volume = put(&damaged).await;
    for index in [1, 2, 0, 3, 9] {
        match volume.block(0, index).await {
            Ok(block) => assert!(index != 2 && block.len() == BLOCK_BYTES),
            Err(error) => {
                let text = error.to_string();
                assert!(index == 2 && text.contains("block 2 of file `a`"), "{text}");
                assert!(text.contains(key.as_str()) && text.contains("checksum"), "{text}");
            }
        }
    }
    // Cut within the third block.
    let volume = put(&whole[..blocks[2].reference.frame.offset as usize + 5]).await;
    assert!(volume.block(0, 0).await.is_ok() && volume.block(0, 1).await.is_ok());
    let text = volume.block(0, 2).await.unwrap_err().to_string();
    assert!(text.contains("block 2 of file `a`") && text.contains("too few"), "{text}");
    // Gone.
    let volume = put(&whole).await;
    bench.store.delete(&key).await.unwrap();
    let text = volume.block(0, 0).await.unwrap_err().to_string();
    assert!(text.contains(key.as_str()) && text.contains("does not exist"), "{text}");
    assert_eq!(volume.at_hand(0, 0), None);
    bench.store.delete(&keys::version(version)).await.unwrap();
    let text = volume.block(0, 0).await.unwrap_err().to_string();
    assert!(text.contains("version") && text.contains("does not exist"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_of_changes_survives_every_fault() {
    let bench = Bench::new(None);
    let before = one_file(270);
    let version = bench.captured(&before).await;
    let mut after = before.clone();
    let content = after.get_mut("a").unwrap().as_mut().unwrap();
    (0..90).for_each(|block| content[3 * block * BLOCK_BYTES] ^= 1);
    let faults = Faults::new(bench.store.clone(), 1);
    for call in [Call::Read, Call::Write] {
        for fault in Fault::ALL {
            for number in 1.. {
                let volumes = plain(faults.clone());
                let below = volumes.open(version).await.unwrap();
                let mut sealed = Sealed::new(&*below, &before, &after);
                sealed.boot = Some((0..270).step_by(10).map(|index| (0, index)).collect());
                let asked = request(None);
                faults.once(call, number, fault);
                let captured = volumes.capture_changes(&below, &sealed, asked.clone()).await;
                let came = !faults.calm();
                let what = format!("{fault:?} at {call:?} {number}");
                match captured {
                    Ok((version, lazy)) => {
                        assert_same(&read_all(&lazy).await, &after, &what);
                        assert_restores(&volumes, version.id, &after, &what).await;
                    }
                    Err(error) => {
                        assert!(came, "{what}: {error}");
                        // Whole, or not there.
                        if volumes.version(asked.id).await.is_ok() {
                            assert_restores(&volumes, asked.id, &after, &what).await;
                        }
                    }
                }
                if !came || number > 6 {
                    break;
                }
            }
        }
    }
    assert_restores(&bench.volumes, version, &before, "the one below").await;
}
