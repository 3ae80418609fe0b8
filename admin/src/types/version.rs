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
    /// What made it: `suspend`, `delete`, `base`, `empty`, …
    pub cause: String,
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
