//! The head of an archive: who wrote it, and which namespaces follow.

use std::fmt;

use bson::raw::{RawBsonRef, RawDocument};
use bson::{Document, doc};

use super::error::Damage;
use super::metadata::Metadata;

/// The only version of the format there is.
const FORMAT_VERSION: &str = "0.1";

/// A database and a collection in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    /// The database; empty for the oplog.
    pub db: String,
    /// The collection.
    pub collection: String,
}

/// Everything that stands before the first document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prelude {
    /// Who wrote the archive.
    pub header: Header,
    /// The namespaces that follow, in the archive's order.
    pub entries: Vec<Entry>,
}

/// Who wrote an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// How many namespaces were written at once.
    pub concurrent_collections: i32,
    /// The server that was dumped, for example `6.0.5`.
    pub server_version: String,
    /// The tool that wrote the archive.
    pub tool_version: String,
}

/// One namespace of the prelude.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name; a time-series collection's documents are under [`Entry::buckets`].
    pub namespace: Namespace,
    /// Options and indexes; none for the oplog and for the users of one database.
    pub metadata: Option<Metadata>,
    /// The metadata as it stands in the archive, so that it is written back as it was.
    text: String,
    /// "collection", "view", "timeseries" or empty; archives of old tools have none.
    kind: Option<String>,
}

impl Namespace {
    /// The namespace `db.collection`.
    pub fn new(db: impl Into<String>, collection: impl Into<String>) -> Self {
        Self { db: db.into(), collection: collection.into() }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.db.as_str() {
            "" => f.write_str(&self.collection),
            db => write!(f, "{db}.{}", self.collection),
        }
    }
}

impl Header {
    pub(super) fn parse(document: &RawDocument) -> Result<Self, Damage> {
        let field = |name| {
            let what = "the archive's header";
            text(document, name).map_err(|reason| Damage::Malformed { what, reason })
        };
        match field("version")?.unwrap_or_default() {
            version if version == FORMAT_VERSION => {}
            version => return Err(Damage::Version(version.chars().take(32).collect())),
        }
        Ok(Self {
            concurrent_collections: document.get_i32("concurrent_collections").unwrap_or_default(),
            server_version: field("server_version")?.unwrap_or_default(),
            tool_version: field("tool_version")?.unwrap_or_default(),
        })
    }

    pub(super) fn to_document(&self) -> Document {
        doc! {
            "concurrent_collections": self.concurrent_collections,
            "version": FORMAT_VERSION,
            "server_version": &self.server_version,
            "tool_version": &self.tool_version,
        }
    }
}

impl Entry {
    /// An entry with `metadata`, as a dump writes it.
    pub fn new(namespace: Namespace, metadata: Metadata) -> Self {
        let kind = metadata.kind.clone();
        Self { namespace, text: metadata.to_json(), kind, metadata: Some(metadata) }
    }

    /// Reads an entry; the error is blamed on the namespace that comes with it.
    pub(super) fn parse(document: &RawDocument) -> Result<Self, (Option<Namespace>, Damage)> {
        let malformed = |reason| {
            (None, Damage::Malformed { what: "an entry of the list of namespaces", reason })
        };
        let field = |name| text(document, name).map_err(malformed);
        let namespace = match (field("db")?, field("collection")?) {
            (Some(db), Some(collection)) if !collection.is_empty() => Namespace { db, collection },
            _ => return Err(malformed("`db` or `collection` is missing".to_owned())),
        };
        let kind = field("type")?;
        let text = field("metadata")?.unwrap_or_default();
        if text.is_empty() {
            return Ok(Self { namespace, metadata: None, text, kind });
        }
        match Metadata::parse(&text) {
            Ok(metadata) => Ok(Self { namespace, metadata: Some(metadata), text, kind }),
            Err(reason) => {
                let what = "its metadata is no Extended JSON of a collection";
                Err((Some(namespace), Damage::Malformed { what, reason }))
            }
        }
    }

    pub(super) fn to_document(&self) -> Document {
        let mut fields = doc! {
            "db": &self.namespace.db,
            "collection": &self.namespace.collection,
            "metadata": &self.text,
            // mongodump has the field and never fills it.
            "size": 0_i32,
        };
        if let Some(kind) = &self.kind {
            fields.insert("type", kind);
        }
        fields
    }

    /// Where the documents of a time-series collection are, in archives of servers before 8.3;
    /// none for other collections.
    pub fn buckets(&self) -> Option<Namespace> {
        let Namespace { db, collection } = &self.namespace;
        self.is_time_series().then(|| Namespace::new(db, format!("system.buckets.{collection}")))
    }

    /// True for a view: no documents of its own.
    pub fn is_view(&self) -> bool {
        self.metadata.as_ref().is_some_and(Metadata::is_view)
    }

    fn is_time_series(&self) -> bool {
        self.kind.as_deref() == Some("timeseries")
            || self.metadata.as_ref().is_some_and(Metadata::is_time_series)
    }
}

fn text(document: &RawDocument, name: &str) -> Result<Option<String>, String> {
    // Read in place: decoding the whole document would recurse as deep as a hostile one nests.
    match document.get(name) {
        Ok(Some(RawBsonRef::String(text))) => Ok(Some(text.to_owned())),
        Ok(None) => Ok(None),
        Ok(Some(_)) => Err(format!("`{name}` is no text")),
        Err(error) => Err(error.to_string()),
    }
}
