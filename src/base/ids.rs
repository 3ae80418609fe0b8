//! Ids as types: a branch's id is not a version's.
//!
//! Every id is a ULID (48 bits of time, 80 bits of randomness), written as 26 lower-case letters
//! and digits, so that ids sort by the time they were made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ulid::Ulid;

use super::clock::Timestamp;

/// The text is not 26 characters of Crockford base 32.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not an id: expected 26 letters and digits")]
pub struct InvalidId(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Ulid);

        impl $name {
            /// A new id, made at `now` with randomness from the operating system.
            pub fn generate(now: Timestamp) -> Self {
                Self(Ulid::from_parts(now.unix_ms(), random_u128()))
            }

            /// When it was made, as far as its maker's clock knew.
            pub fn made(self) -> Timestamp {
                Timestamp::from_unix_ms(self.0.timestamp_ms())
            }

            /// The 16 bytes as they stand in the formats on disk (big-endian).
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// The id that `to_bytes` came from; every 16 bytes are an id.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.to_string().to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Ulid::from_string(&text.to_ascii_uppercase())
                    .map(Self)
                    .map_err(|_| InvalidId(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id!(
    /// A project: the group that branches and their base belong to.
    ProjectId
);
id!(
    /// A branch, for its whole life, deleted time included; names may be used again, ids never.
    BranchId
);
id!(
    /// An immutable version of a volume.
    VersionId
);
id!(
    /// An immutable object of many blocks or index pages.
    PackId
);
id!(
    /// A piece of long work that the admin API lets a client follow.
    OperationId
);
id!(
    /// One server on one data directory; the owner in a branch head.
    ServerId
);

/// Counts the lives of a branch: it grows by one at every wake, and fences writers of earlier ones.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next life.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system always has randomness after boot");
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_bytes_and_sorts_by_time() {
        let early = VersionId::generate(Timestamp::from_unix_ms(1_000));
        let late = VersionId::generate(Timestamp::from_unix_ms(2_000));
        assert_eq!(early.made(), Timestamp::from_unix_ms(1_000));
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(early.to_string().to_uppercase().parse(), Ok(early));
        assert_eq!(VersionId::from_bytes(early.to_bytes()), early);
    }

    #[test]
    fn other_text_is_refused_by_name() {
        for text in ["", "x", "01arz3ndektsv4rrffq69g5fau!", "01arz3ndektsv4rrffq69g5favx"] {
            assert_eq!(text.parse::<BranchId>(), Err(InvalidId(text.to_owned())));
        }
    }
}
