//! mongodump archives: read, check, write, load, dump.
//!
//! Job: the format of `mongodump --archive`, from and to a real mongod, and nothing of it trusted.
//! Not its job: where archives are kept, and starting the mongod.
//! Invariant: memory is bounded whatever an archive says; damage is an error that names the
//! namespace and the byte, never a panic.

mod blocks;
mod check;
#[cfg(test)]
mod damage;
mod error;
#[cfg(test)]
mod golden;
mod ledger;
mod metadata;
mod prelude;
mod reader;
mod writer;

pub use check::{Summary, check};
pub use error::{ArchiveError, Damage};
pub use metadata::Metadata;
pub use prelude::{Entry, Header, Namespace, Prelude};
pub use reader::{Contents, Item, Reader};
pub use writer::{Compression, Writer};
