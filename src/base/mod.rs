//! What every room stands on: ids, names, time, limits, counts, metrics, back-off, blocking and
//! parallel work.
//!
//! Job: the small types that travel between rooms. Not its job: any I/O but the clock and the
//! operating system's randomness.
//! Invariant: nothing here imports another room.

pub mod backoff;
pub mod blocking;
pub mod clock;
pub mod failpoint;
pub mod gauge;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod name;
pub mod own_time;
pub mod parallel;
pub mod retention;
