//! What can go wrong with a volume.

use std::error::Error;
use std::time::Duration;

use thiserror::Error;

use super::format::FormatError;
use crate::base::ids::{BranchId, Epoch, ServerId, VersionId};
use crate::mount::MountError;
use crate::store::{Key, StoreError};

/// An operation on volumes failed. What it was to change is unchanged, or changed whole; what it
/// wrote besides is garbage that nothing refers to.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The store failed.
    #[error("{doing}")]
    Store {
        /// What was being read or written, and for what.
        doing: String,
        /// The cause.
        source: StoreError,
    },
    /// A local directory could not be read or written, or holds what a volume cannot.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A file changed while it was captured: mongod still runs, or another has the directory.
    #[error("file `{path}` changed while it was read")]
    Changed {
        /// Relative to the volume's root.
        path: String,
    },
    /// There is no such version.
    #[error("version {version} does not exist")]
    NoVersion {
        /// Which.
        version: VersionId,
    },
    /// The id is taken. Versions never change: a capture that is tried again takes a new id.
    #[error("version {version} exists already")]
    VersionExists {
        /// Which.
        version: VersionId,
    },
    /// The branch has no head.
    #[error("branch {branch} has no head in the store")]
    NoHead {
        /// Which.
        branch: BranchId,
    },
    /// The branch has a head already.
    #[error("branch {branch} has a head in the store already")]
    HeadExists {
        /// Which.
        branch: BranchId,
    },
    /// Another writer moved the head: this one has lost the branch and must stop.
    #[error("branch {branch} was taken over: epoch {epoch} met {}", holder(*found, *owner))]
    Fenced {
        /// Which.
        branch: BranchId,
        /// The epoch that was to be written.
        epoch: Epoch,
        /// The epoch in the store; none if the head is gone.
        found: Option<Epoch>,
        /// The owner in the store.
        owner: Option<ServerId>,
    },
    /// The version is given up, and will be deleted.
    #[error("version {version} was given up and is about to be deleted")]
    Condemned {
        /// Which.
        version: VersionId,
    },
    /// The upload took so long that garbage collection may have taken some of it.
    #[error(
        "version {version} was not written: its upload took {took:?}, and {limit:?} is the most"
    )]
    TooLate {
        /// Which.
        version: VersionId,
        /// Since its beginning.
        took: Duration,
        /// The most.
        limit: Duration,
    },
    /// Another server collected garbage at the same time. Nothing was deleted by this one.
    #[error("another server collects garbage in this store")]
    OtherCollector,
    /// Another writer replaced a server's lease since it was read.
    #[error("the lease of server {server} was replaced since it was read")]
    LeaseMoved {
        /// Whose.
        server: ServerId,
    },
    /// A later Argon wrote the object.
    #[error(
        "{object} is of format version {found}, this Argon knows up to {known}: use a newer one"
    )]
    Newer {
        /// Which.
        object: Key,
        /// Its format version.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// The bytes of an object are not what they must be.
    #[error("{object} is damaged: {place}")]
    Damaged {
        /// Which.
        object: Key,
        /// Where in it, and what needs it.
        place: String,
        /// What is wrong.
        source: FormatError,
    },
    /// The volume does not fit into the format's limits.
    #[error("{object} cannot be written")]
    Unwritable {
        /// What was to be written.
        object: Key,
        /// The limit.
        source: FormatError,
    },
}

impl VolumeError {
    /// Whether the same may succeed later: the store was full, forbidden or out of reach.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.is_retryable(),
            Self::Mount(error) => matches!(error, MountError::Io { .. }),
            Self::OtherCollector | Self::TooLate { .. } => true,
            _ => false,
        }
    }

    /// Whether the store has lost something, or has it wrong: an object is missing, short or
    /// damaged. Trying again does not help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::NoVersion { .. } => true,
            Self::Store { source, .. } => matches!(
                source,
                StoreError::NotFound { .. }
                    | StoreError::ShortRange { .. }
                    | StoreError::TooLarge { .. }
            ),
            _ => false,
        }
    }

    /// Whether an object is not there. Who knows it from a root that was read long ago reads that again.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Store { source: StoreError::NotFound { .. }, .. })
    }

    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        let (mut text, mut cause) = (self.to_string(), self.source());
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

    /// For `map_err`: the store failed at this.
    pub(super) fn store(doing: impl FnOnce() -> String) -> impl FnOnce(StoreError) -> Self {
        move |source| Self::Store { doing: doing(), source }
    }

    /// For `map_err`: these bytes cannot be read.
    pub(super) fn damaged(object: &Key, place: &str) -> impl FnOnce(FormatError) -> Self {
        move |source| match source {
            FormatError::Newer { found, known } => {
                Self::Newer { object: object.clone(), found, known }
            }
            source => Self::Damaged { object: object.clone(), place: place.to_owned(), source },
        }
    }

    /// For `map_err`: this cannot be put into bytes.
    pub(super) fn unwritable(object: &Key) -> impl FnOnce(FormatError) -> Self {
        move |source| Self::Unwritable { object: object.clone(), source }
    }
}

fn holder(found: Option<Epoch>, owner: Option<ServerId>) -> String {
    match (found, owner) {
        (None, _) => "no head".to_owned(),
        (Some(found), None) => format!("epoch {found}"),
        (Some(found), Some(owner)) => format!("epoch {found} of server {owner}"),
    }
}
