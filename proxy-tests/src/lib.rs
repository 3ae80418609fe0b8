//! End-to-end tests of Argon: the real binary, a real mongod, real drivers.
//!
//! Job: start servers, run commands, wait for conditions, and the demo scenario, shared by the
//! tests, `cargo demo` and `cargo verify`. Not its job: knowing anything of the server's inside;
//! what is tested is what users see.
//! Invariant: nothing here outlives its owner: servers are killed, folders are removed.

pub mod answers;
pub mod archives;
pub mod binary;
pub mod buckets;
pub mod careless;
pub mod cli;
pub mod docker;
pub mod driver;
pub mod drivers;
pub mod fuzz;
pub mod hostile;
pub mod machine;
pub mod metadata;
pub mod noise;
pub mod obstacle;
pub mod programs;
pub mod raw;
pub mod scenario;
pub mod server;
pub mod steps;
pub mod tamper;
pub mod wait;
pub mod writer;
