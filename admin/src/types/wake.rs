//! How wakes went.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a wake took, phase by phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wake {
    /// When it had ended.
    pub at: String,
    /// Where its mongod came from.
    pub by: WakeBy,
    /// Claiming the branch and bringing its data to this machine.
    pub restore_ms: u64,
    /// Waiting for a turn: only so many mongods start at once.
    pub queue_ms: u64,
    /// From the start of the process, or of its being let go on, until it listened.
    pub mongod_start_ms: u64,
    /// Until it was a writable primary.
    pub primary_ms: u64,
    /// Until the first command's connection to it stood; absent as long as no command came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_ms: Option<u64>,
}

/// Where a wake's mongod came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WakeBy {
    /// It was started ahead, and waited.
    Parked,
    /// It was started for the wake.
    Cold,
}

impl WakeBy {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Cold => "cold",
        }
    }
}

/// One wake, step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeTrace {
    /// When its mongod was ready.
    pub at: String,
    /// Which life of the branch it began.
    pub epoch: u64,
    /// Where its mongod came from.
    pub by: WakeBy,
    /// Why not from the parked ones, where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_because: Option<String>,
    /// The steps in their order, one after the other. The last one, `attach`, is absent as long as no
    /// command came.
    pub steps: Vec<WakeStep>,
    /// What was done meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<WakeStep>,
}

/// A step of a wake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeStep {
    /// What was done.
    pub name: String,
    /// How long it took, microseconds.
    pub took_us: u64,
}
