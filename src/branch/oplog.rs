//! How long an oplog is, and how long mongod thinks that it should be.
//!
//! mongod cuts its oplog by sections, each as long as the whole should be, and looks for one only when
//! another is full; then it keeps what came since its last checkpoint, which may be a minute old. So a load
//! of gigabytes leaves gigabytes. Every start then reads ten places of each section at random, one after the
//! other, and each is a request to a store that may be far away. Therefore
//!
//! - before a branch sleeps, an oplog that is far too long is said to be right: then it is one section;
//! - while a branch is awake, mongod is told the length that it should have as soon as that much was written
//!   behind this section, and told to look again where it did not cut what it could by now.

use std::path::Path;

use bson::{Bson, Document, doc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::BranchError;
use super::cell::Cell;
use super::life::Life;
use crate::base::limits::{OPLOG_LOOK, OPLOG_WAIT};
use crate::wire::Client;

const MIB: i64 = 1024 * 1024;
/// The shortest that mongod lets anybody ask for, and what new volumes begin with, bytes.
const LEAST: i64 = 990 * MIB;

/// When an oplog is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// It will be written to.
    Awake,
    /// Its mongod is about to be stopped.
    BeforeSleep,
}

/// How long an oplog is, bytes before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Length {
    is: i64,
    should_be: i64,
}

impl Length {
    /// From the reply to collStats.
    fn of(stats: &Document) -> Option<Self> {
        let number = |name| match stats.get(name)? {
            Bson::Int32(number) => Some(i64::from(*number)),
            Bson::Int64(number) => Some(*number),
            Bson::Double(number) => Some(*number as i64),
            _ => None,
        };
        Some(Self { is: number("size")?, should_be: number("maxSize")? })
    }

    /// How long it should be from now on, MiB, where that is to be said.
    fn wanted(self, moment: Moment) -> Option<i64> {
        let Self { is, should_be } = self;
        let wanted = match moment {
            // Shorter ones cannot be changed.
            _ if should_be < LEAST => return None,
            Moment::BeforeSleep if is > should_be + should_be / 2 => is.div_euclid(MIB) + 1,
            Moment::BeforeSleep => return None,
            Moment::Awake if should_be > LEAST + MIB && is >= should_be + LEAST => LEAST / MIB,
            // Anything new makes it look, and the same does not.
            Moment::Awake if is > 2 * should_be => should_be / MIB + 1,
            Moment::Awake => return None,
        };
        Some(wanted)
    }
}

/// Runs for one life: looks at the oplog of a branch that is worked on.
pub(super) async fn keep_short(cell: &Cell, life: &Life) {
    let mut seen = life.last_work();
    loop {
        sleep(OPLOG_LOOK).await;
        if std::mem::replace(&mut seen, life.last_work()) != life.last_work() && !life.is_frozen() {
            look(cell, life, Moment::Awake).await;
        }
    }
}

/// Looks once, and says what is to be said. What goes wrong only makes the next start longer.
pub(super) async fn look(cell: &Cell, life: &Life, moment: Moment) {
    match timeout(OPLOG_WAIT, look_at(life.socket(), moment)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some((is, mib)))) => {
            info!(branch = %cell.id, name = %cell.name, bytes = is, mib,
                  "said how long the oplog should be");
        }
        Ok(Err(error)) => debug!(branch = %cell.id, error = error.chain(), "look at the oplog"),
        Err(_) => debug!(branch = %cell.id, "mongod does not say how long its oplog is"),
    }
}

async fn look_at(socket: &Path, moment: Moment) -> Result<Option<(i64, i64)>, BranchError> {
    let mut client = Client::connect(socket).await?;
    let stats = client.command("local", doc! { "collStats": "oplog.rs" }).await?;
    let Some(length) = Length::of(&stats) else { return Ok(None) };
    let Some(mib) = length.wanted(moment) else { return Ok(None) };
    client.command("admin", doc! { "replSetResizeOplog": 1, "size": mib as f64 }).await?;
    Ok(Some((length.is, mib)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_too_long_is_one_section_for_the_next_start() {
        let max = LEAST;
        for (is, should_be, awake, before_sleep) in [
            (0, max, None, None),
            (max + max / 2, max, None, None),
            (max + max / 2 + 1, max, None, Some(1486)),
            (2 * max + 1, max, Some(991), Some(1981)),
            // One that was too long before: not until a whole section was written behind it.
            (3000 * MIB, 3000 * MIB, None, None),
            (3989 * MIB, 3000 * MIB, None, None),
            (3990 * MIB, 3000 * MIB, Some(990), None),
            (9000 * MIB, 3000 * MIB, Some(990), Some(9001)),
            // Such an oplog cannot be given another size.
            (64 * MIB, 16 * MIB, None, None),
        ] {
            let length = Length { is, should_be };
            assert_eq!(length.wanted(Moment::Awake), awake, "{length:?}");
            assert_eq!(length.wanted(Moment::BeforeSleep), before_sleep, "{length:?}");
        }
    }

    #[test]
    fn numbers_of_any_kind_are_read() {
        let lengths = [
            (doc! { "size": 5, "maxSize": 7_i64 }, Some(Length { is: 5, should_be: 7 })),
            (doc! { "size": 5.0, "maxSize": 7 }, Some(Length { is: 5, should_be: 7 })),
            (doc! { "size": 5 }, None),
            (doc! { "size": "5", "maxSize": 7 }, None),
        ];
        for (stats, expected) in lengths {
            assert_eq!(Length::of(&stats), expected, "{stats}");
        }
    }
}
