//! Time, injected: rooms ask a [`Clock`], tests set one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment in UTC, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// The text is no RFC 3339 time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a time: expected RFC 3339, for example 2026-01-31T12:00:00.000Z")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// Reads RFC 3339; digits below a millisecond are cut off, so that what was printed is found.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let invalid = || InvalidTimestamp(text.chars().take(64).collect());
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| invalid())?;
        let ms = moment.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let moment = OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap_or(i64::MAX))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, clock) = (moment.date(), moment.time());
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{ms:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second(),
        )
    }
}

/// Time since this machine booted, the time that it slept included: what leases are measured by.
/// Neither a sleep nor somebody who sets the clock makes it stand still or go back.
pub fn uptime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one timespec to the place that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    // Both are never negative for this clock, and the call cannot fail for a clock that every
    // Linux since 2.6.39 has.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Where a room gets the time from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, made strictly increasing: two moments asked for one after the other are
/// never equal, so versions and ids made in a row keep their order even when the clock stands
/// still or is set back.
#[derive(Debug, Default)]
pub struct SystemClock {
    last_ms: AtomicU64,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let step = |last: u64| Some(now_ms.max(last + 1));
        let last = self
            .last_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .expect("the step never refuses");
        Timestamp(now_ms.max(last + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for ms in [0, 1, 999, 1_700_000_000_123, 4_102_444_800_000] {
            let moment = Timestamp::from_unix_ms(ms);
            assert_eq!(Timestamp::parse(&moment.to_string()), Ok(moment));
        }
        assert_eq!(
            Timestamp::from_unix_ms(1_700_000_000_123).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(
            Timestamp::parse("2023-11-14T23:13:20.123999+01:00"),
            Ok(Timestamp::from_unix_ms(1_700_000_000_123))
        );
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "yesterday", "2023-11-14", "2023-11-14T22:13:20", "1969-01-01T00:00:00Z"] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_system_clock_never_repeats_itself() {
        let clock = SystemClock::default();
        let moments: Vec<_> = (0..1000).map(|_| clock.now()).collect();
        assert!(moments.is_sorted_by(|a, b| a < b));
    }
}
