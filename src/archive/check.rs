//! One pass over a whole archive, before anything of it is loaded.

use std::fs::File;
use std::path::Path;

use super::error::ArchiveError;
use super::reader::{Contents, Reader};

/// What a sound archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Every namespace, in the archive's order, users and roles among them.
    pub contents: Vec<Contents>,
    /// All documents.
    pub documents: u64,
    /// The bytes of all documents, not compressed.
    pub bytes: u64,
    /// The server that was dumped.
    pub server_version: String,
    /// The tool that wrote the archive.
    pub tool_version: String,
}

/// Reads the archive at `path` from front to back. Blocking, and as slow as its decompression.
pub fn check(path: &Path) -> Result<Summary, ArchiveError> {
    let mut reader = open(path)?;
    while reader.next()?.is_some() {}
    let contents = reader.contents();
    Ok(Summary {
        documents: contents.iter().map(|namespace| namespace.documents).sum(),
        bytes: contents.iter().map(|namespace| namespace.bytes).sum(),
        contents,
        server_version: reader.prelude().header.server_version.clone(),
        tool_version: reader.prelude().header.tool_version.clone(),
    })
}

/// A reader of the archive at `path`.
pub(super) fn open(path: &Path) -> Result<Reader<File>, ArchiveError> {
    let file =
        File::open(path).map_err(|source| ArchiveError::Open { path: path.to_owned(), source })?;
    Reader::open(file)
}
