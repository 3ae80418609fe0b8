//! The drivers of all languages, each with a program of its own in `proxy-tests/drivers/`.
//!
//! Job: know the drivers ([`DRIVERS`]), install what they need, run their programs over a line
//! protocol ([`Program`]), judge their cells and write them into `docs/drivers.md`. Not its job:
//! what the programs do; that stands in `proxy-tests/drivers/README.md`.
//! Invariant: a driver that cannot run here is named, never left out in silence.

mod cells;
mod install;
mod list;
mod program;
mod table;

pub use cells::{Row, complaints};
pub use install::{debian_packages, install};
pub use list::{DRIVERS, Driver, soakers};
pub use program::{Line, Program};
pub use table::{document, lines_of};
