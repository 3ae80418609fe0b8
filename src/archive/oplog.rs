//! Replays the oplog of a dump: what was written while the dump went on.
//!
//! Source: what mongorestore does (`mongorestore/oplog.go` of mongodb/mongo-tools). Every entry is
//! idempotent, so those are applied too whose effect the dump holds already.

use std::collections::{HashMap, VecDeque};

use bson::raw::{RawBsonRef, RawDocument, cstr};
use bson::{Bson, Document, RawDocumentBuf, rawdoc};

use super::error::ArchiveError;
use super::indexes::Indexes;
use super::plan::CONFIG_COLLECTIONS;
use super::prelude::Namespace;
use crate::wire::Client;

/// Most bytes of transactions whose commit was not seen yet.
const TRANSACTION_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Deepest nesting of a command, as in the server's own BSON limit.
const DEPTH_MAX: usize = 200;

/// Deepest `applyOps` in `applyOps`; the server writes one in one.
const APPLY_OPS_DEPTH_MAX: usize = 4;

/// What is not data, or is written anew by the server that the entries are applied to.
const IGNORED_TYPES: [&str; 5] = ["n", "cd", "ci", "cu", "km"];
const IGNORED_COMMANDS: [&str; 4] =
    ["startIndexBuild", "abortIndexBuild", "setMultikeyMetadata", "dbCheck"];

/// The entries of one oplog, in its order.
#[derive(Debug, Default)]
pub(super) struct Replay {
    transactions: HashMap<(Vec<u8>, i64), Transaction>,
    /// Bytes of all buffered transactions.
    buffered: usize,
}

#[derive(Debug, Default)]
struct Transaction {
    operations: Vec<RawDocumentBuf>,
    bytes: usize,
}

/// What a command of the oplog means for the caller.
enum Next {
    Nothing,
    Apply(RawDocumentBuf),
    Each(Vec<RawDocumentBuf>),
}

impl Replay {
    /// Applies one entry, or keeps it until its transaction commits.
    pub(super) async fn entry(
        &mut self,
        client: &mut Client,
        indexes: &mut Indexes,
        entry: &RawDocument,
    ) -> Result<(), ArchiveError> {
        let mut queue = VecDeque::from([(entry.to_owned(), 0)]);
        while let Some((operation, depth)) = queue.pop_front() {
            let next = self.next(indexes, &operation).map_err(unsupported)?;
            match next {
                Next::Nothing => {}
                Next::Apply(operation) => apply(client, &operation).await?,
                Next::Each(_) if depth == APPLY_OPS_DEPTH_MAX => {
                    return Err(unsupported("its operations are nested too deep".to_owned()));
                }
                Next::Each(operations) => {
                    for operation in operations.into_iter().rev() {
                        queue.push_front((operation, depth + 1));
                    }
                }
            }
        }
        Ok(())
    }

    /// The end of the oplog. A transaction without its commit was not committed in time.
    pub(super) fn finish(&self) {
        if !self.transactions.is_empty() {
            tracing::info!(
                transactions = self.transactions.len(),
                "left out transactions that the dump's oplog does not commit"
            );
        }
    }

    fn next(&mut self, indexes: &mut Indexes, operation: &RawDocument) -> Result<Next, String> {
        let kind = operation.get_str("op").map_err(|_| "an entry has no `op`".to_owned())?;
        let namespace = operation.get_str("ns").unwrap_or_default();
        if IGNORED_TYPES.contains(&kind) || is_ignored(namespace) {
            return Ok(Next::Nothing);
        }
        let object = operation.get_document("o").map_err(|_| "an entry has no `o`".to_owned())?;
        if kind != "c" {
            return Ok(Next::Apply(stripped(operation, object)));
        }
        let name = first_key(object)?;
        if IGNORED_COMMANDS.contains(&name.as_str()) {
            return Ok(Next::Nothing);
        }
        let session = operation.get_document("lsid").ok();
        match (session, operation.get_i64("txnNumber"), name.as_str()) {
            (Some(session), Ok(number), "applyOps" | "commitTransaction" | "abortTransaction") => {
                self.transaction((session.as_bytes().to_vec(), number), &name, object)
            }
            (_, _, "applyOps") => nested(object).map(Next::Each),
            (_, _, name) => command(indexes, operation, name, object),
        }
    }

    /// A part of a transaction, or its end. What was committed comes out in one piece.
    fn transaction(
        &mut self,
        key: (Vec<u8>, i64),
        name: &str,
        object: &RawDocument,
    ) -> Result<Next, String> {
        let flag = |name| object.get_bool(name).unwrap_or(false);
        if name == "applyOps" {
            let bytes = object.as_bytes().len();
            if self.buffered + bytes > TRANSACTION_BYTES_MAX {
                let reason = "its open transactions together are larger than";
                return Err(format!("{reason} {TRANSACTION_BYTES_MAX} bytes"));
            }
            self.buffered += bytes;
            let transaction = self.transactions.entry(key.clone()).or_default();
            transaction.bytes += bytes;
            transaction.operations.extend(nested(object)?);
            if flag("partialTxn") || flag("prepare") {
                return Ok(Next::Nothing);
            }
        }
        let transaction = self.transactions.remove(&key).unwrap_or_default();
        self.buffered -= transaction.bytes;
        Ok(match name {
            "abortTransaction" => Next::Nothing,
            _ => Next::Each(transaction.operations),
        })
    }
}

/// A command: indexes are only noted, everything else is applied.
fn command(
    indexes: &mut Indexes,
    operation: &RawDocument,
    name: &str,
    object: &RawDocument,
) -> Result<Next, String> {
    let mut object = decode(object)?;
    let db = operation.get_str("ns").unwrap_or_default();
    let db = db.split_once('.').map_or(db, |(db, _)| db);
    let namespace = Namespace::new(db, object.get_str(name).unwrap_or_default());
    match name {
        "createIndexes" => indexes.add(&namespace, &without(object, &[name])),
        "commitIndexBuild" => {
            for index in object.get_array("indexes").into_iter().flatten() {
                indexes.add(&namespace, index.as_document().ok_or("an index is no document")?);
            }
        }
        "deleteIndex" | "deleteIndexes" | "dropIndex" | "dropIndexes" => {
            indexes.remove(&namespace, object.get("index").unwrap_or(&Bson::Null));
        }
        "collMod" => {
            if let Some(Bson::Document(change)) = object.remove("index") {
                indexes.modify(&namespace, &change);
            }
            if object.len() > 1 {
                return applied(operation, &object);
            }
        }
        "create" => {
            indexes.create(&namespace, &object);
            return applied(operation, &without(object, &["recordIdsReplicated", "temp"]));
        }
        "drop" => {
            indexes.drop_collection(&namespace);
            return applied(operation, &object);
        }
        "dropDatabase" => {
            indexes.drop_database(db);
            return applied(operation, &object);
        }
        "renameCollection" => {
            let named = |key| object.get_str(key).ok().and_then(|name| name.split_once('.'));
            if let (Some(from), Some(to)) = (named("renameCollection"), named("to")) {
                indexes.rename(&Namespace::new(from.0, from.1), &Namespace::new(to.0, to.1));
            }
            // A target is given by its UUID, which a restored collection does not keep.
            if let Some(Bson::Binary(_)) = object.get("dropTarget") {
                object.insert("dropTarget", true);
            }
            return applied(operation, &object);
        }
        "convertToCapped" | "emptycapped" => return applied(operation, &object),
        _ => return Err(format!("the command `{name:.64}` is unknown")),
    }
    Ok(Next::Nothing)
}

async fn apply(client: &mut Client, operation: &RawDocument) -> Result<(), ArchiveError> {
    let named = operation.get_str("ns").unwrap_or_default();
    let (db, collection) = named.split_once('.').unwrap_or((named, ""));
    let command = rawdoc! { "applyOps": [operation.to_owned()] };
    let applied = client.checked("admin", &command).await;
    let namespace = Namespace::new(db, collection);
    applied.map(drop).map_err(ArchiveError::command("apply an oplog entry to", &namespace))
}

/// Collections have new UUIDs, and time and term are the new server's: what is left is the change.
fn stripped(operation: &RawDocument, object: &RawDocument) -> RawDocumentBuf {
    let mut left = RawDocumentBuf::new();
    left.append(cstr!("op"), operation.get_str("op").unwrap_or_default());
    left.append(cstr!("ns"), operation.get_str("ns").unwrap_or_default());
    left.append(cstr!("o"), object.to_owned());
    if let Ok(which) = operation.get_document("o2") {
        left.append(cstr!("o2"), which.to_owned());
    }
    left
}

fn applied(operation: &RawDocument, object: &Document) -> Result<Next, String> {
    let object = RawDocumentBuf::try_from(object).map_err(|error| error.to_string())?;
    Ok(Next::Apply(stripped(operation, &object)))
}

fn nested(object: &RawDocument) -> Result<Vec<RawDocumentBuf>, String> {
    let list = object.get_array("applyOps").map_err(|error| error.to_string())?;
    let operation = |element: Result<RawBsonRef<'_>, bson::error::Error>| match element {
        Ok(RawBsonRef::Document(operation)) => Ok(operation.to_owned()),
        _ => Err("an operation in `applyOps` is no document".to_owned()),
    };
    list.into_iter().map(operation).collect()
}

fn is_ignored(namespace: &str) -> bool {
    match namespace.split_once('.') {
        Some(("config", collection)) => !CONFIG_COLLECTIONS.contains(&collection),
        Some(("local", _)) => true,
        _ => namespace.starts_with("__mdb_internal"),
    }
}

fn first_key(object: &RawDocument) -> Result<String, String> {
    match object.iter().next() {
        Some(Ok((key, _))) => Ok(key.as_str().to_owned()),
        _ => Err("a command is empty".to_owned()),
    }
}

fn without(object: Document, keys: &[&str]) -> Document {
    object.into_iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect()
}

/// Decoding recurses, and the archive is not trusted: the depth is looked at first.
fn decode(document: &RawDocument) -> Result<Document, String> {
    let mut open = vec![document.iter_elements()];
    while let Some(elements) = open.last_mut() {
        let Some(element) = elements.next() else {
            open.pop();
            continue;
        };
        let value = element.and_then(|element| element.value());
        match value.map_err(|error| error.to_string())? {
            RawBsonRef::Document(inner) => open.push(inner.iter_elements()),
            RawBsonRef::Array(inner) => open.push(inner.iter_elements()),
            RawBsonRef::JavaScriptCodeWithScope(code) => open.push(code.scope.iter_elements()),
            _ => {}
        }
        if open.len() > DEPTH_MAX {
            return Err("a command is nested too deep".to_owned());
        }
    }
    Document::try_from(document).map_err(|error| error.to_string())
}

fn unsupported(reason: String) -> ArchiveError {
    ArchiveError::Unsupported { namespace: Namespace::new("", "oplog"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(replay: &mut Replay, operation: &RawDocument) -> Result<Vec<String>, String> {
        let shown = |operation: &RawDocumentBuf| Document::try_from(operation).unwrap().to_string();
        Ok(match replay.next(&mut Indexes::default(), operation)? {
            Next::Nothing => vec![],
            Next::Apply(operation) => vec![shown(&operation)],
            Next::Each(operations) => operations.iter().map(shown).collect(),
        })
    }

    fn check(operation: RawDocumentBuf, expected: &[&str]) {
        assert_eq!(next(&mut Replay::default(), &operation).unwrap(), expected, "{operation:?}");
    }

    #[test]
    fn only_changes_of_data_are_applied() {
        let insert =
            |ns: &str| rawdoc! { "op": "i", "ns": ns, "ui": 1, "o": { "_id": 1 }, "t": 3_i64 };
        check(insert("d.c"), &[r#"{ "op": "i", "ns": "d.c", "o": { "_id": 1 } }"#]);
        check(
            insert("config.settings"),
            &[r#"{ "op": "i", "ns": "config.settings", "o": { "_id": 1 } }"#],
        );
        check(insert("config.transactions"), &[]);
        check(insert("local.x"), &[]);
        check(rawdoc! { "op": "n", "ns": "", "o": { "msg": "initiating set" } }, &[]);
        let command = |o: RawDocumentBuf| rawdoc! { "op": "c", "ns": "d.$cmd", "o": o };
        check(command(rawdoc! { "startIndexBuild": "c" }), &[]);
        check(command(rawdoc! { "abortIndexBuild": "c" }), &[]);
        check(command(rawdoc! { "createIndexes": "c", "key": { "a": 1 }, "name": "a" }), &[]);
        check(command(rawdoc! { "collMod": "c", "index": { "name": "a", "hidden": true } }), &[]);
        check(
            command(rawdoc! { "collMod": "c", "index": { "name": "a" }, "validator": {} }),
            &[r#"{ "op": "c", "ns": "d.$cmd", "o": { "collMod": "c", "validator": {} } }"#],
        );
        check(
            command(rawdoc! { "drop": "c" }),
            &[r#"{ "op": "c", "ns": "d.$cmd", "o": { "drop": "c" } }"#],
        );
    }

    #[test]
    fn a_transaction_waits_for_its_commit() {
        let part = |number: i64, o: RawDocumentBuf| {
            rawdoc! { "op": "c", "ns": "admin.$cmd", "lsid": { "id": 1 }, "txnNumber": number, "o": o }
        };
        let insert = |id: i32| rawdoc! { "op": "i", "ns": "d.c", "o": { "_id": id } };
        let mut replay = Replay::default();
        let mut step = |operation: RawDocumentBuf| next(&mut replay, &operation).unwrap().len();
        // One in two parts, another in between, a third that is prepared, a fourth aborted.
        assert_eq!(step(part(1, rawdoc! { "applyOps": [insert(1)], "partialTxn": true })), 0);
        assert_eq!(step(part(2, rawdoc! { "applyOps": [insert(5)] })), 1);
        assert_eq!(step(part(1, rawdoc! { "applyOps": [insert(2), insert(3)] })), 3);
        assert_eq!(step(part(3, rawdoc! { "applyOps": [insert(6)], "prepare": true })), 0);
        assert_eq!(step(part(4, rawdoc! { "applyOps": [insert(7)], "prepare": true })), 0);
        assert_eq!(step(part(4, rawdoc! { "abortTransaction": 1 })), 0);
        assert_eq!(step(part(4, rawdoc! { "commitTransaction": 1 })), 0);
        assert_eq!(step(part(3, rawdoc! { "commitTransaction": 1 })), 1);
        assert_eq!((replay.buffered, replay.transactions.len()), (0, 0));
    }

    #[test]
    fn entries_that_are_none_are_refused() {
        let mut deep = rawdoc! {};
        for _ in 0..1000 {
            deep = rawdoc! { "a": deep };
        }
        for (operation, reason) in [
            (rawdoc! {}, "no `op`"),
            (rawdoc! { "op": "i", "ns": "d.c" }, "no `o`"),
            (rawdoc! { "op": "c", "ns": "d.$cmd", "o": {} }, "is empty"),
            (
                rawdoc! { "op": "c", "ns": "d.$cmd", "o": { "shutdown": 1 } },
                "`shutdown` is unknown",
            ),
            (rawdoc! { "op": "c", "ns": "d.$cmd", "o": { "applyOps": [1] } }, "no document"),
            (rawdoc! { "op": "c", "ns": "d.$cmd", "o": { "drop": deep } }, "too deep"),
        ] {
            let found = next(&mut Replay::default(), &operation).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
    }
}
