//! What may be wrong with bytes from the wire, or with a server's answer.

use std::io;

use thiserror::Error;

use super::header::OpCode;

/// Why a message could not be read, or what a server answered instead of success.
#[derive(Debug, Error)]
pub enum WireError {
    /// The length field is outside what any server accepts.
    #[error("message length {length} is outside {min}..={max}", min = crate::base::limits::MESSAGE_BYTES_MIN, max = crate::base::limits::MESSAGE_BYTES_MAX)]
    Length {
        /// The field as it stood in the header.
        length: i32,
    },
    /// The length is legal, but more than this reader takes at this point.
    #[error("message of {length} bytes is larger than the {max} bytes allowed here")]
    TooLarge {
        /// What the message (or what it unpacks to) would take, bytes.
        length: usize,
        /// The bound it broke, bytes.
        max: usize,
    },
    /// The peer closed the connection inside a message.
    #[error("connection closed inside a message: {got} of {expected} bytes came")]
    Cut {
        /// Bytes that were announced.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The inside of a message breaks its format.
    #[error("malformed {part}: {problem}")]
    Malformed {
        /// The part that was being read.
        part: &'static str,
        /// What was wrong with it.
        problem: &'static str,
    },
    /// A document in a message is no BSON.
    #[error("malformed {part}")]
    Bson {
        /// The part that was being read or written.
        part: &'static str,
        /// What the BSON reader found.
        #[source]
        source: Box<bson::error::Error>,
    },
    /// The socket failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The answer is none to what was asked; the connection can no longer be used.
    #[error("expected a reply to request {request_id}, got {opcode} to request {response_to}")]
    WrongReply {
        /// What was asked.
        request_id: i32,
        /// What the answer says it answers.
        response_to: i32,
        /// The answer's opcode.
        opcode: OpCode,
    },
    /// The server executed the command and said `ok: 0`.
    #[error("command {name} failed with code {code} ({code_name}): {message}")]
    Command {
        /// The command's name.
        name: String,
        /// The server's error code; 0 where it gave none.
        code: i32,
        /// The code's name; empty where it gave none.
        code_name: String,
        /// The server's message.
        message: String,
    },
    /// The server refused one document of an insert, or could not satisfy its write concern.
    #[error("insert into {namespace} failed at document {index} with code {code}: {message}")]
    Write {
        /// `database.collection`.
        namespace: String,
        /// The refused document's place among those given.
        index: usize,
        /// The server's error code.
        code: i32,
        /// The server's message.
        message: String,
    },
}

impl WireError {
    /// The server's error code, where a server answered.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Command { code, .. } | Self::Write { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same on a new connection may succeed: the connection broke, not the request.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Cut { .. } | Self::WrongReply { .. })
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }

    pub(crate) fn bson(part: &'static str) -> impl FnOnce(bson::error::Error) -> Self {
        move |source| Self::Bson { part, source: Box::new(source) }
    }
}
