//! Labels: what people call a version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A checked label: 1 to 63 of `a-z A-Z 0-9 . _ -`, a letter first, and not 26 letters and digits
/// alone. So no label can be taken for a version's id or for a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// Why a text is no label.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a label: {reason}")]
pub struct InvalidLabel {
    text: String,
    reason: &'static str,
}

/// Most bytes of a label: as many as a branch's name may have.
const LABEL_BYTES: usize = 63;

/// A version id is a ULID in text.
const VERSION_ID_CHARACTERS: usize = 26;

/// Whether a text has the shape of a version's id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == VERSION_ID_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > LABEL_BYTES {
            "it is longer than 63 characters"
        } else if !text.bytes().all(legal) {
            "only a-z, A-Z, 0-9, `.`, `_` and `-` are allowed"
        } else if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            "it must begin with a letter"
        } else if is_id(text) {
            "26 letters and digits are a version's id"
        } else {
            return Ok(Self(text.to_owned()));
        };
        // A hostile label is echoed, but not at any length.
        let text = text.chars().take(LABEL_BYTES + 1).collect();
        Err(InvalidLabel { text, reason })
    }
}

impl TryFrom<String> for Label {
    type Error = InvalidLabel;

    fn try_from(text: String) -> Result<Self, InvalidLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_neither_ids_nor_times() {
        let id = "01arz3ndektsv4rrffq69g5fav";
        for (text, legal) in [
            ("v1.2.0", true),
            ("before_the-Sale", true),
            ("x", true),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
            (&"a".repeat(26), false),
            (&format!("{}-", "a".repeat(25)), true),
            (id, false),
            (&id.to_uppercase(), false),
            ("2026-01-31T12:00:00Z", false),
            ("2026-01-31", false),
            ("1.2", false),
            ("-x", false),
            (".x", false),
            ("", false),
            ("a b", false),
            ("a@b", false),
            ("a/b", false),
            ("ä", false),
        ] {
            assert_eq!(text.parse::<Label>().is_ok(), legal, "{text}");
        }
        assert_eq!(
            "a b".parse::<Label>().unwrap_err().to_string(),
            "`a b` is not a label: only a-z, A-Z, 0-9, `.`, `_` and `-` are allowed"
        );
    }
}
