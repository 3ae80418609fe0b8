//! Loads an archive into a real mongod.

use std::fs::File;
use std::path::Path;

use bson::raw::{RawBsonRef, RawDocument};
use bson::spec::ElementType;
use bson::{Document, RawDocumentBuf, Timestamp, rawdoc};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::check::open;
use super::error::ArchiveError;
use super::indexes::Indexes;
use super::oplog::Replay;
use super::plan::Role;
use super::prelude::{Entry, Namespace};
use super::reader::{Item, Reader};
use super::users::{Merge, check_version};
use crate::wire::{Client, InsertOptions, Order, Validation};

/// A batch is inserted when it has so many bytes or documents. A few batches are in memory at
/// once: one being read, those queued, one being inserted.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
const BATCH_DOCUMENTS: usize = 10_000;
const BATCHES_QUEUED: usize = 2;

/// What a load did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Collections made, time-series collections among them.
    pub collections: u64,
    /// Views made.
    pub views: u64,
    /// Documents inserted; of a time-series collection, its buckets.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Users and roles merged.
    pub accounts: u64,
    /// Oplog entries looked at.
    pub oplog_entries: u64,
    /// Namespaces that a server keeps for itself, and that were not loaded.
    pub skipped: Vec<Namespace>,
}

struct Load<'c> {
    client: &'c mut Client,
    entries: Vec<(Namespace, Role)>,
    indexes: Indexes,
    merge: Merge,
    replay: Replay,
    stage: Stage,
    loaded: Loaded,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Collections,
    /// Views exist; only the oplog may follow.
    Views,
}

struct Batch {
    entry: usize,
    documents: Vec<RawDocumentBuf>,
}

/// Loads the archive at `path` into the mongod behind `client`, which holds none of its
/// collections yet. It stops at the first damage, with what stood before it loaded; call
/// [`super::check`] first where that must not be. Not cancel safe: a client whose load was dropped
/// half way is of no further use.
pub async fn load(path: &Path, client: &mut Client) -> Result<Loaded, ArchiveError> {
    let path = path.to_owned();
    let reader = spawn_blocking(move || open(&path)).await.map_err(ArchiveError::stopped)??;
    let mut indexes = Indexes::default();
    reader.prelude().entries.iter().for_each(|entry| indexes.add_entry(entry));
    let role = |entry: &Entry| (entry.namespace.clone(), Role::of(entry));
    let load = Load {
        client,
        entries: reader.prelude().entries.iter().map(role).collect(),
        indexes,
        merge: Merge::default(),
        replay: Replay::default(),
        stage: Stage::Collections,
        loaded: Loaded::default(),
    };
    load.run(reader).await
}

impl Load<'_> {
    async fn run(mut self, reader: Reader<File>) -> Result<Loaded, ArchiveError> {
        if let Err(error) = self.restore(reader).await {
            // The first error is the one that tells why; the accounts' collections go all the same.
            let _ = self.merge.abandon(self.client).await;
            return Err(error);
        }
        self.merge.finish(self.client).await?;
        Ok(self.loaded)
    }

    /// Everything but users and roles, which wait in collections of another name.
    async fn restore(&mut self, reader: Reader<File>) -> Result<(), ArchiveError> {
        self.create_collections().await?;
        self.fill(reader).await?;
        self.replay.finish();
        self.indexes.build(self.client).await
    }

    /// Reads on a thread that may block, and inserts as batches come.
    async fn fill(&mut self, reader: Reader<File>) -> Result<(), ArchiveError> {
        let (sender, mut batches) = mpsc::channel(BATCHES_QUEUED);
        let reading = spawn_blocking(move || read_batches(reader, &sender));
        while let Some(batch) = batches.recv().await {
            self.take(batch).await?;
        }
        reading.await.map_err(ArchiveError::stopped)??;
        self.create_views().await
    }

    async fn create_collections(&mut self) -> Result<(), ArchiveError> {
        for (namespace, role) in &self.entries {
            match role {
                Role::Collection { create, .. } => {
                    create_one(self.client, namespace, create).await?;
                    self.loaded.collections += 1;
                }
                Role::Skipped => self.loaded.skipped.push(namespace.clone()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn create_views(&mut self) -> Result<(), ArchiveError> {
        if self.stage == Stage::Views {
            return Ok(());
        }
        self.stage = Stage::Views;
        for (namespace, role) in &self.entries {
            if let Role::View { create } = role {
                create_one(self.client, namespace, create).await?;
                self.loaded.views += 1;
            }
        }
        Ok(())
    }

    async fn take(&mut self, Batch { entry, documents }: Batch) -> Result<(), ArchiveError> {
        let (namespace, role) = self.entries[entry].clone();
        let unsupported = |reason: &str| {
            let namespace = namespace.clone();
            Err(ArchiveError::Unsupported { namespace, reason: reason.to_owned() })
        };
        if self.stage == Stage::Views && role != Role::Oplog {
            return unsupported("its documents stand behind the oplog");
        }
        match role {
            Role::Collection { fill, .. } => {
                self.loaded.documents += documents.len() as u64;
                self.loaded.bytes += bytes(&documents);
                insert(self.client, &fill, &documents).await
            }
            Role::View { .. } => unsupported("it is a view, and has documents of its own"),
            Role::Accounts { accounts, db } => {
                self.loaded.accounts += documents.len() as u64;
                self.merge.add(self.client, accounts, &db, &documents).await
            }
            Role::AccountsVersion => check_version(&namespace, &documents),
            Role::Oplog => {
                self.create_views().await?;
                for document in &documents {
                    self.replay.entry(self.client, &mut self.indexes, document).await?;
                }
                self.loaded.oplog_entries += documents.len() as u64;
                Ok(())
            }
            Role::Skipped => Ok(()),
        }
    }
}

async fn create_one(
    client: &mut Client,
    namespace: &Namespace,
    create: &Document,
) -> Result<(), ArchiveError> {
    let created = client.command(&namespace.db, create.clone()).await;
    created.map(drop).map_err(ArchiveError::command("create", namespace))
}

/// Inserts documents as they are, those too that a validator of today would refuse.
async fn insert(
    client: &mut Client,
    namespace: &Namespace,
    documents: &[RawDocumentBuf],
) -> Result<(), ArchiveError> {
    let options = InsertOptions { order: Order::Ordered, validation: Validation::Bypass };
    let Namespace { db, collection } = namespace;
    for run in documents.chunk_by(|a, b| !has_empty_timestamp(a) && !has_empty_timestamp(b)) {
        let inserted = match run {
            [one] if has_empty_timestamp(one) => {
                // An insert would put the time of day in its place; an oplog entry is not touched.
                let entry = rawdoc! { "op": "i", "ns": namespace.to_string(), "o": one.clone() };
                client.checked("admin", &rawdoc! { "applyOps": [entry] }).await.map(drop)
            }
            run => client.insert(db, collection, run, options).await,
        };
        inserted.map_err(ArchiveError::command("insert into", namespace))?;
    }
    Ok(())
}

/// Whether a field of the document itself is `Timestamp(0, 0)`, which means "now" to an insert.
fn has_empty_timestamp(document: &RawDocument) -> bool {
    let empty = RawBsonRef::Timestamp(Timestamp { time: 0, increment: 0 });
    document.iter_elements().flatten().any(|element| {
        element.element_type() == ElementType::Timestamp
            && element.value().is_ok_and(|value| value == empty)
    })
}

/// Reads to the end of the archive, or until nobody listens any more.
fn read_batches(
    mut reader: Reader<File>,
    batches: &mpsc::Sender<Batch>,
) -> Result<(), ArchiveError> {
    let mut batch = Batch { entry: 0, documents: Vec::new() };
    let mut batch_bytes = 0;
    while let Some(item) = reader.next()? {
        let Item::Document { entry, document, .. } = item else { continue };
        let full = batch_bytes >= BATCH_BYTES || batch.documents.len() >= BATCH_DOCUMENTS;
        if (full || batch.entry != entry) && !batch.documents.is_empty() {
            let documents = std::mem::take(&mut batch.documents);
            if batches.blocking_send(Batch { entry: batch.entry, documents }).is_err() {
                return Ok(());
            }
            batch_bytes = 0;
        }
        batch.entry = entry;
        batch_bytes += document.as_bytes().len();
        batch.documents.push(document.to_owned());
    }
    if !batch.documents.is_empty() {
        // Nobody listens only where an error is on its way already.
        let _ = batches.blocking_send(batch);
    }
    Ok(())
}

fn bytes(documents: &[RawDocumentBuf]) -> u64 {
    documents.iter().map(|document| document.as_bytes().len() as u64).sum()
}
