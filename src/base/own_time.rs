//! A time that a branch may have of its own: its idle time-out, how often it is saved, how long it is
//! kept warm.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a branch says itself about one of its times. In the catalog and in the store's formats a
/// number of milliseconds or nothing: nothing is the default, 0 is never or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<u64>", into = "Option<u64>")]
pub enum OwnTime {
    /// As the server is set.
    #[default]
    Default,
    /// This; kept in whole milliseconds, at least one.
    Time(Duration),
    /// Never, or not at all.
    Off,
}

impl OwnTime {
    /// Of what somebody asked for: nothing is what the server says, and no time is off.
    pub fn of(asked: Option<Option<Duration>>) -> Self {
        match asked {
            None => Self::Default,
            Some(None) => Self::Off,
            Some(Some(time)) => Self::Time(time),
        }
    }

    /// The time, or what the server says; `None` is off.
    pub fn or(self, server: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Default => server,
            Self::Time(time) => Some(time),
            Self::Off => None,
        }
    }

    /// Milliseconds, as it is kept: what fits a signed number of 64 bits, as BSON and SQLite have it.
    pub fn to_ms(self) -> Option<u64> {
        match self {
            Self::Default => None,
            Self::Off => Some(0),
            // 0 would say off; nobody means that by less than a millisecond.
            Self::Time(time) => {
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                Some(ms.clamp(1, i64::MAX as u64))
            }
        }
    }

    /// What was kept.
    pub fn from_ms(ms: Option<u64>) -> Self {
        match ms {
            None => Self::Default,
            Some(0) => Self::Off,
            Some(ms) => Self::Time(Duration::from_millis(ms)),
        }
    }

    /// Whether it says nothing of its own.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

impl From<Option<u64>> for OwnTime {
    fn from(ms: Option<u64>) -> Self {
        Self::from_ms(ms)
    }
}

impl From<OwnTime> for Option<u64> {
    fn from(time: OwnTime) -> Self {
        time.to_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_kept_is_read_back() {
        for (time, ms, json) in [
            (OwnTime::Default, None, "null"),
            (OwnTime::Off, Some(0), "0"),
            (OwnTime::Time(SECOND), Some(1000), "1000"),
        ] {
            assert_eq!(time.to_ms(), ms);
            assert_eq!(OwnTime::from_ms(ms), time);
            assert_eq!(serde_json::to_string(&time).unwrap(), json);
            assert_eq!(serde_json::from_str::<OwnTime>(json).unwrap(), time);
        }
        assert_eq!(OwnTime::Time(Duration::ZERO).to_ms(), Some(1), "not off");
        assert_eq!(OwnTime::Time(Duration::MAX).to_ms(), Some(i64::MAX as u64));
    }

    #[test]
    fn only_who_says_nothing_follows_the_server() {
        let minute = Some(Duration::from_secs(60));
        for (asked, time, on, off) in [
            (None, OwnTime::Default, minute, None),
            (Some(None), OwnTime::Off, None, None),
            (Some(Some(SECOND)), OwnTime::Time(SECOND), Some(SECOND), Some(SECOND)),
        ] {
            assert_eq!(OwnTime::of(asked), time);
            assert_eq!((time.or(minute), time.or(None)), (on, off), "{time:?}");
        }
    }
}
