//! The lifecycle of branches.
//!
//! Job: which projects and branches there are; to wake a branch once for however many ask, to
//! suspend it when it is idle or told so, to make its writes a version, to recover it after
//! whatever crashed. Not its job: the clients' protocol, and how volumes and mongods work.
//! Invariant: a branch's state changes in one place ([`cell`]), by the pure function in [`state`];
//! it leaves a state with unsaved writes only by saving them.

mod ahead;
mod base;
mod birth;
mod branches;
mod cell;
mod change;
mod claim;
mod clients;
mod create;
mod disk;
mod doors;
mod error;
mod figures;
mod fresh;
mod garbage;
mod hint;
mod history;
mod identity;
mod image;
mod lease;
mod life;
mod local;
mod manage;
mod mounted;
mod mounting;
mod news;
mod oplog;
mod order;
mod parked;
mod projects;
mod rebuild;
mod reconcile;
mod recover;
mod removal;
mod report;
mod rescue;
mod retention;
#[cfg(test)]
mod rounds;
mod save;
mod seed;
mod server_lease;
mod shared;
mod state;
mod steps;
#[cfg(test)]
mod suite;
mod thinning;
mod upgrade;
mod upload;
mod versions;
mod view;
mod wake;
mod watch;

pub use branches::Branches;
pub use doors::{Door, DoorListener};
pub use error::BranchError;
pub use lease::{BranchHandle, Lease, Standing, Use};
pub use rebuild::{Damage, Rebuilt, rebuild};
pub use server_lease::Writers;
pub use shared::{Parts, Settings};

pub use crate::catalog::Deleted;
