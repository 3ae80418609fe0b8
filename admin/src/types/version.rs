//! Versions of a branch.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A state of a branch that never changes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The version's id.
    pub id: String,
    /// When it was made.
    pub created_at: String,
    /// The version it was made on top of; absent for a first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What made it: `suspend`, `snapshot`, `delete`, `base`, `empty`, …
    pub cause: String,
    /// Whether it is kept for good.
    #[serde(default)]
    pub pinned: bool,
    /// What somebody called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Sum of its file sizes, bytes.
    pub size_bytes: u64,
    /// Bytes in blocks that no version before it had, before compression.
    pub new_bytes: u64,
    /// Bytes that it added to the store, after compression.
    pub stored_bytes: u64,
    /// Version of the mongod that wrote it, for example `6.0.5`.
    pub mongod_version: String,
}

/// What `POST …/snapshot` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeSnapshot {
    /// What to call the version: 1 to 63 of `a-zA-Z0-9._-`, a letter first, not 26 letters and
    /// digits alone; no other version of the branch may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
