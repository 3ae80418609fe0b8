//! The boot set of a version in the making: which blocks, where each lies, and copies of those that
//! are scattered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tracing::warn;
use zstd::bulk::Compressor;

use super::boot::{BlockPlace, Read, carry, choose, scattered};
use super::error::VolumeError;
use super::fetch::Wanted;
use super::format::FormatError;
use super::keys;
use super::lazy::{LazyVolume, Place};
use super::page::PAGE_BLOCKS;
use super::reference::{Encoded, Reference, ZSTD_LEVEL};
use super::upload::Upload;
use crate::base::blocking::blocking;
use crate::mount::lazy::{Changes, Source};

/// Blocks that are read and copied together.
const PIECE_BLOCKS: usize = 16;

/// The boot set of `next`, the version that `changes` become; `before` is that of the version below,
/// as files of `next`. What is copied goes into `upload`.
///
/// # Errors
/// `upload` failed. That something cannot be read is none: a boot set only saves time.
pub async fn next_boot(
    next: &LazyVolume,
    read: Read,
    before: Vec<Wanted>,
    upload: &mut Upload,
) -> Result<Vec<Wanted>, VolumeError> {
    let chosen = choose(read, &before);
    let before: HashMap<BlockPlace, _> =
        before.into_iter().map(|one| ((one.file, one.index), one.reference)).collect();
    let unknown = chosen.iter().filter(|place| !before.contains_key(place));
    let unknown: BTreeSet<_> =
        unknown.map(|(file, index)| (*file, index / PAGE_BLOCKS as u64)).collect();
    let pages = next.pages();
    let unread = unknown.into_iter().filter_map(|(file, page)| pages.unread_page(file, page));
    if let Err(error) = next.load_pages(unread.collect()).await {
        warn!("leave some blocks out of a boot set: {}", error.chain());
    }
    let mut boot = Vec::with_capacity(chosen.len());
    for (file, index) in chosen {
        let before = before.get(&(file, index));
        let reference = match pages.place(file, index) {
            Place::Zero => None,
            Place::At(now) => Some(carry(before, now)),
            // Its page did not change, so neither did it.
            Place::In(_) => before.copied(),
        };
        boot.extend(reference.map(|reference| Wanted { reference, file, index }));
    }
    copy_scattered(next, &mut boot, &before, upload).await?;
    Ok(boot)
}

/// The boot set of the version below, as files of what it became.
pub fn inherited(below: &LazyVolume, changes: &dyn Changes) -> Vec<Wanted> {
    let files = 0..changes.tree().files().len();
    let now: HashMap<usize, usize> =
        files.filter_map(|file| Some((changes.origin(file)?, file))).collect();
    let boot = below.pages().boot();
    boot.iter().filter_map(|one| Some(Wanted { file: *now.get(&one.file)?, ..*one })).collect()
}

async fn copy_scattered(
    next: &LazyVolume,
    boot: &mut [Wanted],
    before: &HashMap<BlockPlace, Reference>,
    upload: &mut Upload,
) -> Result<(), VolumeError> {
    let mut places = scattered(boot, upload.packs());
    // mongod also reads some of its oplog at random, other blocks at each start: a copy is worth its
    // bytes where a start before this one read the block too.
    if !before.is_empty() {
        places.retain(|place| before.contains_key(&(boot[*place].file, boot[*place].index)));
    }
    if places.is_empty() {
        return Ok(());
    }
    upload.cut().await?;
    for some in places.chunks(PIECE_BLOCKS) {
        let read = try_join_all(some.iter().map(|place| hashed(next, boot[*place]))).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                warn!("leave a boot set scattered: {}", error.chain());
                return Ok(());
            }
        };
        let encoded = blocking(move || {
            let mut compressor = Compressor::new(ZSTD_LEVEL).map_err(FormatError::invalid)?;
            let mut encode =
                |(hash, block): &(_, Bytes)| Encoded::new(block, *hash, &mut compressor);
            read.iter().map(&mut encode).collect::<Result<Vec<_>, _>>()
        });
        let key = keys::version(next.version());
        let encoded = encoded.await.map_err(VolumeError::unwritable(&key))?;
        for (place, encoded) in some.iter().zip(&encoded) {
            boot[*place].reference = upload.block(encoded).await?;
        }
    }
    Ok(())
}

async fn hashed(
    next: &LazyVolume,
    block: Wanted,
) -> Result<(blake3::Hash, Bytes), Arc<VolumeError>> {
    Ok((block.reference.frame.hash, next.frame(block).await?))
}
