//! Times as people write them: a whole number and a unit.

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
