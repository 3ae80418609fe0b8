//! The golden archives, and archives damaged on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bson::RawDocument;
use serde::Deserialize;

use crate::driver::Contents;

/// A golden archive's path.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// What a restore of the golden archives must hold, by `database.collection`.
pub fn expected() -> Result<BTreeMap<String, Contents>> {
    #[derive(Deserialize)]
    struct Entry {
        documents: u64,
        sha256_of_bson_sorted_by_id: String,
        indexes: Vec<String>,
    }
    let text = fs::read_to_string(golden("contents.json")).context("read contents.json")?;
    let entries: BTreeMap<String, Entry> = serde_json::from_str(&text)?;
    let contents = |entry: Entry| Contents {
        documents: entry.documents,
        digest: entry.sha256_of_bson_sorted_by_id,
        indexes: entry.indexes,
    };
    Ok(entries.into_iter().map(|(name, entry)| (name, contents(entry))).collect())
}

/// An archive in memory, not compressed, with the places that damage needs.
pub struct Archive {
    bytes: Vec<u8>,
    blocks: Vec<Block>,
}

/// A segment or an end-of-namespace mark, terminator included.
struct Block {
    start: usize,
    end: usize,
    namespace: String,
    /// Where the CRC's eight bytes are, for an end-of-namespace mark.
    crc: Option<usize>,
}

const TERMINATOR: [u8; 4] = [0xff; 4];

impl Archive {
    /// Reads a golden archive.
    pub fn read(name: &str) -> Result<Self> {
        let mut bytes = fs::read(golden(name)).with_context(|| format!("read {name}"))?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain)?;
            bytes = plain;
        }
        let mut at = 4;
        while document(&bytes, &mut at)?.is_some() {}
        let mut blocks = Vec::new();
        while at < bytes.len() {
            let start = at;
            let header = document(&bytes, &mut at)?.context("a block starts with a header")?;
            let namespace = format!("{}.{}", header.get_str("db")?, header.get_str("collection")?);
            let end_mark = header.get_bool("EOF")?;
            // The CRC is the header's last field: eight bytes before the closing zero.
            let crc = end_mark.then_some(at - 9);
            while document(&bytes, &mut at)?.is_some() {}
            blocks.push(Block { start, end: at, namespace, crc });
        }
        Ok(Self { bytes, blocks })
    }

    /// Cut inside the documents of the namespace.
    pub fn cut_in(&self, namespace: &str) -> Result<Vec<u8>> {
        let block =
            self.block(namespace, |block| block.crc.is_none() && block.end - block.start > 1000)?;
        Ok(self.bytes[..block.end - 100].to_vec())
    }

    /// With another CRC for the namespace than its documents have.
    pub fn with_wrong_crc(&self, namespace: &str) -> Result<Vec<u8>> {
        let at = self.block(namespace, |block| block.crc.is_some())?.crc.context("no CRC")?;
        let mut bytes = self.bytes.clone();
        bytes[at] ^= 1;
        Ok(bytes)
    }

    /// With the namespace in the prelude, but nothing of it behind.
    pub fn without(&self, namespace: &str) -> Result<Vec<u8>> {
        let prelude = self.blocks.first().context("an archive without blocks")?.start;
        let mut bytes = self.bytes[..prelude].to_vec();
        for block in self.blocks.iter().filter(|block| block.namespace != namespace) {
            bytes.extend_from_slice(&self.bytes[block.start..block.end]);
        }
        ensure!(bytes.len() < self.bytes.len(), "{namespace} is not in the archive");
        Ok(bytes)
    }

    fn block(&self, namespace: &str, wanted: impl Fn(&Block) -> bool) -> Result<&Block> {
        let mut of_namespace = self.blocks.iter().filter(|block| block.namespace == namespace);
        of_namespace.find(|block| wanted(block)).with_context(|| format!("no {namespace} in it"))
    }
}

/// The document at `at`, or `None` for a terminator; `at` moves behind either.
fn document<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a RawDocument>> {
    let rest = &bytes[*at..];
    let head: [u8; 4] = rest.get(..4).context("the archive ends early")?.try_into()?;
    if head == TERMINATOR {
        *at += 4;
        return Ok(None);
    }
    let length = usize::try_from(i32::from_le_bytes(head))?;
    let document = RawDocument::from_bytes(rest.get(..length).context("a document is cut")?)?;
    *at += length;
    Ok(Some(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_where_it_should_be_and_nowhere_else() {
        let archive = Archive::read("parallel.archive").unwrap();
        let orders = "shop.orders";
        let differing = |other: &[u8]| {
            assert_eq!(other.len(), archive.bytes.len());
            archive.bytes.iter().zip(other).filter(|(a, b)| a != b).count()
        };
        assert_eq!(differing(&archive.with_wrong_crc(orders).unwrap()), 1);
        let cut = archive.cut_in(orders).unwrap();
        assert!(archive.bytes.starts_with(&cut) && cut.len() < archive.bytes.len());
        let without = archive.without(orders).unwrap();
        assert!(without.len() < archive.bytes.len());
        assert!(archive.without("shop.nothing").is_err());
    }

    #[test]
    fn every_golden_archive_is_read_to_its_end() {
        for (name, namespaces) in
            [("full.archive.gz", 12), ("shop.archive.gz", 8), ("parallel.archive", 8)]
        {
            let archive = Archive::read(name).unwrap();
            let ends = archive.blocks.iter().filter(|block| block.crc.is_some()).count();
            assert!(ends >= namespaces, "{name}: {ends} namespaces end");
        }
        assert_eq!(expected().unwrap().len(), 10);
    }
}
