//! The Rust driver, and what tests ask through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::ClientOptions;
use sha2::{Digest, Sha256};

/// A collection as tests compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Number of documents.
    pub documents: u64,
    /// SHA-256 over the raw BSON of all documents sorted by `_id`, hexadecimal.
    pub digest: String,
    /// Index names, sorted.
    pub indexes: Vec<String>,
}

/// What a client's connections went through.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    opened: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
    heartbeats: Arc<AtomicU64>,
}

impl Connections {
    /// How many were opened for commands.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many of these were closed, whoever did it.
    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }

    /// How many heartbeats were answered.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }
}

/// Connects, which sends nothing yet.
pub async fn connect(uri: &str) -> Result<Client> {
    Client::with_uri_str(uri).await.with_context(|| format!("read the URI {uri}"))
}

/// Connects, and counts what happens to the connections.
pub async fn connect_watched(uri: &str) -> Result<(Client, Connections)> {
    let connections = Connections::default();
    let (pool, monitor) = (connections.clone(), connections.clone());
    let mut options = ClientOptions::parse(uri).await.with_context(|| format!("read {uri}"))?;
    options.cmap_event_handler = Some(EventHandler::callback(move |event| match event {
        CmapEvent::ConnectionReady(_) => drop(pool.opened.fetch_add(1, Ordering::Relaxed)),
        CmapEvent::ConnectionClosed(_) => drop(pool.closed.fetch_add(1, Ordering::Relaxed)),
        _ => {}
    }));
    options.sdam_event_handler = Some(EventHandler::callback(move |event| {
        if matches!(event, SdamEvent::ServerHeartbeatSucceeded(_)) {
            monitor.heartbeats.fetch_add(1, Ordering::Relaxed);
        }
    }));
    Ok((Client::with_options(options)?, connections))
}

/// Databases that hold data of a user.
pub async fn databases(client: &Client) -> Result<Vec<String>> {
    let mut names = client.list_database_names().await.context("list databases")?;
    names.retain(|name| !["admin", "config", "local"].contains(&name.as_str()));
    Ok(names)
}

/// Collections of a database and their kind: `collection`, `view` or `timeseries`.
pub async fn collections(client: &Client, database: &str) -> Result<BTreeMap<String, String>> {
    let command = doc! { "listCollections": 1 };
    let cursor = client.database(database).run_cursor_command(command).await?;
    let listed: Vec<Document> = cursor.try_collect().await?;
    let mut kinds = BTreeMap::new();
    for one in listed {
        let name = one.get_str("name")?;
        if !name.starts_with("system.") {
            kinds.insert(name.to_owned(), one.get_str("type")?.to_owned());
        }
    }
    Ok(kinds)
}

/// How many documents a query would see.
pub async fn count(client: &Client, database: &str, collection: &str) -> Result<u64> {
    let documents = client.database(database).collection::<Document>(collection);
    documents
        .count_documents(doc! {})
        .await
        .with_context(|| format!("count {database}.{collection}"))
}

/// Everything that must survive a restore.
pub async fn contents(client: &Client, database: &str, collection: &str) -> Result<Contents> {
    let raw = client.database(database).collection::<RawDocumentBuf>(collection);
    let mut cursor = raw.find(doc! {}).sort(doc! { "_id": 1 }).await?;
    let (mut documents, mut sum) = (0, Sha256::new());
    while let Some(document) = cursor.try_next().await? {
        documents += 1;
        sum.update(document.as_bytes());
    }
    let digest = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Contents { documents, digest, indexes: index_names(client, database, collection).await? })
}

/// Index names, sorted; none for what has no indexes of its own.
pub async fn index_names(client: &Client, database: &str, collection: &str) -> Result<Vec<String>> {
    let command = doc! { "listIndexes": collection };
    let listed: Vec<Document> = match client.database(database).run_cursor_command(command).await {
        Ok(cursor) => cursor.try_collect().await?,
        // 166 is CommandNotSupportedOnView, which time series are too.
        Err(e) if matches!(&*e.kind, mongodb::error::ErrorKind::Command(c) if c.code == 166) => {
            Vec::new()
        }
        Err(e) => {
            return Err(e).with_context(|| format!("list indexes of {database}.{collection}"));
        }
    };
    let mut names = Vec::new();
    for index in listed {
        names.push(index.get_str("name")?.to_owned());
    }
    names.sort();
    Ok(names)
}
