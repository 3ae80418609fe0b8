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
    /// The credentials were good once, and are not any more.
    #[error("the credentials for the store have expired: {doing} {subject}")]
    Expired {
        /// The operation, as a verb.
        doing: &'static str,
        /// A key, or the store's place.
        subject: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There are no credentials, or none that the store knows.
    #[error("there are no credentials that the store accepts: {doing} {subject}")]
    NoCredentials {
        /// The operation, as a verb.
        doing: &'static str,
        /// A key, or the store's place.
        subject: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bucket is not there.
    #[error("bucket {bucket} does not exist")]
    NoBucket {
        /// Which.
        bucket: String,
    },
    /// Nobody answers.
    #[error("the store cannot be reached to {doing} {subject}")]
    Unreachable {
        /// The operation, as a verb.
        doing: &'static str,
        /// A key, or the store's place.
        subject: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer came in time. A write may have taken effect.
    #[error("the store took too long to {doing} {subject}")]
    TimedOut {
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
        match self {
            Self::Full { .. }
            | Self::Denied { .. }
            | Self::Expired { .. }
            | Self::NoCredentials { .. }
            | Self::NoBucket { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Io { .. } => true,
            Self::InvalidKey { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::ShortRange { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// What an operator can do, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Denied { .. } => Some(
                "let these credentials list the bucket and get, put and delete its objects: \
                 s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject; a directory must be \
                 writable by this user",
            ),
            Self::Full { .. } => Some("free space in the store, or raise its quota"),
            Self::Expired { .. } => Some(
                "renew them: in a profile's file they are read again by themselves, for those in \
                 the environment start the server again with new ones",
            ),
            Self::NoCredentials { .. } => Some(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with \
                 AWS_PROFILE, or give the machine a role; the machine's clock must be right",
            ),
            Self::NoBucket { .. } => Some("create it, or correct S3_BUCKET"),
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                Some("check --s3-endpoint, AWS_DEFAULT_REGION and the network")
            }
            _ => None,
        }
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
