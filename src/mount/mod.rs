//! A volume as mongod's dbpath.
//!
//! Job: say what a tree of files is ([`Tree`]), read one from a directory ([`walk()`]), make a
//! directory of one ([`eager`]: every block first, then mongod starts). Not its job: where blocks
//! come from (a [`BlockSource`] brings them), what changed, running mongod.
//!
//! Invariant: what is not known to be zero is never shown as zero; a mount that cannot have a block
//! fails.

pub mod eager;
pub mod lazy;
mod tree;
mod walk;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

pub use tree::{DirectoryEntry, FileEntry, InvalidTree, Tree, VolumePath};
pub use walk::walk;

/// Where a mount gets a volume's tree and blocks from. Batches are what is fetched well together;
/// how large one may be is the source's to limit.
#[async_trait]
pub trait BlockSource: Send + Sync + 'static {
    /// What fetching can fail with, beside the mount's own errors.
    type Error: Error + From<MountError> + Send;

    /// The files and directories.
    fn tree(&self) -> &Tree;

    /// How many batches there are; together they hold every block that is not zero, once.
    fn batches(&self) -> usize;

    /// The blocks of one batch, each verified and within its file.
    async fn fetch(&self, batch: usize) -> Result<Vec<Block>, Self::Error>;
}

/// A block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The file, by its place in [`Tree::files`].
    pub file: usize,
    /// The block within the file; it begins at this times [`BLOCK_BYTES`].
    ///
    /// [`BLOCK_BYTES`]: crate::base::limits::BLOCK_BYTES
    pub index: u64,
    /// Its content, as long as the file reaches.
    pub bytes: Bytes,
}

/// A directory could not be read, made or mounted.
#[derive(Debug, Error)]
pub enum MountError {
    /// The operating system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A dbpath holds something that is neither file nor directory.
    #[error("{} is a {kind}; a volume holds only plain files and directories", path.display())]
    Unsupported {
        /// What.
        path: PathBuf,
        /// In words.
        kind: &'static str,
    },
    /// The names in the directory make no tree that a volume can hold.
    #[error("{} cannot be kept in a volume", path.display())]
    Tree {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: InvalidTree,
    },
    /// A volume is only made in an empty directory.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// An overlay has lost what it once had on the disk.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The overlay or its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A mount is sealed once at a time.
    #[error("{} is sealed already", path.display())]
    SealHeld {
        /// The overlay.
        path: PathBuf,
    },
    /// A mount goes on only on top of what it was sealed as.
    #[error("{} was not sealed as the version that is to lie below it", path.display())]
    NotSealed {
        /// The overlay.
        path: PathBuf,
    },
    /// FUSE does not work here.
    #[error("mount {} by FUSE: {reason}", path.display())]
    Fuse {
        /// The mount point.
        path: PathBuf,
        /// Why not, in one line.
        reason: String,
    },
}

impl MountError {
    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }

    /// Whether what was written on a lazy mount cannot be read in full.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Whether the local disk is full or its quota used up.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// For `map_err`: names the operation and the path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
