//! What garbage collection and scrub tell.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How garbage is to be collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectGarbage {
    /// Change nothing, and tell what a run would do now.
    #[serde(default)]
    pub dry_run: bool,
}

/// Objects of the store, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Versions.
    pub versions: u64,
    /// Objects of index pages.
    pub pages: u64,
    /// Packs of blocks.
    pub packs: u64,
    /// Bytes of them all.
    pub bytes: u64,
}

/// What a run of garbage collection did; after a dry one, what a run would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// What was deleted.
    pub deleted: Tally,
    /// What nothing needs, and that is deleted by a later run.
    pub condemned: Tally,
    /// From when on a run deletes the first of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// Objects of which little was needed; that was written anew, and they go later.
    pub rewritten: Tally,
    /// Bytes that were written instead of them; 0 after a dry run.
    pub rewritten_as_bytes: u64,
    /// What is needed.
    pub kept: Tally,
}

/// What a scrub found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Scrubbed {
    /// Versions that were read.
    pub versions: u64,
    /// Packs and objects of index pages that were read.
    pub objects: u64,
    /// Blocks and index pages that were verified.
    pub frames: u64,
    /// What is wrong, by object. Empty: the store is sound.
    pub damages: Vec<Damage>,
}

/// An object that is missing, or is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Damage {
    /// Its key in the store.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// The versions that need just what is wrong.
    pub hurts: Vec<Hurt>,
}

/// A version that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hurt {
    /// The version's id.
    pub version: String,
    /// Whose it is, and who started from it: `PROJECT/BRANCH`, or in words.
    pub names: Vec<String>,
    /// The files that need what is wrong, at most ten.
    pub files: Vec<String>,
}
