//! How the server stands.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the server stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of Argon.
    pub version: String,
    /// Time since the start, milliseconds.
    pub uptime_ms: u64,
    /// The mongod that branches run on.
    pub mongod: Mongod,
    /// The mongods that are started ahead of wakes.
    pub parked: ParkedMongods,
    /// How branches' processes are run, for people to read.
    pub compute: String,
    /// Where versions are kept, for people to read.
    pub store: String,
    /// Where the server keeps its own files.
    pub data_dir: String,
    /// Where drivers connect, `HOST:PORT`.
    pub listen: String,
    /// How many projects there are.
    pub projects: u64,
    /// How many branches there are, by state.
    pub branches: BranchCounts,
    /// Client connections to the proxy now.
    pub connections: u64,
}

/// The mongod that branches run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mongod {
    /// The binary, or the image that it is in.
    pub path: String,
    /// Its version, for example `6.0.5`.
    pub version: String,
}

/// The mongods that are started ahead of wakes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParkedMongods {
    /// How many the server keeps; 0: none, because it was told so or because volumes are not mounted
    /// lazily here.
    pub wanted: u64,
    /// How many wait for a branch now.
    pub parked: u64,
    /// How many are on their way there.
    pub starting: u64,
    /// Why the last one was lost, while none has been parked since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Numbers of branches by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BranchCounts {
    /// No process; every byte is in the newest version.
    pub suspended: u64,
    /// A mongod is being started.
    pub waking: u64,
    /// Served by a mongod.
    pub running: u64,
    /// Being made a version.
    pub suspending: u64,
    /// With writes on this server's disk that no version has yet.
    pub saving: u64,
    /// With writes on this server's disk that cannot be read in full: somebody has to decide.
    pub held: u64,
    /// Deleted and not purged.
    pub deleted: u64,
}
