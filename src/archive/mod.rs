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
mod dump;
mod error;
#[cfg(test)]
mod golden;
mod indexes;
mod ledger;
#[cfg(test)]
mod live;
mod load;
mod metadata;
mod oplog;
mod plan;
mod prelude;
mod reader;
#[cfg(test)]
mod sample;
mod users;
mod writer;

pub use check::{Summary, check};
pub use dump::{Dumped, dump};
pub use error::{ArchiveError, Damage};
pub use load::{Loaded, load};
pub use metadata::Metadata;
pub use prelude::{Entry, Header, Namespace, Prelude};
pub use reader::{Contents, Item, Reader};
pub use writer::{Compression, Writer};
