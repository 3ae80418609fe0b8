//! The settings of garbage collection.

use std::time::Duration;

use argon_admin::types::IdleTimeout;

use super::config::{ConfigError, Layers};
use crate::base::limits::Garbage;
use crate::branch::Writers;
use crate::store::S3Settings;

/// In a bucket that other servers may use, uploads of theirs are known by their age alone.
pub(super) fn garbage(
    layers: &Layers<'_>,
    bucket: Option<&S3Settings>,
    writers: Writers,
) -> Result<Garbage, ConfigError> {
    let default = Garbage::default();
    let (least, expected) = match (bucket, writers) {
        (Some(_), Writers::Several { .. }) => {
            (default.min_age, "24h or more in a bucket, unless there is --single-writer")
        }
        _ => (Duration::ZERO, "a time, as in 24h"),
    };
    // The same words as of an idle time-out: one grammar for all times.
    let time = |text: &str| text.parse::<IdleTimeout>().ok();
    let min_age = layers.pick("gc_min_age", "ARGON_GC_MIN_AGE", |values| &values.gc_min_age);
    let interval = layers.pick("gc_interval", "ARGON_GC_INTERVAL", |values| &values.gc_interval);
    let duration = |text: &str| -> Option<Duration> { time(text)?.duration() };
    Ok(Garbage {
        min_age: match min_age {
            Some(given) => {
                given.parse(|text| duration(text).filter(|age| *age >= least), expected)?
            }
            None => default.min_age,
        },
        interval: match interval {
            Some(given) => given.parse(time, "a time, as in 24h, or never")?.duration(),
            None => default.interval,
        },
    })
}
