//! How long an idle branch's mongod stands still before the branch is suspended.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::units;

/// How long an idle branch's mongod stands still before the branch is suspended. As text: `30s`, `10m`,
/// `1h` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeepWarm {
    /// This time, after its idle time-out.
    For {
        /// The time, milliseconds, at least 1.
        #[schema(value_type = u64, minimum = 1)]
        ms: NonZeroU64,
    },
    /// Not at all: it is suspended when it is idle.
    Off,
}

/// The text is no such time.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a time to keep warm: expected for example 30s, 10m, 1h or off")]
pub struct InvalidKeepWarm(String);

impl KeepWarm {
    /// The time; `None` is off.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::For { ms } => Some(Duration::from_millis(ms.get())),
            Self::Off => None,
        }
    }
}

impl From<Option<Duration>> for KeepWarm {
    /// A time is rounded down to a millisecond and up to one.
    fn from(time: Option<Duration>) -> Self {
        let Some(time) = time else { return Self::Off };
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self::For { ms: NonZeroU64::new(ms).unwrap_or(NonZeroU64::MIN) }
    }
}

impl FromStr for KeepWarm {
    type Err = InvalidKeepWarm;

    fn from_str(text: &str) -> Result<Self, InvalidKeepWarm> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let ms = units::read(text).ok_or_else(|| InvalidKeepWarm(text.to_owned()))?;
        Ok(Self::For { ms })
    }
}

impl fmt::Display for KeepWarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For { ms } => f.pad(&units::written(*ms)),
            Self::Off => f.pad("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        for (text, ms, json) in [
            ("off", None, r#""off""#),
            ("500ms", Some(500), r#"{"for":{"ms":500}}"#),
            ("10m", Some(600_000), r#"{"for":{"ms":600000}}"#),
        ] {
            let warm: KeepWarm = text.parse().unwrap();
            assert_eq!(warm.duration(), ms.map(Duration::from_millis), "{text}");
            assert_eq!(KeepWarm::from(warm.duration()), warm);
            assert_eq!(warm.to_string(), text);
            assert_eq!(serde_json::to_string(&warm).unwrap(), json);
            assert_eq!(serde_json::from_str::<KeepWarm>(json).unwrap(), warm);
        }
        assert_eq!(KeepWarm::from(Some(Duration::ZERO)).to_string(), "1ms", "not off");
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0s", "5", "never", "Off", "1.5s"] {
            assert!(text.parse::<KeepWarm>().is_err(), "{text}");
        }
        for json in [r#"{"for":{"ms":0}}"#, r#"{"for":{"ms":1,"s":1}}"#, r#""5s""#] {
            assert!(serde_json::from_str::<KeepWarm>(json).is_err(), "{json}");
        }
    }
}
