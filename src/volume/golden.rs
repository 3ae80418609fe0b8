//! The examples in `data/golden/`: a small store, byte for byte.
//!
//! `ARGON_WRITE_GOLDEN=1 cargo test -p argon volume::golden` writes them anew; the difference then
//! shows what a change did to the formats.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use zstd::bulk::Compressor;

use super::condemned::Condemned;
use super::envelope::{self, Kind};
use super::fetch::Wanted;
use super::hostile;
use super::pack::{PackKind, PackWriter};
use super::page::{PAGE_COVERS, Page};
use super::pin::Pin;
use super::reference::{Encoded, Reference, ZSTD_LEVEL};
use super::testing::{head, server_lease, volumes};
use super::version::Root;
use super::{
    Cause, Head, LAYOUT, Marker, MongodVersion, Origin, Project, ServerLease, Version, keys,
};
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, PackId, ProjectId, ServerId, VersionId};
use crate::base::limits::BLOCK_BYTES;
use crate::base::own_time::OwnTime;
use crate::base::retention::{Retention, Thinning};
use crate::mount::{DirectoryEntry, FileEntry, Tree, VolumePath, walk};
use crate::store::{Condition, Key, Store};

const LARGE_BYTES: u64 = 2 * PAGE_COVERS + 70_000;

fn project() -> Project {
    Project {
        id: ProjectId::from_bytes([2; 16]),
        name: "shop".parse().unwrap(),
        created: Timestamp::from_unix_ms(1_700_000_000_000),
        base: Some(VersionId::from_bytes([3; 16])),
        retention: Retention {
            periodic: Thinning::from_ms([1_800_000, 43_200_000, 604_800_000]),
            ..Retention::from_ms(Some(100), Some(2_592_000_000), Some(604_800_000))
        },
        image: None,
    }
}

fn full_head() -> Head {
    let (branch, version) = (BranchId::from_bytes([5; 16]), VersionId::from_bytes([3; 16]));
    Head {
        owner: Some(ServerId::from_bytes([4; 16])),
        deleted: Some(Timestamp::from_unix_ms(1_700_000_999_000)),
        origin: Some(Origin { branch, version }),
        idle_timeout: OwnTime::Off,
        snapshot_every: OwnTime::Time(Duration::from_secs(5)),
        keep_warm: OwnTime::Off,
        ..head(7)
    }
}

fn full_lease() -> ServerLease {
    ServerLease { fenced_by: Some(ServerId::from_bytes([10; 16])), ..server_lease() }
}

fn pin() -> Pin {
    let version = VersionId::from_bytes([3; 16]);
    Pin { version, created: Timestamp::from_unix_ms(1_700_000_600_000) }
}

fn condemned() -> Condemned {
    let entry = |key: &str, ms| (key.parse().unwrap(), Timestamp::from_unix_ms(ms));
    let versions = format!("versions/{}", VersionId::from_bytes([9; 16]));
    let packs = format!("packs/{}", PackId::from_bytes([9; 16]));
    Condemned {
        ran: Timestamp::from_unix_ms(1_700_000_900_000),
        since: [entry(&packs, 1_700_000_900_001), entry(&versions, 1_700_000_800_000)].into(),
    }
}

/// The files of the example's volume: one small, one that has pages with and without blocks.
fn files() -> [(&'static str, Vec<u8>); 2] {
    let mut large = vec![0; LARGE_BYTES as usize];
    for at in [0, 2 * BLOCK_BYTES, 2 * PAGE_COVERS as usize] {
        large[at..at + 3].copy_from_slice(b"wt!");
    }
    large[LARGE_BYTES as usize - 1] = b'.';
    [("collection.wt", large), ("journal/log", b"x".to_vec())]
}

struct Example {
    objects: BTreeMap<Key, Bytes>,
    root: Root,
}

/// The example, built by the same writers as every other store, with fixed ids and times.
fn example() -> Example {
    let mut packs = PackWriter::new(PackKind::Blocks, PackId::from_bytes([6; 16]));
    let mut pages = PackWriter::new(PackKind::Pages, PackId::from_bytes([7; 16]));
    let mut compressor = Compressor::new(ZSTD_LEVEL).unwrap();
    let mut encode =
        |bytes: &[u8]| Encoded::new(bytes, blake3::hash(bytes), &mut compressor).unwrap();
    let mut references: Vec<Vec<Option<Reference>>> = Vec::new();
    let mut firsts: Vec<Reference> = Vec::new();
    for (_, content) in files() {
        let of_file = content.chunks(PAGE_COVERS as usize).map(|stretch| {
            let blocks = stretch.chunks(BLOCK_BYTES);
            let zeroes = [0; BLOCK_BYTES];
            let slots = blocks
                .map(|block| (block != &zeroes[..block.len()]).then(|| packs.push(&encode(block))));
            let slots: Vec<_> = slots.collect();
            firsts.extend(slots[0]);
            let page = Page::new(stretch.len() as u32, slots);
            (!page.is_zero()).then(|| pages.push(&encode(&page.encode())))
        });
        references.push(of_file.collect());
    }
    // The first block of the large file where it is, and its third one again in a pack of its own.
    let mut again = PackWriter::new(PackKind::Blocks, PackId::from_bytes([11; 16]));
    let third = encode(&files()[0].1[2 * BLOCK_BYTES..3 * BLOCK_BYTES]);
    let boot = [(0, firsts[0]), (2, again.push(&third))];
    let boot = boot.map(|(index, reference)| Wanted { reference, file: 0, index }).to_vec();
    let path = |text| VolumePath::new(text).unwrap();
    let directories = ["_tmp", "journal"];
    let directories =
        directories.map(|name| DirectoryEntry { path: path(name), mode: 0o700 }).to_vec();
    let entries = files().map(|(name, content)| FileEntry {
        path: path(name),
        mode: 0o600,
        bytes: content.len() as u64,
    });
    let tree = Tree::new(directories, entries.to_vec()).unwrap();
    let version = Version {
        id: VersionId::from_bytes([3; 16]),
        parent: Some(VersionId::from_bytes([8; 16])),
        branch: Some(BranchId::from_bytes([1; 16])),
        cause: Cause::Suspend,
        label: Some("before the sale".to_owned()),
        created: Timestamp::from_unix_ms(1_700_000_500_000),
        mongod: MongodVersion { version: "6.0.5".to_owned(), fcv: "6.0".to_owned(), image: None },
        total_bytes: LARGE_BYTES + 1,
        new_bytes: 3 * BLOCK_BYTES as u64 + 4_465,
        stored_bytes: 1_234,
    };
    let root = Root { version, tree, pages: references, boot };
    let objects = BTreeMap::from([
        (keys::marker(), envelope::seal(Kind::Format, &Marker { layout: LAYOUT }).unwrap()),
        (keys::condemned(), condemned().seal().unwrap()),
        (keys::project(project().id), envelope::seal(Kind::Project, &project()).unwrap()),
        (keys::head(full_head().branch), full_head().seal().unwrap()),
        (keys::version(root.version.id), root.seal().unwrap()),
        (keys::server(full_lease().server), envelope::seal(Kind::Server, &full_lease()).unwrap()),
        (keys::pin(pin().version), envelope::seal(Kind::Pin, &pin()).unwrap()),
        (keys::pack(PackKind::Blocks, packs.id()), packs.finish()),
        (keys::pack(PackKind::Blocks, again.id()), again.finish()),
        (keys::pack(PackKind::Pages, pages.id()), pages.finish()),
    ]);
    Example { objects, root }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden")
}

#[test]
fn what_is_written_is_exactly_the_golden_files() {
    let Example { objects, .. } = example();
    for (key, object) in &objects {
        let path = golden().join(key.as_str());
        if std::env::var_os("ARGON_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, object).unwrap();
        }
        let golden = fs::read(&path).unwrap_or_default();
        assert!(golden == *object, "{key} differs from {}", path.display());
    }
    let tree = walk(&golden()).unwrap();
    let names: Vec<_> = tree.files().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, objects.keys().map(Key::as_str).collect::<Vec<_>>(), "no file is left over");
}

#[tokio::test]
async fn the_golden_files_are_read_as_what_was_written() {
    let (volumes, store) = volumes();
    let Example { objects, root } = example();
    for key in objects.keys() {
        let golden = fs::read(golden().join(key.as_str())).unwrap();
        store.write(key, golden.into(), Condition::Absent).await.unwrap();
    }
    volumes.prepare().await.unwrap();
    assert_eq!(volumes.projects().await.unwrap(), [project()]);
    assert_eq!(volumes.head(full_head().branch).await.unwrap().0, full_head());
    assert_eq!(volumes.heads().await.unwrap(), [full_head()]);
    assert_eq!(volumes.version_ids().await.unwrap(), [root.version.id]);
    assert_eq!(volumes.pins().await.unwrap(), [root.version.id]);
    assert_eq!(volumes.condemned().await.unwrap().unwrap().0, condemned());
    let pinned: Pin = envelope::open(Kind::Pin, &objects[&keys::pin(pin().version)]).unwrap();
    assert_eq!(pinned, pin());
    assert_eq!(volumes.root(root.version.id).await.unwrap(), root);
    let (lease, _) = volumes.server_lease(full_lease().server).await.unwrap().unwrap();
    assert_eq!(lease, full_lease());
    assert_eq!(volumes.check(root.version.id).await.unwrap().objects, 3);

    let temporary = tempfile::tempdir().unwrap();
    volumes.restore(root.version.id, temporary.path()).await.unwrap();
    assert_eq!(walk(temporary.path()).unwrap(), root.tree);
    for (name, content) in files() {
        assert!(fs::read(temporary.path().join(name)).unwrap() == content, "{name}");
    }
}

#[test]
fn documents_have_the_types_of_the_format() {
    use bson::spec::ElementType::{Array, Binary, EmbeddedDocument, Int32, Int64, String};
    let Example { objects, root } = example();
    let check = |kind, key: &Key, wanted: &[(&str, bson::spec::ElementType)]| {
        let document: bson::Document = envelope::open(kind, &objects[key]).unwrap();
        let found: Vec<_> =
            document.iter().map(|(name, value)| (name.as_str(), value.element_type())).collect();
        assert_eq!(found, wanted);
        document
    };
    check(Kind::Format, &keys::marker(), &[("layout", Int32)]);
    let fields = [
        ("id", String),
        ("name", String),
        ("created_ms", Int64),
        ("base", String),
        ("retention", EmbeddedDocument),
    ];
    let found = check(Kind::Project, &keys::project(project().id), &fields);
    let rules = found.get_document("retention").unwrap();
    let found: Vec<_> = rules.iter().map(|(name, v)| (name.as_str(), v.element_type())).collect();
    let fields = [
        ("keep_last", Int64),
        ("keep_for_ms", Int64),
        ("keep_deleted_ms", Int64),
        ("periodic", EmbeddedDocument),
    ];
    assert_eq!(found, fields);
    let periodic = rules.get_document("periodic").unwrap();
    let found: Vec<_> =
        periodic.iter().map(|(name, v)| (name.as_str(), v.element_type())).collect();
    assert_eq!(found, [("all_ms", Int64), ("minutes_ms", Int64), ("hours_ms", Int64)]);
    let fields = [
        ("branch", String),
        ("branch_name", String),
        ("project", String),
        ("project_name", String),
        ("version", String),
        ("epoch", Int64),
        ("owner", String),
        ("created_ms", Int64),
        ("deleted_ms", Int64),
        ("origin", EmbeddedDocument),
        ("idle_timeout_ms", Int64),
        ("snapshot_every_ms", Int64),
        ("keep_warm_ms", Int64),
    ];
    check(Kind::Head, &keys::head(full_head().branch), &fields);
    let fields = [
        ("server", String),
        ("session", String),
        ("address", String),
        ("term", Int64),
        ("renewals", Int64),
        ("ttl_ms", Int64),
        ("fenced_by", String),
    ];
    check(Kind::Server, &keys::server(full_lease().server), &fields);
    let fields = [
        ("id", String),
        ("parent", String),
        ("branch", String),
        ("cause", String),
        ("label", String),
        ("created_ms", Int64),
        ("mongod", EmbeddedDocument),
        ("total_bytes", Int64),
        ("new_bytes", Int64),
        ("stored_bytes", Int64),
        ("directories", Array),
        ("files", Array),
        ("boot", Binary),
        ("boot_blocks", Binary),
    ];
    let list = check(Kind::Condemned, &keys::condemned(), &[("ran_ms", Int64), ("objects", Array)]);
    let entry = list.get_array("objects").unwrap()[0].as_document().unwrap();
    let found: Vec<_> = entry.iter().map(|(name, v)| (name.as_str(), v.element_type())).collect();
    assert_eq!(found, [("key", String), ("since_ms", Int64)]);
    check(Kind::Pin, &keys::pin(pin().version), &[("version", String), ("created_ms", Int64)]);
    let version = check(Kind::Version, &keys::version(root.version.id), &fields);
    let file = version.get_array("files").unwrap()[0].as_document().unwrap();
    let found: Vec<_> = file.iter().map(|(name, v)| (name.as_str(), v.element_type())).collect();
    assert_eq!(found, [("path", String), ("mode", Int32), ("bytes", Int64), ("pages", Binary)]);
}

#[test]
fn a_root_document_changed_anywhere_never_panics() {
    let Example { objects, root } = example();
    let object = &objects[&keys::version(root.version.id)];
    let document: bson::Document = envelope::open(Kind::Version, object).unwrap();
    let bytes = bson::serialize_to_vec(&document).unwrap();
    assert_eq!(Root::open(root.version.id, &hostile::envelope(*b"VERS", 1, &bytes)), Ok(root));
    let mut refused = 0;
    for at in 0..bytes.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 0x20] {
            let mut changed = bytes.clone();
            changed[at] = byte;
            let forged = hostile::envelope(*b"VERS", 1, &changed);
            let id = VersionId::from_bytes([3; 16]);
            refused += usize::from(Root::open(id, &forged).is_err());
        }
    }
    // Times, sizes, labels and hashes may be any; most of the rest may not.
    assert!(refused > bytes.len() * 2, "{refused} of {}", bytes.len() * 6);
}
