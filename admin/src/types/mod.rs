//! The types of the admin API: what goes over HTTP between the server, this crate's client and
//! anybody else's.
//!
//! Job: shape and text forms. Not its job: rules about what is allowed when; those are the
//! server's.
//! Invariant: a field that is absent is `None`, never an empty text or a zero.
//!
//! Ids are 26 lower-case letters and digits. Times are RFC 3339 in UTC with milliseconds.

mod branch;
mod garbage;
mod idle_timeout;
mod keep_warm;
mod label;
mod operation;
mod problem;
mod project;
mod snapshot_every;
mod source;
mod status;
mod units;
mod version;
mod wake;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use branch::{
    Branch, BranchState, ChangeBranch, CreateBranch, Deleted, OpenPort, Origin, RecoverBranch,
    Recovery, Until, UpgradeBranch, connection_uri,
};
pub use garbage::{CollectGarbage, Collected, Damage, Hurt, Scrubbed, Tally};
pub use idle_timeout::{IdleTimeout, InvalidIdleTimeout};
pub use keep_warm::{InvalidKeepWarm, KeepWarm};
pub use label::{InvalidLabel, Label};
pub use operation::{Operation, OperationKind, OperationResult, OperationStatus};
pub use problem::Problem;
pub use project::{Base, CreateProject, Leaving, Project, Retention, SetImage, Thinning};
pub use snapshot_every::{InvalidSnapshotEvery, SnapshotEvery};
pub use source::{At, BranchSource, InvalidSource};
pub use status::{BranchCounts, Mongod, ParkedMongods, Status};
pub use version::{TakeSnapshot, Version};
pub use wake::{Wake, WakeBy, WakeStep, WakeTrace};

/// A list, in an object so that it can grow fields of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The things, in the order that the route's description names.
    pub items: Vec<T>,
}
