//! The server as a whole: the only room that knows everyone.
//!
//! Job: settings, the data directory, building the rooms, running them, draining them. Not its job:
//! anything that one room can decide alone.
//! Invariant: one server at a time has a data directory.

mod allocator;
mod client_limits;
mod compute;
pub mod config;
mod data_dir;
mod descriptors;
mod garbage;
mod main_task;
mod mounts;
mod open_store;
mod repair;
mod serve;
pub mod settings;
mod store_config;

pub use compute::{ComputeKind, ComputeSettings, OnProgress, Progress};
pub use data_dir::DataDirError;
pub use repair::{RepairError, repair};
pub use serve::{ServeError, serve};
