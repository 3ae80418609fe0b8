//! Tests against archives that the real mongodump wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::*;

const ALL: [&str; 3] = ["full.archive.gz", "shop.archive.gz", "parallel.archive"];

pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy-tests/golden").join(name)
}

/// The archive's bytes, not compressed.
pub(super) fn plain(name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(path(name)).unwrap();
    if name.ends_with(".gz") {
        let packed = std::mem::take(&mut bytes);
        std::io::copy(&mut flate2::read::GzDecoder::new(&*packed), &mut bytes).unwrap();
    }
    bytes
}

/// Reads everything and writes it again.
pub(super) fn rewritten(archive: &[u8], compression: Compression) -> Vec<u8> {
    let mut reader = Reader::open(archive).unwrap();
    let mut writer = Writer::new(Vec::new(), reader.prelude(), compression).unwrap();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Document { namespace, document, .. } => writer.document(namespace, document),
            Item::End { namespace, .. } => writer.end(namespace),
        }
        .unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn every_golden_archive_holds_what_contents_json_says() {
    let contents = std::fs::read(path("contents.json")).unwrap();
    let contents: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&contents).unwrap();
    for name in ALL {
        let mut reader = Reader::open(std::fs::File::open(path(name)).unwrap()).unwrap();
        let indexes: BTreeMap<String, Vec<String>> = (reader.prelude().entries.iter())
            .map(|entry| (entry.namespace.to_string(), index_names(entry)))
            .collect();
        // mongod stored and mongodump read these documents in the order of their `_id`, which is
        // the order of the digests.
        let mut digests: BTreeMap<String, Sha256> = BTreeMap::new();
        while let Some(item) = reader.next().unwrap() {
            let (Item::Document { namespace, .. } | Item::End { namespace, .. }) = &item;
            let digest = digests.entry(namespace.to_string()).or_default();
            if let Item::Document { document, .. } = item {
                digest.update(document.as_bytes());
            }
        }
        let counts: BTreeMap<String, u64> =
            reader.contents().into_iter().map(|c| (c.namespace.to_string(), c.documents)).collect();
        let mut compared = 0;
        for (namespace, expected) in &contents {
            // A view has no documents, a time-series collection only buckets.
            let elsewhere = ["shop.cheap", "shop.metrics"].contains(&namespace.as_str());
            let absent = !name.starts_with("full") && !namespace.starts_with("shop.");
            if elsewhere || absent {
                continue;
            }
            let digest = hex(&digests.remove(namespace).unwrap().finalize());
            assert_eq!(counts[namespace], expected["documents"], "{name} {namespace}");
            assert_eq!(digest, expected["sha256_of_bson_sorted_by_id"], "{name} {namespace}");
            let expected: Vec<String> =
                serde_json::from_value(expected["indexes"].clone()).unwrap();
            assert_eq!(indexes[namespace], expected, "{name} {namespace}");
            compared += 1;
        }
        assert_eq!(compared, if name.starts_with("full") { 8 } else { 6 });
        assert_eq!(counts["shop.system.buckets.metrics"], 15, "{name}");
        assert_eq!(counts["shop.cheap"], 0, "{name}");
    }
}

#[test]
fn what_was_read_is_written_back_byte_for_byte() {
    for name in ALL {
        let original = plain(name);
        let again = rewritten(&original, Compression::None);
        let same = again.iter().zip(&original).take_while(|(a, b)| a == b).count();
        assert!(again == original, "{name} differs from byte {same}");
    }
}

#[test]
fn metadata_is_written_as_mongodump_writes_it() {
    for name in ALL {
        let reader = Reader::open(std::fs::File::open(path(name)).unwrap()).unwrap();
        let entries = &reader.prelude().entries;
        assert!(entries.len() >= 8);
        for entry in entries {
            if let Some(metadata) = &entry.metadata {
                let made = Entry::new(entry.namespace.clone(), metadata.clone());
                assert_eq!(made, *entry, "{name}");
            }
        }
    }
}

#[test]
fn gzip_and_plain_and_several_members_read_the_same() {
    let original = plain("shop.archive.gz");
    let packed = rewritten(&original, Compression::Gzip);
    assert!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() < original.len() / 2);
    assert!(rewritten(&packed, Compression::None) == original);
    let halves = [gzip(&original[..100_000]), gzip(&original[100_000..])].concat();
    assert!(rewritten(&halves, Compression::None) == original);
}

#[test]
fn a_summary_counts_everything_once() {
    let summary = check(&path("full.archive.gz")).unwrap();
    assert_eq!(summary.server_version, "6.0.5");
    assert_eq!(summary.tool_version, "100.13.0");
    assert_eq!(summary.contents.len(), 13);
    assert_eq!(summary.documents, 2 + 1 + 2 + 1500 + 400 + 300 + 2000 + 2 + 50 + 15);
    assert_eq!(summary.bytes, summary.contents.iter().map(|c| c.bytes).sum::<u64>());
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn index_names(entry: &Entry) -> Vec<String> {
    let metadata = entry.metadata.clone().unwrap_or_default();
    let mut names: Vec<String> =
        metadata.indexes.iter().map(|index| index.get_str("name").unwrap().to_owned()).collect();
    names.sort();
    names
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
