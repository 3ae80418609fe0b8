//! Packs read as a whole, with nothing but their ids: what scrub and garbage collection do.

use std::collections::HashMap;

use bytes::Bytes;
use zstd::bulk::Decompressor;

use super::error::VolumeError;
use super::format::FormatError;
use super::mark::Mark;
use super::pack::{HEADER_BYTES, PackKind, TRAILER_BYTES, Trailer};
use super::reference::{Encoded, Frame};
use super::{Volumes, keys};
use crate::base::blocking::blocking;
use crate::base::ids::PackId;

impl Volumes {
    /// Reads an object and verifies its table and the needed frames; gives those in their order.
    ///
    /// # Errors
    /// The first fault, with the place in the object.
    pub(super) async fn whole_pack(
        &self,
        kind: PackKind,
        id: PackId,
        needed: HashMap<u32, Mark>,
    ) -> Result<Vec<Encoded>, VolumeError> {
        let key = keys::pack(kind, id);
        let object = self.store.read(&key).await;
        let object = object.map_err(VolumeError::store(|| format!("read {key}")))?.bytes;
        blocking(move || {
            let table = table(kind, id, &object);
            let frames = table.map_err(VolumeError::damaged(&key, "its table"))?;
            verified(&object, frames, needed)
                .map_err(|(at, source)| VolumeError::damaged(&key, &format!("at {at}"))(source))
        })
        .await
    }
}

fn table(kind: PackKind, id: PackId, object: &[u8]) -> Result<Vec<Frame>, FormatError> {
    let tail = object.len().saturating_sub(TRAILER_BYTES);
    let trailer = Trailer::read(&object[tail..], object.len() as u64)?;
    let table = trailer.table();
    let table = object.get(table.start as usize..table.end as usize).unwrap_or_default();
    trailer.frames(kind, id, object.get(..HEADER_BYTES).unwrap_or_default(), table)
}

fn verified(
    object: &Bytes,
    frames: Vec<Frame>,
    mut needed: HashMap<u32, Mark>,
) -> Result<Vec<Encoded>, (u32, FormatError)> {
    let mut decompressor = Decompressor::new().map_err(|error| (0, FormatError::invalid(error)))?;
    let mut found = Vec::with_capacity(needed.len());
    for frame in frames {
        let Some(mark) = needed.remove(&frame.offset) else { continue };
        let failed = |error| (frame.offset, error);
        if mark != Mark::of(&frame) {
            let error = FormatError::invalid("its table has another frame than an index page");
            return Err(failed(error));
        }
        // The table says so, and its own reader has checked that the frames end before it.
        let bytes = object.slice(frame.offset as usize..frame.end() as usize);
        frame.decode(bytes.clone(), &mut decompressor).map_err(failed)?;
        let Frame { raw, encoding, hash, .. } = frame;
        found.push(Encoded { raw, encoding, hash, bytes });
    }
    match needed.keys().min() {
        None => Ok(found),
        Some(at) => {
            Err((*at, FormatError::invalid("its table lacks a frame that an index page has")))
        }
    }
}
