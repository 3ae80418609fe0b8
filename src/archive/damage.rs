//! Tests that damage of every kind is an error that says what and where, never a panic.

use bson::{Document, doc, rawdoc};

use super::golden::{gzip, plain};
use super::*;

/// A small archive with everything in it: two collections that alternate, an empty one, a view, a
/// time-series collection.
fn sample() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &prelude(), Compression::None).unwrap();
    let namespace = |collection: &str| Namespace::new("d", collection);
    for n in 0..3 {
        writer.document(&namespace("a"), &rawdoc! { "_id": n, "text": "a".repeat(50) }).unwrap();
        writer.document(&namespace("b"), &rawdoc! { "_id": n }).unwrap();
        writer.document(&namespace("b"), &rawdoc! { "_id": n + 10 }).unwrap();
    }
    writer.document(&namespace("system.buckets.t"), &rawdoc! { "_id": 1 }).unwrap();
    for ended in ["a", "empty", "v", "system.buckets.t", "b"] {
        writer.end(&namespace(ended)).unwrap();
    }
    writer.finish().unwrap()
}

fn prelude() -> Prelude {
    let entry = |name: &str, kind: &str, options: Document| {
        let kind = Some(kind.to_owned());
        let collection_name = name.to_owned();
        let metadata = Metadata { options, kind, collection_name, ..Metadata::default() };
        Entry::new(Namespace::new("d", name), metadata)
    };
    let header = Header {
        concurrent_collections: 4,
        server_version: "6.0.5".to_owned(),
        tool_version: "test".to_owned(),
    };
    let entries = vec![
        entry("a", "collection", doc! {}),
        entry("b", "collection", doc! {}),
        entry("empty", "collection", doc! {}),
        entry("t", "timeseries", doc! { "timeseries": { "timeField": "t" } }),
        entry("v", "view", doc! { "viewOn": "a", "pipeline": [] }),
    ];
    Prelude { header, entries }
}

fn read(archive: &[u8]) -> Result<Vec<Contents>, ArchiveError> {
    let mut reader = Reader::open(archive)?;
    while reader.next()?.is_some() {}
    Ok(reader.contents())
}

fn check(archive: &[u8], expected: &str) {
    let error = read(archive).expect_err(expected);
    assert!(error.is_damage(), "{error}");
    let text = error.to_string();
    assert!(text.contains(expected), "`{text}` does not say `{expected}`");
}

/// The blocks of the sample as they stand behind the prelude, to be put together differently.
fn block(header: &Document, documents: &[Document]) -> Vec<u8> {
    let mut bytes = header.to_vec().unwrap();
    documents.iter().for_each(|document| bytes.extend(document.to_vec().unwrap()));
    bytes.extend([0xff; 4]);
    bytes
}

fn segment(collection: &str, documents: &[Document]) -> Vec<u8> {
    block(&doc! { "db": "d", "collection": collection, "EOF": false, "CRC": 0_i64 }, documents)
}

fn end(collection: &str, crc: i64) -> Vec<u8> {
    block(&doc! { "db": "d", "collection": collection, "EOF": true, "CRC": crc }, &[])
}

/// Magic, header, entries named so, and `blocks`.
fn archive(names: &[&str], blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0x6d, 0xe2, 0x99, 0x81];
    let header = doc! { "concurrent_collections": 1, "version": "0.1", "server_version": "6.0.5", "tool_version": "" };
    let entries: Vec<Document> = (names.iter())
        .map(|name| doc! { "db": "d", "collection": *name, "metadata": "", "size": 0, "type": "" })
        .collect();
    bytes.extend(block(&header, &entries));
    blocks.iter().for_each(|block| bytes.extend(block));
    bytes
}

#[test]
fn a_sound_archive_is_read_to_its_end() {
    let counts: Vec<u64> = read(&sample()).unwrap().iter().map(|c| c.documents).collect();
    assert_eq!(counts, [3, 6, 0, 1, 0]);
    assert_eq!(read(&gzip(&sample())).unwrap(), read(&sample()).unwrap());
    assert!(super::golden::rewritten(&sample(), Compression::None) == sample());
    // Nothing in it is nothing wrong.
    assert_eq!(read(&archive(&[], &[])).unwrap(), []);
}

#[test]
fn every_cut_is_found() {
    let (sound, packed) = (sample(), gzip(&sample()));
    for length in 0..sound.len() {
        let error = read(&sound[..length]).expect_err("cut");
        assert!(error.is_damage(), "{length}: {error}");
        let text = error.to_string();
        assert!(text.contains("cut short") || text.contains("never ends"), "{length}: {text}");
    }
    for length in 0..packed.len() {
        assert!(read(&packed[..length]).unwrap_err().is_damage(), "{length}");
    }
}

#[test]
fn every_broken_rule_is_named() {
    let one = doc! { "_id": 1 };
    let sound = |name: &str| [segment(name, &[]), end(name, 0)].concat();
    for (expected, archive) in [
        ("cut short in the middle of its first four bytes", vec![]),
        ("neither a mongodump archive nor gzip", b"PK\x03\x04 and so on".to_vec()),
        ("neither a mongodump archive nor gzip", b"{\"_id\":1}".to_vec()),
        ("gzip compression is broken", b"\x1f\x8b and no gzip behind it".to_vec()),
        ("in d.b: the namespace is missing", archive(&["a"], &[sound("a"), segment("b", &[])])),
        ("in d.a: the namespace goes on", archive(&["a"], &[sound("a"), segment("a", &[])])),
        ("in d.a: the namespace goes on", archive(&["a"], &[sound("a"), end("a", 0)])),
        ("in d.b: the namespace never ends", archive(&["a", "b"], &[sound("a")])),
        (
            "in d.a: the namespace never ends",
            archive(&["a"], &[segment("a", std::slice::from_ref(&one))]),
        ),
        (
            "in d.a: its checksum is",
            archive(&["a"], &[segment("a", std::slice::from_ref(&one)), end("a", 1)]),
        ),
        ("in d.a: the namespace is listed twice", archive(&["a", "a"], &[])),
        ("a terminator stands where", archive(&["a"], &[sound("a"), vec![0xff; 4]])),
        ("4 is no length", archive(&["a"], &[sound("a"), vec![4, 0, 0, 0]])),
        ("0 is no length", archive(&["a"], &[sound("a"), vec![0; 1024]])),
        ("4294967294 is no length", archive(&["a"], &[vec![0xfe, 0xff, 0xff, 0xff]])),
        ("16793601 is no length", archive(&["a"], &[vec![1, 0x40, 0, 1]])),
        ("is no length", archive(&["a"], &[sound("a"), archive(&[], &[])])),
        ("cut short in the middle of a document", archive(&["a"], &[vec![0, 0x40, 0, 1]])),
        ("does not end with a zero byte", archive(&["a"], &[vec![5, 0, 0, 0, 1]])),
        (
            "its key `extra` is unknown",
            archive(
                &["a"],
                &[block(
                    &doc! { "db": "d", "collection": "a", "EOF": false, "CRC": 0_i64, "extra": 1 },
                    &[],
                )],
            ),
        ),
        (
            "`CRC` has the wrong type",
            archive(
                &["a"],
                &[block(&doc! { "db": "d", "collection": "a", "EOF": false, "CRC": 0 }, &[])],
            ),
        ),
        (
            "`db`, `collection`, `EOF` or `CRC` is missing",
            archive(&["a"], &[block(&doc! { "db": "d", "collection": "a", "EOF": false }, &[])]),
        ),
        (
            "in d.a: the namespace goes on",
            archive(
                &["a"],
                &[
                    segment("a", &[]),
                    block(
                        &doc! { "db": "d", "collection": "a", "EOF": true, "CRC": 0_i64 },
                        &[one],
                    ),
                ],
            ),
        ),
        (
            "its format version is `0.2`",
            [vec![0x6d, 0xe2, 0x99, 0x81], block(&doc! { "version": "0.2" }, &[])].concat(),
        ),
        (
            "in d.x: its metadata is no Extended JSON",
            [
                vec![0x6d, 0xe2, 0x99, 0x81],
                block(
                    &doc! { "version": "0.1" },
                    &[doc! { "db": "d", "collection": "x", "metadata": "{" }],
                ),
            ]
            .concat(),
        ),
        (
            "an entry of the list of namespaces",
            [
                vec![0x6d, 0xe2, 0x99, 0x81],
                block(&doc! { "version": "0.1" }, &[doc! { "db": "d", "metadata": "" }]),
            ]
            .concat(),
        ),
    ] {
        check(&archive, expected);
    }
}

#[test]
fn the_place_of_damage_is_named() {
    let mut archive = sample();
    let text = archive.windows(4).position(|bytes| bytes == b"aaaa").unwrap();
    archive[text] ^= 1;
    match read(&archive).unwrap_err() {
        ArchiveError::Damaged { offset, namespace, damage: Damage::Checksum { .. } } => {
            assert_eq!(namespace, Some(Namespace::new("d", "a")));
            assert!(offset > text as u64 && offset < archive.len() as u64);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_broken_source_is_not_called_damage() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is on fire"))
        }
    }
    let sound = sample();
    for source in [&sound[..0], &sound[..1000], &gzip(&sound)[..300]] {
        let source = std::io::Read::chain(source, Failing);
        let mut reader = match Reader::open(source) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(matches!(error, ArchiveError::Read { .. }), "{error}");
                continue;
            }
        };
        let error = loop {
            match reader.next() {
                Ok(item) => assert!(item.is_some()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ArchiveError::Read { .. }), "{error}");
    }
}

#[test]
fn a_deeply_nested_header_does_not_exhaust_the_stack() {
    let depth = 500_000;
    let mut nested = Vec::new();
    for level in 0..depth {
        let length: i32 = (depth - level) * 8 + 5;
        nested.extend(length.to_le_bytes());
        nested.extend([3, b'a', 0]);
    }
    nested.extend(5_i32.to_le_bytes());
    nested.extend(vec![0; depth as usize + 1]);
    check(&archive(&["a"], &[nested.clone()]), "its key `a` is unknown");
    let magic = vec![0x6d, 0xe2, 0x99, 0x81];
    check(&[magic.clone(), nested.clone()].concat(), "its format version is ``");
    let header = doc! { "version": "0.1" }.to_vec().unwrap();
    check(&[magic, header, nested].concat(), "an entry of the list of namespaces");
}

#[test]
fn an_endless_list_of_namespaces_is_refused() {
    let header = doc! { "version": "0.1" }.to_vec().unwrap();
    let entry = doc! { "db": "d", "collection": "a", "metadata": "", "pad": "x".repeat(1 << 24) };
    let entry = entry.to_vec().unwrap();
    let endless = std::iter::repeat_n(&*entry, 100);
    let mut source: Box<dyn std::io::Read> = Box::new(std::io::empty());
    for part in [&[0x6d, 0xe2, 0x99, 0x81], &*header].into_iter().chain(endless) {
        source = Box::new(std::io::Read::chain(source, part));
    }
    let error = Reader::open(source).map(drop).unwrap_err();
    assert!(error.to_string().contains("list of namespaces is longer than 67108864"), "{error}");
}

#[test]
fn random_mutations_never_panic_and_never_pass_with_other_documents() {
    let sources = [sample(), gzip(&sample()), plain("shop.archive.gz")[..20_000].to_vec()];
    let sound = [read(&sample()).ok(), read(&sample()).ok(), None];
    let mut random = Random(0x5eed);
    let mut refused = 0;
    for round in 0..6000 {
        let which = round % sources.len();
        let mut bytes = sources[which].clone();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, &mut random);
        }
        match read(&bytes) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            // What stands outside of checksums (a version's text, gzip's time) may change.
            Ok(contents) => {
                let counts = |all: Vec<Contents>| -> Vec<_> {
                    all.into_iter().map(|c| (c.documents, c.bytes)).collect()
                };
                assert_eq!(Some(counts(contents)), sound[which].clone().map(counts), "{round}");
            }
        }
    }
    assert!(refused > 5000, "only {refused} were refused");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.below(256) as u8,
        2 => bytes.truncate(at + 1),
        3 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len() - 1).max(at))),
        4 => bytes.insert(at, random.below(256) as u8),
        _ => {
            let end = (at + 4).min(bytes.len());
            bytes[at..end].fill(0xff);
        }
    }
}

/// SplitMix64: the same mutations at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

#[test]
fn a_writer_refuses_what_would_be_no_archive() {
    let namespace = |collection: &str| Namespace::new("d", collection);
    let writer = || Writer::new(Vec::new(), &prelude(), Compression::None).unwrap();
    let document = rawdoc! { "_id": 1 };

    let error = writer().document(&namespace("x"), &document).unwrap_err();
    assert_eq!(
        error.to_string(),
        "write archive, in d.x: the namespace is missing from the archive's list of namespaces"
    );
    let mut ended = writer();
    ended.end(&namespace("a")).unwrap();
    let error = ended.document(&namespace("a"), &document).unwrap_err();
    assert!(error.to_string().ends_with("goes on after its end"), "{error}");
    let error = ended.finish().unwrap_err();
    assert!(error.to_string().ends_with("the namespace never ends"), "{error}");
}

#[test]
fn a_full_disk_is_named() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut writer = Writer::new(Full, &prelude(), Compression::None).unwrap();
    let document = rawdoc! { "text": "x".repeat(100_000) };
    let error = writer.document(&Namespace::new("d", "a"), &document).unwrap_err();
    assert_eq!(error.to_string(), "write archive, in d.a");
    assert!(std::error::Error::source(&error).is_some() && !error.is_damage());
}
