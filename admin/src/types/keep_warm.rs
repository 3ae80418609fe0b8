//! How long an idle branch's mongod stands still before the branch is suspended.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::units::time_or_none;

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

time_or_none!(KeepWarm::For, at least 1 ms; Off is "off"; else InvalidKeepWarm);

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
