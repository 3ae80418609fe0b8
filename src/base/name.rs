//! Names that people give to projects and branches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::limits::NAME_BYTES;

/// A checked name: 1 to 63 lower-case letters, digits and `-`, with no `-` at either end, so that
/// it can stand in a URI, a file name and a DNS label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a name: {reason}")]
pub struct InvalidName {
    text: String,
    reason: &'static str,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > NAME_BYTES {
            "it is longer than 63 characters"
        } else if !text.bytes().all(legal) {
            "only a-z, 0-9 and `-` are allowed"
        } else if text.starts_with('-') || text.ends_with('-') {
            "it may not start or end with `-`"
        } else {
            return Ok(Self(text.to_owned()));
        };
        // A hostile name is echoed, but not at any length.
        let text = text.chars().take(NAME_BYTES + 1).collect();
        Err(InvalidName { text, reason })
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_name_is_its_text(text in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.as_str(), text);
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
        }

        #[test]
        fn no_text_makes_a_name_that_needs_escaping(text in ".{0,70}") {
            if let Ok(name) = text.parse::<Name>() {
                let name = name.as_str();
                assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
                assert!(!name.is_empty() && name.len() <= NAME_BYTES);
            }
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for (text, legal) in [
            ("dev", true),
            ("pr-1234", true),
            ("0", true),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
            ("", false),
            ("Dev", false),
            ("a/b", false),
            ("a_b", false),
            ("-a", false),
            ("a-", false),
            ("ä", false),
            ("a b", false),
            ("..", false),
        ] {
            assert_eq!(text.parse::<Name>().is_ok(), legal, "{text}");
        }
    }
}
