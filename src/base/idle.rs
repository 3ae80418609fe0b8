//! When a branch is suspended by itself.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// After how long without work a branch is suspended. In the catalog and in the store's formats a
/// number of milliseconds or nothing: nothing is the default, 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdleTimeout {
    /// As the server is set.
    #[default]
    Default,
    /// After this; kept in whole milliseconds, at least one.
    After(Duration),
    /// Only when asked.
    Never,
}

impl IdleTimeout {
    /// Milliseconds, as it is kept.
    pub fn to_ms(self) -> Option<u64> {
        match self {
            Self::Default => None,
            Self::Never => Some(0),
            // 0 would say never; nobody means that by less than a millisecond.
            Self::After(idle) => Some(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1)),
        }
    }

    /// What was kept.
    pub fn from_ms(ms: Option<u64>) -> Self {
        match ms {
            None => Self::Default,
            Some(0) => Self::Never,
            Some(ms) => Self::After(Duration::from_millis(ms)),
        }
    }

    /// Whether it says nothing of its own.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

impl Serialize for IdleTimeout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_ms().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IdleTimeout {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Option::<u64>::deserialize(input).map(Self::from_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back() {
        let second = Duration::from_secs(1);
        for (timeout, ms) in [
            (IdleTimeout::Default, None),
            (IdleTimeout::Never, Some(0)),
            (IdleTimeout::After(second), Some(1000)),
        ] {
            assert_eq!(timeout.to_ms(), ms);
            assert_eq!(IdleTimeout::from_ms(ms), timeout);
        }
        assert_eq!(IdleTimeout::After(Duration::ZERO).to_ms(), Some(1), "not never");
    }
}
