//! Finds a mongod to run.

mod fetch;
pub mod mongod;
