//! The 16 bytes in front of every message.

use std::fmt;

use super::error::WireError;
use crate::base::limits::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN};

/// A message's header. A `Header` that exists has a legal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The whole message, header included, bytes: 16 to 48,000,000.
    pub length: u32,
    /// Chosen by the sender.
    pub request_id: i32,
    /// The `request_id` that this answers; 0 in requests.
    pub response_to: i32,
    /// What the body is.
    pub opcode: OpCode,
}

impl Header {
    /// The size of a header.
    pub const BYTES: usize = MESSAGE_BYTES_MIN;

    /// Reads a header and checks its length field.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, WireError> {
        let field = |at: usize| {
            let four = bytes[at..at + 4].try_into().expect("four bytes of sixteen");
            i32::from_le_bytes(four)
        };
        let length = u32::try_from(field(0)).unwrap_or(0);
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&(length as usize)) {
            return Err(WireError::Length { length: field(0) });
        }
        let opcode = OpCode::from(field(12));
        Ok(Self { length, request_id: field(4), response_to: field(8), opcode })
    }

    /// The header as it stands on the wire.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.request_id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.response_to.to_le_bytes());
        bytes[12..16].copy_from_slice(&i32::from(self.opcode).to_le_bytes());
        bytes
    }

    /// How many bytes follow the header.
    pub fn body_bytes(&self) -> usize {
        self.length as usize - Self::BYTES
    }
}

/// What a message's body is.
/// Source: <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/#opcodes>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    /// 1: the answer to OP_QUERY.
    Reply,
    /// 2004: how older drivers say hello.
    Query,
    /// 2012: another message, compressed.
    Compressed,
    /// 2013: every command since MongoDB 3.6, and its answer.
    Msg,
    /// Removed from the protocol, or never in it.
    Other(i32),
}

impl From<i32> for OpCode {
    fn from(number: i32) -> Self {
        match number {
            1 => Self::Reply,
            2004 => Self::Query,
            2012 => Self::Compressed,
            2013 => Self::Msg,
            other => Self::Other(other),
        }
    }
}

impl From<OpCode> for i32 {
    fn from(opcode: OpCode) -> i32 {
        match opcode {
            OpCode::Reply => 1,
            OpCode::Query => 2004,
            OpCode::Compressed => 2012,
            OpCode::Msg => 2013,
            OpCode::Other(other) => other,
        }
    }
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply => f.write_str("OP_REPLY"),
            Self::Query => f.write_str("OP_QUERY"),
            Self::Compressed => f.write_str("OP_COMPRESSED"),
            Self::Msg => f.write_str("OP_MSG"),
            Self::Other(number) => write!(f, "opcode {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        for opcode in [1, 2004, 2012, 2013, 2001, 0, -1] {
            let header = Header {
                length: 48_000_000,
                request_id: -7,
                response_to: i32::MAX,
                opcode: OpCode::from(opcode),
            };
            assert_eq!(Header::parse(&header.encode()).unwrap(), header);
            assert_eq!(i32::from(header.opcode), opcode);
        }
    }

    #[test]
    fn only_legal_lengths_make_a_header() {
        for (length, legal) in [
            (i32::MIN, false),
            (-1, false),
            (0, false),
            (15, false),
            (16, true),
            (48_000_000, true),
            (48_000_001, false),
            (i32::MAX, false),
        ] {
            let mut bytes = [0; Header::BYTES];
            bytes[0..4].copy_from_slice(&length.to_le_bytes());
            match Header::parse(&bytes) {
                Ok(header) => {
                    assert!(legal, "{length}");
                    assert_eq!(header.body_bytes(), length as usize - 16);
                }
                Err(WireError::Length { length: found }) => {
                    assert!(!legal && found == length, "{length}");
                }
                Err(other) => panic!("{length}: {other}"),
            }
        }
    }
}
