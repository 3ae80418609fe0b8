//! Bytes that do not compress: what compresses would make others look few.

use anyhow::{Context, Result};
use bson::{Binary, Document, doc, spec::BinarySubtype};
use mongodb::Collection;

/// What each document of [`fill`] holds.
pub const DOCUMENT_BYTES: usize = 10_000;

/// Fills a collection with documents of [`DOCUMENT_BYTES`], numbered from 0 by `_id`.
pub async fn fill(into: &Collection<Document>, bytes: u64) -> Result<()> {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let all = bytes / DOCUMENT_BYTES as u64;
    for first in (0..all).step_by(1_000) {
        let some = (first..all.min(first + 1_000))
            .map(|number| doc! { "_id": number as i64, "noise": noise.bytes(DOCUMENT_BYTES) });
        into.insert_many(some).await.context("fill the branch")?;
    }
    Ok(())
}

/// xorshift64*
#[derive(Debug)]
pub struct Noise(pub u64);

impl Noise {
    /// The next ones.
    pub fn bytes(&mut self, count: usize) -> Binary {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            bytes.extend(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        bytes.truncate(count);
        Binary { subtype: BinarySubtype::Generic, bytes }
    }
}
