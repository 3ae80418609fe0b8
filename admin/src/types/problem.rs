//! What went wrong, as RFC 9457 has it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A failure, sent as `application/problem+json` (RFC 9457). Programs decide by `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:argon:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs; see `docs/api.md`.
    pub code: String,
    /// What went wrong, for people.
    pub detail: String,
    /// What to do next, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// The media type of a problem document.
    pub const MEDIA_TYPE: &str = "application/problem+json";

    /// The `type` of problems with `code`.
    pub fn kind_of(code: &str) -> String {
        format!("urn:argon:problem:{code}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}
