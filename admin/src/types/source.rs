//! What a new branch starts from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::label::{Label, is_id};

/// What a new branch starts from. As text: `BRANCH`, `BRANCH@VERSION`, `BRANCH@TIME` or
/// `BRANCH@LABEL` is a [`BranchSource::Branch`]; the other two have no text form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BranchSource {
    /// The project's base.
    #[default]
    Base,
    /// A database with nothing in it.
    Empty,
    /// A version of another branch of the project, or of a deleted one.
    Branch {
        /// That branch's name.
        branch: String,
        /// Which of its versions; where absent its present state, which becomes a version first if
        /// the branch is running.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<At>,
    },
}

/// One version of a branch, by id, by time or by label. Their texts differ: a label begins with a
/// letter and is not 26 letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// The version with this id.
    Version(String),
    /// The newest version that is not younger than this time (RFC 3339).
    Time(String),
    /// The version that somebody called this.
    Label(String),
}

/// Why a text names no source of a branch.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidSource {
    /// Nothing stands before the `@`, or nothing at all.
    #[error("`{0}` names no branch: expected BRANCH, BRANCH@VERSION, BRANCH@TIME or BRANCH@LABEL")]
    NoBranch(String),
    /// What stands after the `@` is neither an id nor a time nor a label.
    #[error(
        "`{0}` is neither a version (26 letters and digits) nor a time (RFC 3339, for example \
         2026-01-31T12:00:00.000Z) nor a label (a letter first)"
    )]
    NoVersion(String),
}

impl FromStr for BranchSource {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let (branch, at) = match text.split_once('@') {
            Some((branch, at)) => (branch, Some(at.parse()?)),
            None => (text, None),
        };
        if branch.is_empty() {
            return Err(InvalidSource::NoBranch(text.to_owned()));
        }
        Ok(Self::Branch { branch: branch.to_owned(), at })
    }
}

impl FromStr for At {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        if is_id(text) {
            Ok(Self::Version(text.to_ascii_lowercase()))
        } else if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
            Ok(Self::Time(text.to_owned()))
        } else if text.parse::<Label>().is_ok() {
            Ok(Self::Label(text.to_owned()))
        } else {
            Err(InvalidSource::NoVersion(text.to_owned()))
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(text) | Self::Time(text) | Self::Label(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for BranchSource {
    /// The text form; `base` and `empty` for the two that have none (a branch may be called so too,
    /// so this is for people to read).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Empty => f.write_str("empty"),
            Self::Branch { branch, at: None } => f.write_str(branch),
            Self::Branch { branch, at: Some(at) } => write!(f, "{branch}@{at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01arz3ndektsv4rrffq69g5fav";

    proptest::proptest! {
        #[test]
        fn a_source_is_its_text(
            branch in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            version in "[0-9a-z]{26}",
            time in "20[0-9]{2}-0[1-9]-[012][1-8]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z",
        ) {
            let label = At::Label("v1.2".into());
            for at in [None, Some(At::Version(version.clone())), Some(At::Time(time.clone())), Some(label)] {
                let source = BranchSource::Branch { branch: branch.clone(), at };
                assert_eq!(source.to_string().parse::<BranchSource>().unwrap(), source);
            }
        }

        #[test]
        fn whatever_is_a_source_is_its_text(text in "[a-z@0-9:TZ.-]{0,30}") {
            if let Ok(source) = text.parse::<BranchSource>() {
                assert_eq!(source.to_string().parse::<BranchSource>().unwrap(), source);
            }
        }
    }

    #[test]
    fn text_forms_are_read_and_written_back() {
        for (text, at) in [
            ("dev".to_owned(), None),
            (format!("dev@{ID}"), Some(At::Version(ID.into()))),
            (
                "dev@2026-01-31T12:00:00.000Z".to_owned(),
                Some(At::Time("2026-01-31T12:00:00.000Z".into())),
            ),
            (
                "dev@2026-01-31T12:00:00+01:00".to_owned(),
                Some(At::Time("2026-01-31T12:00:00+01:00".into())),
            ),
            ("dev@before-the-sale".to_owned(), Some(At::Label("before-the-sale".into()))),
            ("dev@yesterday".to_owned(), Some(At::Label("yesterday".into()))),
        ] {
            let source: BranchSource = text.parse().unwrap();
            assert_eq!(source, BranchSource::Branch { branch: "dev".into(), at });
            assert_eq!(source.to_string(), text);
        }
        assert_eq!(ID.to_uppercase().parse(), Ok(At::Version(ID.into())));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "@", "@x", "dev@", "dev@1", "dev@2026-01-31", "dev@a@b"] {
            assert!(text.parse::<BranchSource>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_as_the_document_says() {
        for (source, json) in [
            (BranchSource::Base, serde_json::json!("base")),
            (BranchSource::Empty, serde_json::json!("empty")),
            ("dev".parse().unwrap(), serde_json::json!({"branch": {"branch": "dev"}})),
            (
                "dev@v1".parse().unwrap(),
                serde_json::json!({"branch": {"branch": "dev", "at": {"label": "v1"}}}),
            ),
            (
                format!("dev@{ID}").parse().unwrap(),
                serde_json::json!({"branch": {"branch": "dev", "at": {"version": ID}}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&source).unwrap(), json);
            assert_eq!(serde_json::from_value::<BranchSource>(json).unwrap(), source);
        }
        for wrong in [r#""main""#, r#"{"branch":{"branch":"dev","as_of":"x"}}"#, "{}"] {
            assert!(serde_json::from_str::<BranchSource>(wrong).is_err(), "{wrong}");
        }
    }
}
