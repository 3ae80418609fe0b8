//! How often a version is made of a branch that runs.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::units::{self, time_or_none};

/// How often a version is made of a branch that runs, where something changed. As text: `5s`, `1m`,
/// `1h` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", try_from = "Read")]
pub enum SnapshotEvery {
    /// Once in this time.
    Every {
        /// The time, milliseconds, at least 1000.
        #[schema(value_type = u64, minimum = 1000)]
        ms: NonZeroU64,
    },
    /// Only on request and when it is suspended.
    Off,
}

/// As it is written, before it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Read {
    Every { ms: NonZeroU64 },
    Off,
}

/// The text or number is no such interval.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is not an interval of snapshots: expected for example 5s, 1m, 1h (1s or more) or off"
)]
pub struct InvalidSnapshotEvery(String);

time_or_none!(SnapshotEvery::Every, at least 1000 ms; Off is "off"; else InvalidSnapshotEvery);

impl TryFrom<Read> for SnapshotEvery {
    type Error = InvalidSnapshotEvery;

    fn try_from(read: Read) -> Result<Self, InvalidSnapshotEvery> {
        match read {
            Read::Off => Ok(Self::Off),
            Read::Every { ms } => {
                Self::checked(ms).ok_or_else(|| InvalidSnapshotEvery(units::written(ms)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        for (text, ms, json) in [
            ("off", None, r#""off""#),
            ("1s", Some(1_000), r#"{"every":{"ms":1000}}"#),
            ("1500ms", Some(1_500), r#"{"every":{"ms":1500}}"#),
            ("1h", Some(3_600_000), r#"{"every":{"ms":3600000}}"#),
        ] {
            let every: SnapshotEvery = text.parse().unwrap();
            assert_eq!(every.duration(), ms.map(Duration::from_millis), "{text}");
            assert_eq!(every.to_string(), text);
            assert_eq!(serde_json::to_string(&every).unwrap(), json);
            assert_eq!(serde_json::from_str::<SnapshotEvery>(json).unwrap(), every);
        }
        assert_eq!(SnapshotEvery::from(Some(Duration::from_millis(1))).to_string(), "1s");
        assert_eq!(SnapshotEvery::from(Some(Duration::from_secs(90))).to_string(), "90s");
    }

    #[test]
    fn less_than_a_second_and_other_text_is_refused() {
        for text in ["", "0s", "999ms", "5", "never", "Off", "1.5s"] {
            assert!(text.parse::<SnapshotEvery>().is_err(), "{text}");
        }
        for json in [r#"{"every":{"ms":999}}"#, r#"{"every":{"ms":1000,"s":1}}"#, r#""5s""#] {
            assert!(serde_json::from_str::<SnapshotEvery>(json).is_err(), "{json}");
        }
    }
}
