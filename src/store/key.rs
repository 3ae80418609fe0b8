//! Keys, checked once.

use std::fmt;
use std::str::FromStr;

use super::StoreError;

/// Longest key, bytes; S3 allows 1024, and an operator's prefix must fit beside it.
const KEY_BYTES_MAX: usize = 512;

/// The name of an object: parts of `a-z 0-9 . _ -` between single slashes, none of them starting
/// with a dot. So a key is the same in a URL, in S3 and as a path below a directory, can never
/// leave that directory, and leaves names with a dot to the store itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte)
        };
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > KEY_BYTES_MAX {
            "it is longer than 512 characters"
        } else if !text.bytes().all(legal) {
            "only a-z, 0-9 and `. _ / -` are allowed"
        } else if text.split('/').any(str::is_empty) {
            "a part between slashes is empty"
        } else if text.split('/').any(|part| part.starts_with('.')) {
            "a part starts with a dot"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(StoreError::InvalidKey { text: text.chars().take(80).collect(), reason })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_key_is_its_text(text in "[a-z0-9_-][a-z0-9._-]{0,20}(/[a-z0-9_-][a-z0-9._-]{0,20}){0,4}") {
            assert_eq!(text.parse::<Key>().unwrap().as_str(), text);
        }

        #[test]
        fn whatever_is_a_key_is_a_path_below(text in "[a-z./_-]{0,12}") {
            if let Ok(key) = text.parse::<Key>() {
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                assert!(std::path::Path::new(key.as_str()).components().all(normal));
                assert!(!key.as_str().contains("//") && !key.as_str().ends_with('/'));
            }
        }
    }

    #[test]
    fn keys_stay_below_their_directory() {
        for (text, legal) in [
            ("packs/01arz3ndektsv4rrffq69g5fav", true),
            ("base/dump.archive", true),
            ("a", true),
            ("a..b", true),
            (&"a".repeat(512), true),
            (&"a".repeat(513), false),
            ("", false),
            ("/etc/passwd", false),
            ("a/", false),
            ("a//b", false),
            ("..", false),
            ("a/../b", false),
            ("./a", false),
            (".tmp/a", false),
            ("A", false),
            ("a b", false),
            ("a\\b", false),
            ("a\0b", false),
            ("ä", false),
        ] {
            assert_eq!(text.parse::<Key>().is_ok(), legal, "{text}");
        }
    }
}
