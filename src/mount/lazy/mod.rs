//! A volume as a FUSE file system: mongod starts at once, blocks come when they are read.
//!
//! Job: serve a dbpath from a [`Source`] (the version below, read only) and an *overlay* on this
//! machine's disk (what was written since); seal it, so that all files can be read as they were at
//! one instant while writes go on. Design: ARCHITECTURE.md, "The lazy mount". Not its job: where
//! blocks come from and go to, and what a version is.

mod answer;
mod aside;
mod boot;
mod content;
mod direct;
mod disk;
mod door;
mod fetch;
mod fs;
mod held;
mod live;
mod log;
mod names;
mod node;
mod overlay;
mod pages;
mod probe;
mod rebase;
mod record;
mod recover;
mod seal;
mod session;
mod snapshot;
mod start;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;

pub use held::{HeldMount, Template, Unfit};
pub use live::{LazyMount, overlay_version, probe};
pub use log::Reading;
pub use overlay::Usage;
pub use seal::Sealed;
pub use session::{Access, mounts_below, unmount_stale};
pub use start::Durable;

use super::Tree;
use crate::base::ids::VersionId;

/// The version below a lazy mount: its tree at once, its blocks on demand.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug + 'static {
    /// Which version it is; an overlay's log names it.
    fn version(&self) -> VersionId;

    /// The files and directories.
    fn tree(&self) -> &Tree;

    /// A block that is zero, in memory or in the local cache. Reads this machine's disk at most,
    /// never asks the store. As long as the file reaches.
    fn at_hand(&self, file: usize, index: u64) -> Option<Bytes>;

    /// A block from wherever it is, verified. As long as the file reaches.
    async fn block(&self, file: usize, index: u64) -> io::Result<Bytes>;
}

/// All files as they were when a mount was sealed, and what of them differs from its [`Source`].
/// As long as it is held, what it needs is kept, whatever is written.
#[async_trait]
pub trait Changes: Send + Sync + fmt::Debug + 'static {
    /// The files and directories at that instant.
    fn tree(&self) -> &Tree;

    /// The file of the source that a file of [`Self::tree`] goes back to.
    fn origin(&self, file: usize) -> Option<usize>;

    /// The blocks of a file that may differ from its origin's, ascending; without an origin, those
    /// that may be anything but zero. A block that is longer or shorter than its origin's is among
    /// them. Every block that is not is its origin's, byte for byte, or zero without one.
    fn changed(&self, file: usize) -> Vec<u64>;

    /// A block, as long as the file reaches.
    async fn read(&self, file: usize, index: u64) -> io::Result<Bytes>;

    /// The block was read for the last time: what is kept for it alone may go.
    fn done(&self, file: usize, index: u64);

    /// Blocks that were read while mongod started and answered its first queries, as files of
    /// [`Self::tree`] and indexes, ascending. None where this mount saw no start of its own.
    fn boot(&self) -> Option<Vec<(usize, u64)>>;

    /// Blocks that the next start reads, most likely, for what they are of was changed: likewise.
    fn next_boot(&self) -> Vec<(usize, u64)>;
}
