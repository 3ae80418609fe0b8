//! How often a version is made of a branch that runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a version is made of a running branch in which something changed. In the catalog and
/// in the store's formats a number of milliseconds or nothing: nothing is the default, 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<u64>", into = "Option<u64>")]
pub enum SnapshotEvery {
    /// As the server is set.
    #[default]
    Default,
    /// Once in this; kept in whole milliseconds, at least one.
    Every(Duration),
    /// Only when asked, and when it is suspended.
    Off,
}

impl SnapshotEvery {
    /// Milliseconds, as it is kept: what fits a signed number of 64 bits, as BSON and SQLite have it.
    pub fn to_ms(self) -> Option<u64> {
        match self {
            Self::Default => None,
            Self::Off => Some(0),
            Self::Every(time) => {
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
            Some(ms) => Self::Every(Duration::from_millis(ms)),
        }
    }

    /// Whether it says nothing of its own.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

impl From<Option<u64>> for SnapshotEvery {
    fn from(ms: Option<u64>) -> Self {
        Self::from_ms(ms)
    }
}

impl From<SnapshotEvery> for Option<u64> {
    fn from(every: SnapshotEvery) -> Self {
        every.to_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back() {
        let second = Duration::from_secs(1);
        for (every, ms, json) in [
            (SnapshotEvery::Default, None, "null"),
            (SnapshotEvery::Off, Some(0), "0"),
            (SnapshotEvery::Every(second), Some(1000), "1000"),
        ] {
            assert_eq!(every.to_ms(), ms);
            assert_eq!(SnapshotEvery::from_ms(ms), every);
            assert_eq!(serde_json::to_string(&every).unwrap(), json);
            assert_eq!(serde_json::from_str::<SnapshotEvery>(json).unwrap(), every);
        }
        assert_eq!(SnapshotEvery::Every(Duration::ZERO).to_ms(), Some(1), "not off");
        assert_eq!(SnapshotEvery::Every(Duration::MAX).to_ms(), Some(i64::MAX as u64));
    }
}
