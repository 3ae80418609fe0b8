//! What can go wrong with a store.

use std::error::Error;
use std::io;

use thiserror::Error;

use super::Key;

/// An operation on a store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The text can be no key.
    #[error("`{text}` is not a key: {reason}")]
    InvalidKey {
        /// The text, or its beginning.
        text: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// There is no such object.
    #[error("object {key} does not exist")]
    NotFound {
        /// Which.
        key: Key,
    },
    /// The condition of a write did not hold: somebody else wrote first.
    #[error("object {key} is not as the writer expected: another wrote it first")]
    Conflict {
        /// Which.
        key: Key,
    },
    /// The object ends before the range does.
    #[error("object {key} has {bytes} bytes, too few to read up to {end}")]
    ShortRange {
        /// Which.
        key: Key,
        /// Its size.
        bytes: u64,
        /// Where the range ends.
        end: u64,
    },
    /// The object is too large to be read at once.
    #[error("object {key} has {bytes} bytes, more than may be read at once")]
    TooLarge {
        /// Which.
        key: Key,
        /// Its size.
        bytes: u64,
    },
    /// No space, or the quota is used up.
    #[error("the store has no space left to {doing} {subject}")]
    Full {
        /// The operation, as a verb.
        doing: &'static str,
        /// A key, or the store's place.
        subject: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Not permitted.
    #[error("the store does not allow to {doing} {subject}")]
    Denied {
        /// The operation, as a verb.
        doing: &'static str,
        /// A key, or the store's place.
        subject: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Anything else.
    #[error("{doing} {subject}")]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// A key, or the store's place.
        subject: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody having changed its input. It says
    /// nothing about whether a failed write took effect.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Denied { .. } | Self::Io { .. })
    }

    /// Sorts an error of the operating system.
    pub(super) fn io(doing: &'static str, subject: impl ToString, cause: io::Error) -> Self {
        use io::ErrorKind::{
            PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull as Storage,
        };
        let (subject, kind, source) = (subject.to_string(), cause.kind(), cause.into());
        match kind {
            Storage | QuotaExceeded => Self::Full { doing, subject, source },
            PermissionDenied | ReadOnlyFilesystem => Self::Denied { doing, subject, source },
            _ => Self::Io { doing, subject, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_sorted() {
        for (code, sort) in [
            (libc::ENOSPC, "Full"),
            (libc::EDQUOT, "Full"),
            (libc::EACCES, "Denied"),
            (libc::EPERM, "Denied"),
            (libc::EROFS, "Denied"),
            (libc::EIO, "Io"),
        ] {
            let error = StoreError::io("write", "packs/a", io::Error::from_raw_os_error(code));
            assert!(format!("{error:?}").starts_with(sort), "{error:?}");
            assert!(error.to_string().contains("write packs/a"), "{error}");
        }
    }
}
