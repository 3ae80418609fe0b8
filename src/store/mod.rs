//! Objects under keys: the one place that outlives a machine.
//!
//! Job: read, write (if absent, if unchanged), list and delete whole objects; one trait for every
//! kind of store. Not its job: what the bytes mean, which keys exist, caching, retries of a caller's
//! whole operation.
//!
//! Public: [`Store`], its types ([`Key`], [`ETag`], [`Condition`], [`Object`], [`Listed`]),
//! [`LocalStore`], [`S3Store`], [`StoreError`].
//! Invariant: a reader sees an object whole or not at all, and of many writers with one condition
//! exactly one succeeds.

#[cfg(test)]
mod careless;
mod error;
#[doc(hidden)]
pub mod faults;
mod key;
mod local;
pub mod probe;
mod s3;
mod single;
#[doc(hidden)]
pub mod suite;
#[doc(hidden)]
pub mod throttle;

use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::clock::Timestamp;

pub use error::StoreError;
pub use key::Key;
pub use local::LocalStore;
pub use s3::{Addressing, Credentials, Prefix, S3Limits, S3Settings, S3Store};
pub use single::SingleWriter;

/// Largest object that [`Store::read`] takes into memory, bytes. Larger ones are read by range.
pub const READ_BYTES_MAX: u64 = 65 * 1024 * 1024;

/// Most entries that one [`Store::list`] gives.
pub const LIST_PAGE: usize = 1000;

/// A store of objects.
///
/// Methods are safe to cancel in this sense: a dropped write may or may not take effect, but never
/// in part.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Which store this is, for people: a path, a bucket.
    fn describe(&self) -> String;

    /// A whole object of at most [`READ_BYTES_MAX`].
    async fn read(&self, key: &Key) -> Result<Object, StoreError>;

    /// The bytes `range` of an object; [`StoreError::ShortRange`] if it has not all of them.
    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Writes an object whole, if `condition` holds at that moment; else [`StoreError::Conflict`].
    /// What is written is durable when this returns.
    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError>;

    /// Writes a local file of any size as an object, whatever is there.
    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError>;

    /// The size of an object in bytes.
    async fn size(&self, key: &Key) -> Result<u64, StoreError>;

    /// Deletes an object; one that does not exist is fine.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// The first [`LIST_PAGE`] objects whose keys start with `prefix` and come after `after`, in
    /// the byte order of their keys. Fewer than [`LIST_PAGE`] mean that there are no more.
    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError>;
}

/// What must be true for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such object yet (`If-None-Match: *`).
    Absent,
    /// The object is still the one with this tag (`If-Match`); an absent one is not.
    Matches(ETag),
}

/// A store's mark for one state of one object; opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// An object as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its content.
    pub bytes: Bytes,
    /// The mark of this content, for [`Condition::Matches`].
    pub etag: ETag,
}

/// An object as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}
