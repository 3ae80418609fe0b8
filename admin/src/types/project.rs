//! Projects, and the base archive that new ones start from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Version;

/// A group of branches that start from one base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// The project's id.
    pub id: String,
    /// 1 to 63 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// When it was created.
    pub created_at: String,
    /// The version that branches made "from base" start from; absent until the base was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
    /// How long its versions and deleted branches are kept.
    #[serde(default)]
    pub retention: Retention,
}

/// Which versions and deleted branches a project keeps. A version goes only where both of the first
/// two rules let it go, nothing needs it, and it is not pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The newest versions of each branch that stay, at least 1; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub keep_last: Option<u32>,
    /// How far back every state of a branch can be gone to, milliseconds; for ever where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_ms: Option<u64>,
    /// How long a deleted branch can be brought back, milliseconds; for ever where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_deleted_ms: Option<u64>,
}

/// Something that retention lets go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leaving {
    /// Name of its branch.
    pub branch: String,
    /// Id of its branch.
    pub branch_id: String,
    /// The version; absent where a deleted branch goes as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

/// What `POST /v1/projects` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end.
    pub name: String,
}

/// The archive that new projects start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Base {
    /// BLAKE3 of the archive's bytes, 64 hexadecimal digits.
    pub digest: String,
    /// Size of the archive, bytes.
    pub bytes: u64,
    /// Where the archive is, for people to read.
    pub source: String,
    /// The version it was loaded into; absent until a project needed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When the archive was set, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<String>,
}
