//! What the byte formats share: reading fields, and the ways in which bytes can be wrong.

use serde::{Deserialize, Deserializer, Serializer};
use thiserror::Error;

use crate::base::clock::Timestamp;

/// Bytes do not say what they should (`data/README.md`).
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// There are fewer bytes than the format needs, or more.
    #[error("{found} bytes stand where {expected} belong")]
    Length {
        /// As the format says.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// The first or last bytes are not Argon's.
    #[error("it is no object of Argon's")]
    Magic,
    /// It is an object of another kind, or of another id.
    #[error("it is {found}, not {expected}")]
    Other {
        /// What was looked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A later Argon wrote it.
    #[error("it is of format version {found}, and this Argon knows those up to {known}")]
    Newer {
        /// The version there.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The bytes are not those that were written.
    #[error("its checksum does not fit its bytes")]
    Checksum,
    /// A number is larger than the format allows.
    #[error("{field} is {found}, and {most} is the most")]
    Limit {
        /// Which.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
}

impl FormatError {
    pub(super) fn invalid(reason: impl ToString) -> Self {
        Self::Invalid(reason.to_string())
    }
}

/// Requires exactly `expected` bytes.
pub fn exactly(expected: usize, bytes: &[u8]) -> Result<(), FormatError> {
    if bytes.len() == expected {
        return Ok(());
    }
    Err(FormatError::Length { expected: expected as u64, found: bytes.len() as u64 })
}

/// Requires `least <= value <= most`, where `least` is 0 or 1.
pub fn within(field: &'static str, value: u32, least: u32, most: u32) -> Result<u32, FormatError> {
    if value < least {
        return Err(FormatError::Invalid(format!("{field} is 0")));
    }
    if value > most {
        return Err(FormatError::Limit { field, found: value.into(), most: most.into() });
    }
    Ok(value)
}

/// Takes fields from the front of bytes.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn slice(&mut self, bytes: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or(FormatError::Length { expected: bytes as u64, found: self.0.len() as u64 })?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.slice(N)?.try_into().expect("the slice has this length"))
    }

    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn hash(&mut self) -> Result<blake3::Hash, FormatError> {
        self.array().map(blake3::Hash::from_bytes)
    }

    /// Reserved bytes, which are zero.
    pub fn reserved<const N: usize>(&mut self) -> Result<(), FormatError> {
        match self.array::<N>()? {
            bytes if bytes == [0; N] => Ok(()),
            _ => Err(FormatError::invalid("reserved bytes are not zero")),
        }
    }
}

/// Serde: a [`Timestamp`] as milliseconds.
pub mod ms {
    use super::*;

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(at.unix_ms())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(input).map(Timestamp::from_unix_ms)
    }
}

/// Serde: an optional [`Timestamp`] as milliseconds; use with `default` and `skip_serializing_if`.
pub mod optional_ms {
    use super::*;

    pub fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => ms::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<u64>::deserialize(input)?.map(Timestamp::from_unix_ms))
    }
}
