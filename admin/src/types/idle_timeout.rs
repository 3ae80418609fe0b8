//! How long a branch may be idle before it is suspended.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::units::time_or_none;

/// How long a branch may be idle before it is suspended. As text: `500ms`, `30s`, `5m`, `1h`, `7d`
/// or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IdleTimeout {
    /// Suspend after this time without work.
    After {
        /// The time, milliseconds, at least 1.
        #[schema(value_type = u64, minimum = 1)]
        ms: NonZeroU64,
    },
    /// Only suspend on request.
    Never,
}

/// The text is no idle time-out.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not an idle time-out: expected for example 30s, 5m, 1h, 500ms or never")]
pub struct InvalidIdleTimeout(String);

time_or_none!(IdleTimeout::After, at least 1 ms; Never is "never"; else InvalidIdleTimeout);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::units::UNITS;

    proptest::proptest! {
        #[test]
        fn a_text_is_read_back(ms in 1_u64.., unit in 0..UNITS.len(), number in 1_u64..1_000_000) {
            let after = IdleTimeout::After { ms: NonZeroU64::new(ms).unwrap() };
            assert_eq!(after.to_string().parse::<IdleTimeout>().unwrap(), after);
            let (unit, unit_ms) = UNITS[unit];
            let ms = NonZeroU64::new(number * unit_ms).unwrap();
            let parsed: IdleTimeout = format!("{number}{unit}").parse().unwrap();
            assert_eq!(parsed, IdleTimeout::After { ms });
        }

        #[test]
        fn no_text_is_read_as_another(text in "[0-9]{0,22}[a-z ]{0,3}") {
            if let Ok(parsed) = text.parse::<IdleTimeout>() {
                assert_eq!(parsed.to_string().parse::<IdleTimeout>().unwrap(), parsed);
            }
        }
    }

    #[test]
    fn text_forms_are_read_and_written_in_the_largest_whole_unit() {
        for (text, ms, written) in [
            ("1ms", 1, "1ms"),
            ("500ms", 500, "500ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("300s", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("48h", 172_800_000, "2d"),
        ] {
            let timeout: IdleTimeout = text.parse().unwrap();
            assert_eq!(timeout.duration(), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(timeout, IdleTimeout::from(Some(Duration::from_millis(ms))));
            assert_eq!(timeout.to_string(), written);
        }
        assert_eq!("never".parse(), Ok(IdleTimeout::Never));
        assert_eq!(IdleTimeout::Never.to_string(), "never");
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0s", "30", "s", "-1s", "1.5s", "1 s", "1w", "Never", "99999999999999999d"]
        {
            assert!(text.parse::<IdleTimeout>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_as_the_document_says() {
        let timeout: IdleTimeout = "30s".parse().unwrap();
        assert_eq!(serde_json::to_string(&timeout).unwrap(), r#"{"after":{"ms":30000}}"#);
        assert_eq!(serde_json::to_string(&IdleTimeout::Never).unwrap(), r#""never""#);
        for wrong in [r#"{"after":{"ms":0}}"#, r#"{"after":{"ms":1,"s":1}}"#, r#""30s""#] {
            assert!(serde_json::from_str::<IdleTimeout>(wrong).is_err(), "{wrong}");
        }
    }
}
