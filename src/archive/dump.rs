//! Dumps a real mongod into an archive, as `mongodump --archive` does.

use std::io::Write;

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::error::ArchiveError;
use super::metadata::Metadata;
use super::plan::is_dumped;
use super::prelude::{Entry, Header, Namespace, Prelude};
use super::writer::{Compression, Writer};
use crate::wire::{Client, WireError};

/// Collections of `admin` that hold users and roles, in the order in which mongodump writes them.
const ACCOUNTS: [&str; 3] = ["system.users", "system.roles", "system.version"];

/// Batches of a cursor (16 MiB at most) that wait for the writer.
const BATCHES_QUEUED: usize = 2;

const NAMESPACE_NOT_FOUND: i32 = 26;

/// From this version on a server has no buckets under a name of their own.
const NO_BUCKETS_SINCE: (u32, u32) = (8, 3);

/// What a dump wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Namespaces, views and those of users and roles among them.
    pub namespaces: u64,
    /// Documents; of a time-series collection, its buckets.
    pub documents: u64,
    /// Their bytes, not compressed.
    pub bytes: u64,
}

enum Output {
    Documents(Namespace, Vec<RawDocumentBuf>),
    End(Namespace),
}

/// Writes everything that mongodump writes into `into`: all databases, indexes, views, users and
/// roles. Each collection is read as it is at that moment; nothing holds back writes meanwhile.
/// On an error `into` holds an archive that is cut short. Not cancel safe: a client whose dump was
/// dropped half way is of no further use.
pub async fn dump(
    client: &mut Client,
    into: impl Write + Send + 'static,
    compression: Compression,
) -> Result<Dumped, ArchiveError> {
    let prelude = read_prelude(client).await?;
    let namespaces = in_order(&prelude);
    let (sender, mut outputs) = mpsc::channel(BATCHES_QUEUED);
    let writing = spawn_blocking(move || {
        let mut writer = Writer::new(into, &prelude, compression)?;
        while let Some(output) = outputs.blocking_recv() {
            match output {
                Output::Documents(namespace, documents) => {
                    for document in &documents {
                        writer.document(&namespace, document)?;
                    }
                }
                Output::End(namespace) => writer.end(&namespace)?,
            }
        }
        Ok(writer)
    });
    let read = read_all(client, &namespaces, sender).await;
    // The writer's error comes first: it is why the reader could not go on.
    let writer = writing.await.map_err(ArchiveError::stopped)??;
    let dumped = read?;
    // Compressing and flushing the rest may block too.
    spawn_blocking(move || writer.finish().map(drop)).await.map_err(ArchiveError::stopped)??;
    Ok(dumped)
}

/// A namespace to write, and whether it has documents to read.
struct Source {
    namespace: Namespace,
    is_view: bool,
}

/// Users and roles first, as mongorestore wants them, then the collections.
fn in_order(prelude: &Prelude) -> Vec<Source> {
    let source = |entry: &Entry| Source {
        namespace: entry.buckets().unwrap_or_else(|| entry.namespace.clone()),
        is_view: entry.is_view(),
    };
    let (accounts, others): (Vec<_>, Vec<_>) =
        prelude.entries.iter().partition(|entry| is_accounts(&entry.namespace));
    accounts.into_iter().chain(others).map(source).collect()
}

async fn read_all(
    client: &mut Client,
    sources: &[Source],
    outputs: mpsc::Sender<Output>,
) -> Result<Dumped, ArchiveError> {
    let mut dumped = Dumped::default();
    for Source { namespace, is_view } in sources {
        if !is_view {
            let failed = || ArchiveError::command("read the documents of", namespace);
            let find = rawdoc! { "find": &*namespace.collection };
            let mut cursor = client.cursor(&namespace.db, &find).await.map_err(failed())?;
            while let Some(batch) = cursor.next_batch().await.map_err(failed())? {
                dumped.documents += batch.len() as u64;
                dumped.bytes += batch.iter().map(|d| d.as_bytes().len() as u64).sum::<u64>();
                let output = Output::Documents(namespace.clone(), batch);
                if outputs.send(output).await.is_err() {
                    return Ok(dumped); // The writer has failed, and says why.
                }
            }
        }
        if outputs.send(Output::End(namespace.clone())).await.is_err() {
            return Ok(dumped);
        }
        dumped.namespaces += 1;
    }
    Ok(dumped)
}

async fn read_prelude(client: &mut Client) -> Result<Prelude, ArchiveError> {
    let server = Namespace::new("admin", "$cmd");
    let failed = |doing| ArchiveError::command(doing, &server);
    let build = client.command("admin", doc! { "buildInfo": 1 }).await;
    let build = build.map_err(failed("ask for the version of"))?;
    let server_version = build.get_str("version").unwrap_or_default().to_owned();
    let databases = client.command("admin", doc! { "listDatabases": 1, "nameOnly": true }).await;
    let databases = databases.map_err(failed("list the databases of"))?;
    let mut names: Vec<String> = (databases.get_array("databases").into_iter().flatten())
        .filter_map(|database| database.as_document()?.get_str("name").ok().map(str::to_owned))
        .collect();
    names.sort();
    let mut entries = Vec::new();
    for db in names.iter().filter(|db| *db != "local") {
        entries.extend(read_database(client, db).await?);
    }
    // As in mongodump, users and roles are last in the list and first in the data.
    entries.sort_by_key(|entry| is_accounts(&entry.namespace).then(|| rank(&entry.namespace)));
    refuse_unknown_time_series(&server_version, &entries)?;
    let header = Header {
        // One after the other: nothing interleaves.
        concurrent_collections: 1,
        server_version,
        tool_version: concat!("argon ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    Ok(Prelude { header, entries })
}

async fn read_database(client: &mut Client, db: &str) -> Result<Vec<Entry>, ArchiveError> {
    let whole = Namespace::new(db, "*");
    let failed = || ArchiveError::command("list the collections of", &whole);
    let cursor = client.cursor(db, &rawdoc! { "listCollections": 1 }).await.map_err(failed())?;
    let mut collections = Vec::new();
    for collection in cursor.collect().await.map_err(failed())? {
        collections.push(decode(&collection).map_err(failed())?);
    }
    collections.sort_by(|a, b| a.get_str("name").ok().cmp(&b.get_str("name").ok()));
    let mut entries = Vec::new();
    for collection in collections {
        let namespace = Namespace::new(db, collection.get_str("name").unwrap_or_default());
        if !is_accounts(&namespace) && !is_dumped(db, &namespace.collection) {
            continue;
        }
        entries.extend(read_entry(client, namespace, &collection).await?);
    }
    Ok(entries)
}

/// What the prelude says of one collection; none where it was dropped meanwhile.
async fn read_entry(
    client: &mut Client,
    namespace: Namespace,
    listed: &Document,
) -> Result<Option<Entry>, ArchiveError> {
    let uuid = match listed.get_document("info").ok().and_then(|info| info.get("uuid")) {
        Some(Bson::Binary(uuid)) => Some(uuid.bytes.iter().map(|b| format!("{b:02x}")).collect()),
        _ => None,
    };
    let mut metadata = Metadata {
        options: listed.get_document("options").cloned().unwrap_or_default(),
        indexes: Vec::new(),
        uuid,
        collection_name: namespace.collection.clone(),
        kind: listed.get_str("type").ok().map(str::to_owned),
    };
    if !metadata.is_view() {
        let failed = || ArchiveError::command("list the indexes of", &namespace);
        let list = rawdoc! { "listIndexes": &*namespace.collection };
        let cursor = match client.cursor(&namespace.db, &list).await {
            Err(WireError::Command { code: NAMESPACE_NOT_FOUND, .. }) => return Ok(None),
            cursor => cursor.map_err(failed())?,
        };
        for index in cursor.collect().await.map_err(failed())? {
            metadata.indexes.push(decode(&index).map_err(failed())?);
        }
    }
    Ok(Some(Entry::new(namespace, metadata)))
}

fn decode(document: &RawDocumentBuf) -> Result<Document, WireError> {
    let malformed = |source| WireError::Bson { part: "reply", source: Box::new(source) };
    Document::try_from(document).map_err(malformed)
}

fn is_accounts(namespace: &Namespace) -> bool {
    namespace.db == "admin" && ACCOUNTS.contains(&namespace.collection.as_str())
}

fn rank(namespace: &Namespace) -> Option<usize> {
    ACCOUNTS.iter().position(|name| *name == namespace.collection)
}

fn refuse_unknown_time_series(version: &str, entries: &[Entry]) -> Result<(), ArchiveError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match entries.iter().find(|entry| entry.buckets().is_some()) {
        Some(entry) if version >= NO_BUCKETS_SINCE => Err(ArchiveError::Unsupported {
            namespace: entry.namespace.clone(),
            reason: "time-series collections of servers since 8.3 cannot be dumped".to_owned(),
        }),
        _ => Ok(()),
    }
}
