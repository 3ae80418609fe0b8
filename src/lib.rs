//! Argon: branchable, scale-to-zero MongoDB.
//!
//! One folder is one room; each may import only the rooms below it (`proxy-tests/tests/tidy.rs`
//! checks it): app, proxy, api, branch, pool, archive, volume, mount, compute, store, catalog, wire, base.

pub mod api;
pub mod app;
pub mod archive;
pub mod base;
pub mod branch;
pub mod catalog;
pub mod compute;
pub mod mount;
pub mod pool;
pub mod proxy;
pub mod store;
pub mod volume;
pub mod wire;
