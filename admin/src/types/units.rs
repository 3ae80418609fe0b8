//! Times as people write them: a whole number and a unit, or the word for none.

use std::num::NonZeroU64;

/// Units, the largest first, in milliseconds.
pub(super) const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Milliseconds; `None` where the text is none such, or zero.
pub(super) fn read(text: &str) -> Option<NonZeroU64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms)?;
    number.parse::<u64>().ok()?.checked_mul(unit_ms).and_then(NonZeroU64::new)
}

/// In the largest unit that leaves a whole number.
pub(super) fn written(ms: NonZeroU64) -> String {
    let (unit, unit_ms) =
        UNITS.into_iter().find(|(_, unit)| ms.get().is_multiple_of(*unit)).unwrap_or(("ms", 1));
    format!("{}{unit}", ms.get() / unit_ms)
}

/// What settings that are a time or none have in common, each with words of its own: its text, and the
/// way from and to a [`Duration`](std::time::Duration).
macro_rules! time_or_none {
    ($setting:ident::$time:ident, at least $least_ms:literal ms; $none:ident is $word:literal; else $invalid:ident) => {
        impl $setting {
            /// The time; `None` is none.
            pub fn duration(self) -> Option<std::time::Duration> {
                match self {
                    Self::$time { ms } => Some(std::time::Duration::from_millis(ms.get())),
                    Self::$none => None,
                }
            }

            /// Unless the time is too short.
            fn checked(ms: std::num::NonZeroU64) -> Option<Self> {
                (ms.get() >= $least_ms).then_some(Self::$time { ms })
            }
        }

        impl From<Option<std::time::Duration>> for $setting {
            /// A time is rounded down to a millisecond, and up to the least that it may be.
            fn from(time: Option<std::time::Duration>) -> Self {
                let Some(time) = time else { return Self::$none };
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max($least_ms);
                Self::$time { ms: ms.try_into().unwrap_or(std::num::NonZeroU64::MIN) }
            }
        }

        impl std::str::FromStr for $setting {
            type Err = $invalid;

            fn from_str(text: &str) -> Result<Self, $invalid> {
                if text == $word {
                    return Ok(Self::$none);
                }
                let read = $crate::types::units::read(text).and_then(Self::checked);
                read.ok_or_else(|| $invalid(text.to_owned()))
            }
        }

        impl std::fmt::Display for $setting {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Self::$time { ms } => f.pad(&$crate::types::units::written(*ms)),
                    Self::$none => f.pad($word),
                }
            }
        }
    };
}
pub(super) use time_or_none;
