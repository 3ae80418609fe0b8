//! What can go wrong with an archive, and where.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::prelude::Namespace;
use crate::wire::WireError;

/// Why an archive was not read, written, loaded or dumped.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The file cannot be opened. Not the archive's fault.
    #[error("open archive {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The source failed while it was read. Not the archive's fault; may be tried again.
    #[error("read archive at byte {offset}{}", within(.namespace.as_ref()))]
    Read {
        /// Where, in bytes of the decompressed stream.
        offset: u64,
        /// The namespace being read, if one was.
        namespace: Option<Namespace>,
        /// What the source said.
        source: io::Error,
    },
    /// The bytes are no sound archive. Trying again does not help.
    #[error("archive is damaged at byte {offset}{}: {damage}", within(.namespace.as_ref()))]
    Damaged {
        /// Where, in bytes of the decompressed stream.
        offset: u64,
        /// The namespace that is damaged, if it is known.
        namespace: Option<Namespace>,
        /// What is wrong.
        damage: Damage,
    },
    /// The archive is sound, but asks for something that cannot be restored.
    #[error("restore {namespace}: {reason}")]
    Unsupported {
        /// The namespace that cannot be restored.
        namespace: Namespace,
        /// Why not.
        reason: String,
    },
    /// The server refused a command, or the connection to it broke.
    #[error("{doing} {namespace}")]
    Command {
        /// What was being done.
        doing: &'static str,
        /// To which namespace.
        namespace: Namespace,
        /// What the server said.
        source: Box<WireError>,
    },
    /// The thread that reads or writes the archive's bytes ended before its work did: this process
    /// is stopping.
    #[error("work on an archive was abandoned")]
    Stopped {
        /// How it ended.
        source: tokio::task::JoinError,
    },
    /// The destination refused bytes, for example because its disk is full.
    #[error("write archive{}", within(.namespace.as_ref()))]
    Write {
        /// The namespace being written, if one was.
        namespace: Option<Namespace>,
        /// What the destination said.
        source: io::Error,
    },
    /// The caller wrote what would not be a sound archive.
    #[error("write archive, in {namespace}: {damage}")]
    Refused {
        /// The namespace being written.
        namespace: Namespace,
        /// What would be wrong with the archive.
        damage: Damage,
    },
}

/// What is wrong with the bytes of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// Neither the magic of an archive nor of gzip.
    #[error("it starts with {0:02x?}, which is neither a mongodump archive nor gzip")]
    NotAnArchive(Vec<u8>),
    /// The end of the stream came inside of something.
    #[error("the archive is cut short in the middle of {0}")]
    Cut(&'static str),
    /// The compressed stream cannot be decoded, or its own checksum differs.
    #[error("its gzip compression is broken ({0})")]
    Gzip(String),
    /// No document is that short or that long.
    #[error("{0} is no length of a document")]
    Length(u32),
    /// The last byte of a document is not zero.
    #[error("a document does not end with a zero byte")]
    Unclosed,
    /// A block must start with a header.
    #[error("a terminator stands where a block should start")]
    EmptyBlock,
    /// A document that belongs to the archive itself does not have its fields.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive's format is not the one known here.
    #[error("its format version is `{0}`, and only `0.1` is known")]
    Version(String),
    /// The list of namespaces is longer than any real one.
    #[error("its list of namespaces is longer than {0} bytes")]
    PreludeTooLong(usize),
    /// The prelude lists one namespace twice.
    #[error("the namespace is listed twice")]
    ListedTwice,
    /// The prelude does not list the namespace.
    #[error("the namespace is missing from the archive's list of namespaces")]
    Unlisted,
    /// The namespace has documents after its end, or ends twice.
    #[error("the namespace goes on after its end")]
    Reopened,
    /// The stream is over and the namespace is not.
    #[error("the namespace never ends")]
    NeverEnded,
    /// The documents are not those that were written.
    #[error("its checksum is {found:016x} instead of {expected:016x}")]
    Checksum {
        /// Computed from the documents.
        found: u64,
        /// As the archive says.
        expected: u64,
    },
}

impl ArchiveError {
    /// True where the archive itself is at fault, so that trying again cannot help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Unsupported { .. })
    }

    /// The error of a command that was `doing` something to `namespace`.
    pub(super) fn command(
        doing: &'static str,
        namespace: &Namespace,
    ) -> impl FnOnce(WireError) -> Self {
        let namespace = namespace.clone();
        move |source| Self::Command { doing, namespace, source: Box::new(source) }
    }

    pub(super) fn stopped(source: tokio::task::JoinError) -> Self {
        Self::Stopped { source }
    }

    /// The same error, blamed on `namespace` unless it names one already.
    pub(super) fn within(mut self, blamed: &Namespace) -> Self {
        if let Self::Read { namespace, .. } | Self::Damaged { namespace, .. } = &mut self {
            namespace.get_or_insert_with(|| blamed.clone());
        }
        self
    }
}

fn within(namespace: Option<&Namespace>) -> String {
    namespace.map(|namespace| format!(", in {namespace}")).unwrap_or_default()
}
