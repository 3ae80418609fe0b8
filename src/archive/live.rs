//! Tests over a real mongod: what is loaded is what the archive holds, and what is dumped too.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bson::{Document, RawDocumentBuf, Timestamp, doc, rawdoc};
use sha2::{Digest, Sha256};

use super::golden::{hex, path};
use super::*;
use crate::compute::mongod::Search;
use crate::compute::{Cell, Choice, Compute, Instance, ProcessCompute};
use crate::wire::{Client, InsertOptions};

/// A mongod of its own, gone with its data when it is dropped.
pub(super) struct Server {
    _instance: Arc<dyn Instance>,
    /// The mongod dies with the thread that forked it, which lives in here.
    _compute: ProcessCompute,
    dir: tempfile::TempDir,
    pub(super) client: Client,
}

impl Server {
    pub(super) async fn start() -> Self {
        let search = || Search::of_this_process(None).unwrap().find_or_fetch(&mut |_| {}).unwrap();
        let mongod = tokio::task::spawn_blocking(search).await.unwrap();
        let compute = ProcessCompute::new(mongod).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (dbpath, socket_dir) = (dir.path().join("db"), dir.path().join("run"));
        for dir in [&dbpath, &socket_dir] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let log = dir.path().join("mongod.log");
        let owner = Default::default();
        let cell = Cell {
            dbpath,
            socket_dir,
            log,
            cache_gb: 0.25,
            oplog_mb: 64,
            owner,
            mongod: Choice::Server,
        };
        let instance = compute.start(cell).await.unwrap();
        let client = Client::connect(instance.socket()).await.unwrap();
        Self { _instance: instance, _compute: compute, dir, client }
    }

    pub(super) async fn command(&mut self, db: &str, command: Document) -> Document {
        self.client.command(db, command).await.unwrap()
    }

    pub(super) async fn all(&mut self, db: &str, command: RawDocumentBuf) -> Vec<RawDocumentBuf> {
        self.client.cursor(db, &command).await.unwrap().collect().await.unwrap()
    }

    async fn load(&mut self, archive: &[u8]) -> Result<Loaded, ArchiveError> {
        let path = self.dir.path().join("archive");
        std::fs::write(&path, archive).unwrap();
        load(&path, &mut self.client).await
    }

    async fn dump(&mut self, compression: Compression) -> (Dumped, Vec<u8>) {
        let into = Shared::default();
        let dumped = dump(&mut self.client, into.clone(), compression).await.unwrap();
        let bytes = std::mem::take(&mut *into.0.lock().unwrap());
        (dumped, bytes)
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Metadata and digest of every namespace; the UUID is the server's own.
fn holdings(archive: &[u8]) -> BTreeMap<String, (Option<Metadata>, String)> {
    let mut reader = Reader::open(archive).unwrap();
    let metadata: Vec<_> = (reader.prelude().entries.iter())
        .map(|entry| entry.metadata.clone().map(|m| Metadata { uuid: None, ..m }))
        .collect();
    let mut digests = vec![Sha256::new(); metadata.len()];
    let mut holdings = BTreeMap::new();
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Document { entry, document, .. } => digests[entry].update(document.as_bytes()),
            Item::End { entry, namespace } => {
                let digest = hex(&digests[entry].clone().finalize());
                holdings.insert(namespace.to_string(), (metadata[entry].clone(), digest));
            }
        }
    }
    holdings
}

async fn check_contents(server: &mut Server, only: &str) {
    let contents = std::fs::read(path("contents.json")).unwrap();
    let contents: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&contents).unwrap();
    let mut compared = 0;
    for (name, expected) in contents.iter().filter(|(name, _)| name.starts_with(only)) {
        let (db, collection) = name.split_once('.').unwrap();
        let documents = server.all(db, rawdoc! { "find": collection, "sort": { "_id": 1 } }).await;
        assert_eq!(documents.len() as u64, expected["documents"], "{name}");
        if collection != "metrics" {
            let mut digest = Sha256::new();
            documents.iter().for_each(|document| digest.update(document.as_bytes()));
            let digest = hex(&digest.finalize());
            assert_eq!(digest, expected["sha256_of_bson_sorted_by_id"], "{name}");
        }
        if collection != "cheap" {
            let indexes = server.all(db, rawdoc! { "listIndexes": collection }).await;
            let mut names: Vec<_> = indexes.iter().map(|i| i.get_str("name").unwrap()).collect();
            names.sort_unstable();
            let expected: Vec<&str> = expected["indexes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_str().unwrap())
                .collect();
            assert_eq!(names, expected, "{name}");
        }
        compared += 1;
    }
    assert!(compared >= 8);
}

#[tokio::test]
async fn every_golden_archive_is_restored_exactly_and_dumped_again() {
    for (name, only, accounts) in [
        ("full.archive.gz", "", 3),
        ("shop.archive.gz", "shop.", 2),
        ("parallel.archive", "shop.", 0),
    ] {
        let mut server = Server::start().await;
        let original = std::fs::read(path(name)).unwrap();
        let loaded = load(&path(name), &mut server.client).await.unwrap();
        assert_eq!((loaded.views, loaded.accounts), (1, accounts), "{name}");
        assert_eq!(loaded.skipped, [], "{name}");
        check_contents(&mut server, only).await;

        let (dumped, again) = server.dump(Compression::Gzip).await;
        let (mut expected, mut found) = (holdings(&original), holdings(&again));
        assert_eq!(dumped.namespaces as usize, found.len());
        // A dump of one database has its users under another name, and a server without users has
        // no collection for them; its own version is always there.
        for accounts in ["system.users", "system.roles", "system.version"] {
            let same_name = expected.remove(&format!("admin.{accounts}"));
            let of_one = expected.remove(&format!("shop.$admin.{accounts}"));
            let restored = found.remove(&format!("admin.{accounts}"));
            let digest = |(_, digest): (Option<Metadata>, String)| digest;
            match same_name.or(of_one) {
                Some(original) if accounts != "system.version" => {
                    assert_eq!(restored.map(digest), Some(digest(original)), "{name} {accounts}");
                }
                _ => assert_eq!(restored.is_some(), accounts == "system.version", "{name}"),
            }
        }
        assert_eq!(found, expected, "{name}");
        let left = server.all("admin", rawdoc! { "listCollections": 1, "nameOnly": true }).await;
        assert!(left.iter().all(|c| c.get_str("name").unwrap().starts_with("system.")));
    }
}

#[tokio::test]
async fn restored_users_can_log_in_and_options_hold() {
    let mut server = Server::start().await;
    load(&path("full.archive.gz"), &mut server.client).await.unwrap();
    let users = server.command("shop", doc! { "usersInfo": "audit" }).await;
    let user = users.get_array("users").unwrap()[0].as_document().unwrap();
    let role = doc! { "role": "auditor", "db": "shop" };
    assert_eq!(user.get_array("roles").unwrap(), &vec![role.into()]);
    // SCRAM begins: the server knows the user's salt and count.
    let bytes = b"n,,n=audit,r=0123456789012345678901234".to_vec();
    let payload = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes };
    let start = doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": payload };
    let reply = server.command("shop", start).await;
    let payload = String::from_utf8(reply.get_binary_generic("payload").unwrap().clone()).unwrap();
    assert!(payload.contains("s=48lvjzxpIdA3SC+5Eovv9du2nmpgHdg16KQYsw==,i=15000"), "{payload}");
    // The validator refuses, the unique index refuses, what is right goes in.
    let product = server.all("shop", rawdoc! { "find": "products", "limit": 1 }).await;
    let sku = product[0].get_str("sku").unwrap();
    for (collection, document, code) in [
        ("orders", doc! { "no": "items" }, 121),
        ("products", doc! { "_id": -1, "sku": sku }, 11000),
        ("products", doc! { "_id": -1, "sku": "new" }, 0),
    ] {
        let insert = doc! { "insert": collection, "documents": [document] };
        let reply = server.command("shop", insert).await;
        let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        let found = errors.first().map_or(0, |e| e.as_document().unwrap().get_i32("code").unwrap());
        assert_eq!(found, code, "{collection}");
    }
}

#[tokio::test]
async fn what_our_dump_writes_our_load_restores() {
    let mut source = Server::start().await;
    let zero = Timestamp { time: 0, increment: 0 };
    // An empty timestamp at the top is what an insert would change.
    let entry =
        rawdoc! { "op": "i", "ns": "d.odd", "o": { "_id": 1, "ts": zero, "in": { "ts": zero } } };
    source.client.checked("admin", &rawdoc! { "create": "notes" }).await.unwrap();
    source.command("d", doc! { "create": "odd" }).await;
    source.client.checked("admin", &rawdoc! { "applyOps": [entry] }).await.unwrap();
    let mut twice = rawdoc! { "_id": 2, "b": 1 };
    twice.append(bson::raw::cstr!("b"), 2);
    let documents = [twice, rawdoc! { "_id": 3 }];
    source.client.insert("d", "odd", &documents, InsertOptions::default()).await.unwrap();
    for n in 0..30 {
        let large = rawdoc! { "_id": n, "x": "x".repeat(1024 * 1024) };
        source.client.insert("d", "large", &[large], InsertOptions::default()).await.unwrap();
    }
    for (db, command) in [
        ("d", doc! { "create": "name with spaces, ünïcode and.dots" }),
        ("d", doc! { "create": "system.js" }),
        (
            "d",
            doc! { "insert": "system.js", "documents": [{ "_id": "f", "value": bson::Bson::JavaScriptCode("function(){}".into()) }] },
        ),
        (
            "d",
            doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true }, "expireAfterSeconds": 1_000_000_i64 },
        ),
        ("d", doc! { "create": "images", "changeStreamPreAndPostImages": { "enabled": true } }),
        ("d", doc! { "create": "w", "viewOn": "v", "pipeline": [] }),
        (
            "d",
            doc! { "create": "v", "viewOn": "odd", "pipeline": [{ "$match": { "_id": { "$gte": 2 } } }] },
        ),
        (
            "d",
            doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" }, "expireAfterSeconds": 100_000_000_i64 },
        ),
        (
            "d",
            doc! { "insert": "series", "documents": [{ "t": bson::DateTime::from_millis(1_800_000_000_000), "m": 1, "v": 2 }] },
        ),
        (
            "d",
            doc! { "createIndexes": "series", "indexes": [{ "key": { "m": 1, "t": -1 }, "name": "mt" }] },
        ),
        (
            "d",
            doc! { "createIndexes": "odd", "indexes": [
                { "key": { "b": 1 }, "name": "sparse", "sparse": true, "hidden": true },
                { "key": { "h": "hashed" }, "name": "h" },
                { "key": { "$**": 1 }, "name": "w", "wildcardProjection": { "a": 1 } },
                { "key": { "p": 1 }, "name": "p", "partialFilterExpression": { "at": { "$lt": bson::DateTime::from_millis(5) } } },
            ] },
        ),
        ("d", doc! { "createUser": "u", "pwd": "p", "roles": ["readWrite"] }),
    ] {
        source.command(db, command).await;
    }
    let (dumped, archive) = source.dump(Compression::None).await;
    let reader = Reader::open(&*archive).unwrap();
    let names: Vec<String> =
        reader.prelude().entries.iter().map(|entry| entry.namespace.to_string()).collect();
    assert_eq!(names[0], "admin.notes");
    assert_eq!(names[names.len() - 2..], ["admin.system.users", "admin.system.version"]);
    assert_eq!(dumped.documents, 1 + 2 + 30 + 1 + 1 + 1 + 2);

    for Entry { namespace, metadata, .. } in &reader.prelude().entries {
        let filter = rawdoc! { "name": &*namespace.collection };
        let list = rawdoc! { "listCollections": 1, "filter": filter };
        let listed = source.all(&namespace.db, list).await;
        let uuid = listed[0].get_document("info").unwrap().get_binary("uuid");
        let uuid = uuid.ok().map(|uuid| hex(uuid.bytes));
        let metadata = metadata.as_ref().unwrap();
        assert_eq!(metadata.uuid, uuid, "{namespace}");
        assert_eq!(uuid.is_some(), metadata.kind.as_deref() == Some("collection"), "{namespace}");
    }

    let mut target = Server::start().await;
    let loaded = target.load(&archive).await.unwrap();
    assert_eq!((loaded.collections, loaded.views, loaded.accounts), (8, 2, 1));
    let (_, again) = target.dump(Compression::None).await;
    let without_version = |archive: &[u8]| {
        let mut holdings = holdings(archive);
        holdings.remove("admin.system.version").unwrap();
        holdings
    };
    assert_eq!(without_version(&again), without_version(&archive));
    let through_views = target.all("d", rawdoc! { "find": "w" }).await;
    assert_eq!(through_views.len(), 2);

    // A second load finds its collections there, and says so.
    let error = target.load(&archive).await.unwrap_err();
    assert_eq!(error.to_string(), "create admin.notes");
    assert!(!error.is_damage());
}

#[tokio::test]
async fn the_oplog_of_a_dump_is_replayed() {
    let mut server = Server::start().await;
    server
        .command("d", doc! { "insert": "a", "documents": [{ "_id": 1, "n": 1 }, { "_id": 2 }] })
        .await;
    server
        .command(
            "d",
            doc! { "createIndexes": "a", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
        )
        .await;
    let (_, before) = server.dump(Compression::None).await;
    let newest = rawdoc! { "find": "oplog.rs", "sort": { "$natural": -1 }, "limit": 1 };
    let since = server.all("local", newest).await[0].get_timestamp("ts").unwrap();

    let session = || doc! { "id": bson::Uuid::from_bytes([7; 16]) };
    for (db, command) in [
        ("d", doc! { "insert": "a", "documents": [{ "_id": 3, "text": "x" }] }),
        (
            "d",
            doc! { "update": "a", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "n": 5, "deep": { "a": 1 } } } }] },
        ),
        ("d", doc! { "update": "a", "updates": [{ "q": { "_id": 3 }, "u": { "whole": "new" } }] }),
        ("d", doc! { "delete": "a", "deletes": [{ "q": { "_id": 2 }, "limit": 1 }] }),
        ("d", doc! { "create": "made", "capped": true, "size": 4096 }),
        ("d", doc! { "insert": "made", "documents": [{ "_id": 1 }] }),
        (
            "d",
            doc! { "createIndexes": "a", "indexes": [{ "key": { "m": 1 }, "name": "m", "unique": true, "sparse": true }] },
        ),
        ("d", doc! { "dropIndexes": "a", "index": "n" }),
        ("d", doc! { "insert": "gone", "documents": [{ "_id": 1 }] }),
        ("d", doc! { "drop": "gone" }),
        ("d", doc! { "insert": "old", "documents": [{ "_id": 1 }] }),
        ("d", doc! { "createIndexes": "old", "indexes": [{ "key": { "k": 1 }, "name": "k" }] }),
        ("admin", doc! { "renameCollection": "d.old", "to": "d.new" }),
        ("d", doc! { "collMod": "a", "validator": { "x": { "$ne": 1 } } }),
        ("d", doc! { "collMod": "a", "index": { "name": "m", "hidden": true } }),
        (
            "d",
            doc! { "insert": "a", "documents": [{ "_id": 10 }, { "_id": 11 }], "lsid": session(), "txnNumber": 1_i64, "startTransaction": true, "autocommit": false },
        ),
        (
            "admin",
            doc! { "commitTransaction": 1, "lsid": session(), "txnNumber": 1_i64, "autocommit": false },
        ),
        ("d", doc! { "create": "seen", "viewOn": "a", "pipeline": [] }),
    ] {
        server.command(db, command).await;
    }
    let after = rawdoc! { "find": "oplog.rs", "filter": { "ts": { "$gt": since } } };
    let oplog = server.all("local", after).await;
    let (_, expected) = server.dump(Compression::None).await;

    let mut target = Server::start().await;
    let loaded = target.load(&with_oplog(&before, &oplog)).await.unwrap();
    assert_eq!(loaded.oplog_entries, oplog.len() as u64);
    assert!(oplog.len() >= 15);
    let (_, found) = target.dump(Compression::None).await;
    assert_eq!(holdings(&found), holdings(&expected));

    // Documents that come behind the oplog could undo what it did.
    let error = Server::start().await.load(&oplog_first(&before, &oplog)).await.unwrap_err();
    assert!(error.to_string().ends_with("its documents stand behind the oplog"), "{error}");
}

/// The archive with an oplog at its end, as `mongodump --oplog` writes it.
fn with_oplog(archive: &[u8], oplog: &[RawDocumentBuf]) -> Vec<u8> {
    splice(archive, oplog, false)
}

fn oplog_first(archive: &[u8], oplog: &[RawDocumentBuf]) -> Vec<u8> {
    splice(archive, oplog, true)
}

fn splice(archive: &[u8], oplog: &[RawDocumentBuf], first: bool) -> Vec<u8> {
    let mut reader = Reader::open(archive).unwrap();
    let namespace = Namespace::new("", "oplog");
    let mut prelude = reader.prelude().clone();
    let entry = rawdoc! { "db": "", "collection": "oplog", "metadata": "", "size": 0, "type": "" };
    prelude.entries.push(Entry::parse(&entry).unwrap());
    let mut writer = Writer::new(Vec::new(), &prelude, Compression::None).unwrap();
    let put = |writer: &mut Writer<Vec<u8>>| {
        oplog.iter().for_each(|document| writer.document(&namespace, document).unwrap());
        writer.end(&namespace).unwrap();
    };
    if first {
        put(&mut writer);
    }
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Document { namespace, document, .. } => writer.document(namespace, document),
            Item::End { namespace, .. } => writer.end(namespace),
        }
        .unwrap();
    }
    if !first {
        put(&mut writer);
    }
    writer.finish().unwrap()
}

#[tokio::test]
async fn damage_stops_a_load_and_leaves_no_temporary_users() {
    let mut server = Server::start().await;
    let whole = super::golden::plain("full.archive.gz");
    let error = server.load(&whole[..500_000]).await.unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(error.to_string().contains("byte 500000, in shop.products"), "{error}");
    let left = server.all("admin", rawdoc! { "listCollections": 1, "nameOnly": true }).await;
    assert!(left.iter().all(|c| !c.get_str("name").unwrap().starts_with("temp")), "{left:?}");

    let missing = load(Path::new("/nowhere/dump.archive"), &mut server.client).await.unwrap_err();
    assert_eq!(missing.to_string(), "open archive /nowhere/dump.archive");
}

#[tokio::test]
async fn namespaces_that_alternate_are_loaded() {
    let names = ["a", "b"].map(|name| Namespace::new("d", name));
    let entry = |namespace: &Namespace| Entry::new(namespace.clone(), Metadata::default());
    let prelude = Prelude { entries: names.iter().map(entry).collect(), ..Prelude::default() };
    let mut writer = Writer::new(Vec::new(), &prelude, Compression::None).unwrap();
    for n in 0..50 {
        for (times, namespace) in (1..).zip(&names) {
            for m in 0..times {
                writer.document(namespace, &rawdoc! { "_id": n * 2 + m }).unwrap();
            }
        }
    }
    names.iter().for_each(|namespace| writer.end(namespace).unwrap());
    let mut server = Server::start().await;
    let loaded = server.load(&writer.finish().unwrap()).await.unwrap();
    assert_eq!((loaded.collections, loaded.documents), (2, 150));
    for (collection, count) in [("a", 50), ("b", 100)] {
        assert_eq!(server.all("d", rawdoc! { "find": collection }).await.len(), count);
    }
}

#[tokio::test]
async fn what_cannot_be_restored_is_named() {
    let mut server = Server::start().await;
    let index = |key: Document| vec![doc! { "v": 2, "key": key, "name": "n", "unique": true }];
    let mut check =
        async |options: Document, indexes: Vec<Document>, ids: &[i32], expected: &str| {
            server.command("d", doc! { "dropDatabase": 1 }).await;
            let namespace = Namespace::new("d", "c");
            let metadata = Metadata { options, indexes, ..Metadata::default() };
            let entries = vec![Entry::new(namespace.clone(), metadata)];
            let prelude = Prelude { entries, ..Prelude::default() };
            let mut writer = Writer::new(Vec::new(), &prelude, Compression::Gzip).unwrap();
            for id in ids {
                writer.document(&namespace, &rawdoc! { "_id": *id, "same": 1 }).unwrap();
            }
            writer.end(&namespace).unwrap();
            let error = server.load(&writer.finish().unwrap()).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
    check(doc! { "unknown": 1 }, vec![], &[], "create d.c").await;
    check(doc! {}, vec![], &[1, 1], "insert into d.c").await;
    check(doc! {}, index(doc! { "same": 1 }), &[1, 2], "build the indexes of d.c").await;
    let view = doc! { "viewOn": "a", "pipeline": [] };
    check(view, vec![], &[1], "restore d.c: it is a view, and has documents of its own").await;
}

#[tokio::test]
async fn a_full_disk_ends_a_dump() {
    struct Full(u32);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            match self.0.checked_sub(1) {
                None => Err(std::io::ErrorKind::StorageFull.into()),
                Some(left) => {
                    self.0 = left;
                    Ok(bytes.len())
                }
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut server = Server::start().await;
    load(&path("shop.archive.gz"), &mut server.client).await.unwrap();
    for writes in [0, 3] {
        let error = dump(&mut server.client, Full(writes), Compression::None).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Write { .. }), "{error}");
    }
    // The client is still good: the dump let go of it between two commands.
    server.command("admin", doc! { "ping": 1 }).await;
}
