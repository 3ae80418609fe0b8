//! The MongoDB wire protocol: framing, OP_MSG, the old OP_QUERY and OP_REPLY, OP_COMPRESSED, and
//! a minimal client over them for Argon's own commands.
//!
//! Job: turn bytes into messages and back. Not its job: routing, waking, waiting, retrying; the
//! client has no time-outs, its caller puts them around it.
//! Invariant: a size that came from the wire is checked before anything is allocated or sliced by
//! it.
//!
//! Source: <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/> and the drivers'
//! specifications (`message/OP_MSG.md`, `compression/OP_COMPRESSED.md`).

mod bytes;
mod client;
mod compressed;
mod cursor;
mod error;
mod header;
mod insert;
mod legacy;
mod message;
mod msg;
#[cfg(test)]
mod properties;

pub use client::Client;
pub use compressed::decompress;
pub use cursor::Cursor;
pub use error::WireError;
pub use header::{Header, OpCode};
pub use insert::{InsertOptions, Order, Validation};
pub use legacy::{Query, ReplyFlags, encode_reply};
pub use message::{Message, read_message};
pub use msg::{Documents, Msg, MsgFlags, Sequence, encode_msg};
