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
    /// The image that its new branches' mongods come from; absent where that is the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
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
    /// How versions that were made by the clock are thinned; as below where absent.
    #[serde(default)]
    pub periodic: Thinning,
}

/// How versions that were made by the clock (cause `periodic`) are thinned with age, before the
/// other rules are asked: up to `all_ms` all stay, then the newest of each minute, then of each
/// hour, beyond `hours_ms` of each day. What has a label, is pinned or needed is not thinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Thinning {
    /// Up to this age all of them stay, milliseconds; 3600000, an hour, where absent.
    pub all_ms: u64,
    /// Up to this age the newest of each minute stays, milliseconds; 86400000, a day, where absent.
    pub minutes_ms: u64,
    /// Up to this age the newest of each hour stays, milliseconds; 2592000000, 30 days, where
    /// absent.
    pub hours_ms: u64,
}

impl Default for Thinning {
    fn default() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        Self { all_ms: HOUR_MS, minutes_ms: 24 * HOUR_MS, hours_ms: 30 * 24 * HOUR_MS }
    }
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
    /// The image that its branches' mongods come from, as in `mongo:8.0`; the server's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// What `PUT /v1/projects/{project}/image` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetImage {
    /// The image that new branches' mongods come from; the server's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
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
