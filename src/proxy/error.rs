//! Why the proxy cannot listen, or why a client's connection ended.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::opening::Foreign;
use crate::wire::{OpCode, WireError};

/// All but the first concern one connection, and are the log's: the client is gone, or must go.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The address cannot be listened on.
    #[error("listen for clients on {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No hello came in time.
    #[error("the client sent nothing on its way to a hello for {waited:?}")]
    Late {
        /// The limit.
        waited: Duration,
    },
    /// The first bytes are another protocol's.
    #[error("the client speaks {protocol}, which is not spoken here")]
    Foreign {
        /// Which.
        protocol: Foreign,
    },
    /// The first bytes are no message at all.
    #[error("the client's first bytes are no message: {seen}")]
    NoMessage {
        /// Some of them, printable.
        seen: String,
        /// What is wrong with them.
        #[source]
        source: WireError,
    },
    /// A later message is not understood, was cut, or the socket failed.
    #[error("read the client's message")]
    Client {
        /// What is wrong with it.
        #[source]
        source: WireError,
    },
    /// The message's kind is none that clients send.
    #[error("the client sent {opcode}")]
    Opcode {
        /// Its kind.
        opcode: OpCode,
    },
    /// The client sent half a message, or took half a reply.
    #[error("the client stood still inside a message for {waited:?}")]
    Stalled {
        /// The limit.
        waited: Duration,
    },
    /// The client did not wait for its answer.
    #[error("the client hung up while its command was under way")]
    HungUp,
    /// The command's name came after so many bytes that the message was on its way already, and it
    /// is none that may be sent.
    #[error("the client put {command} behind other sections")]
    Hidden {
        /// The command.
        command: String,
    },
    /// The client has half a reply, and the rest will not come.
    #[error("the branch's mongod broke off inside a reply")]
    Torn {
        /// How it broke off.
        #[source]
        source: WireError,
    },
    /// The server shuts down and an endless reply was under way.
    #[error("the server shuts down")]
    Drained,
}

impl ProxyError {
    pub(super) fn client(source: WireError) -> Self {
        Self::Client { source }
    }
}
