//! Sizes and times as people read them; `--json` has the exact ones.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A number of bytes: `999 B`, `1.5 KiB`, `12 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Precision beyond two digits is not shown, so a float's is enough.
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// How long ago a moment was: `3 minutes ago`. What is no time is shown as it is.
pub(super) fn ago(moment: &str) -> String {
    ago_at(moment, OffsetDateTime::now_utc())
}

fn ago_at(moment: &str, now: OffsetDateTime) -> String {
    let Some(seconds) = parse(moment).map(|then| (now - then).whole_seconds()) else {
        return moment.to_owned();
    };
    const UNITS: [(i64, &str); 4] =
        [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    // A server whose clock is ahead of ours: a moment of the near future is now.
    match UNITS.iter().find(|(unit, _)| seconds >= *unit) {
        None => "just now".to_owned(),
        Some((unit, name)) => {
            let count = seconds / unit;
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {name}{plural} ago")
        }
    }
}

/// The time between two moments: `12 ms`, `1.2 s`, `3 min 4 s`; nothing where one is no time.
pub(super) fn between(start: &str, end: &str) -> Option<String> {
    let time = parse(end)? - parse(start)?;
    Some(span(Duration::try_from(time).unwrap_or_default()))
}

/// A length of time: `12 ms`, `1.2 s`, `3 min 4 s`, `5 h 6 min`, `7 d 8 h`.
pub(super) fn span(time: Duration) -> String {
    let (ms, s) = (time.as_millis(), time.as_secs());
    let (min, h) = (s / 60, s / 3600);
    match s {
        _ if ms < 1000 => format!("{ms} ms"),
        _ if s < 60 => format!("{}.{} s", s, ms % 1000 / 100),
        _ if min < 60 => format!("{min} min {} s", s % 60),
        _ if h < 24 => format!("{h} h {} min", min % 60),
        _ => format!("{} d {} h", h / 24, h % 24),
    }
}

fn parse(moment: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(moment, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024 + 300, "10 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (123_456_789, "118 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = parse("2026-01-31T12:00:00.000Z").unwrap();
        for (moment, text) in [
            ("2026-01-31T12:00:00.000Z", "just now"),
            ("2026-01-31T12:00:09.000Z", "just now"),
            ("2026-01-31T11:59:59.000Z", "1 second ago"),
            ("2026-01-31T11:58:01.000Z", "1 minute ago"),
            ("2026-01-31T09:00:00.000Z", "3 hours ago"),
            ("2026-01-01T12:00:00.000Z", "30 days ago"),
            ("some day", "some day"),
        ] {
            assert_eq!(ago_at(moment, now), text);
        }
    }

    #[test]
    fn spans_are_told_in_two_units_at_most() {
        for (ms, text) in [
            (12, "12 ms"),
            (1_290, "1.2 s"),
            (184_000, "3 min 4 s"),
            (18_360_000, "5 h 6 min"),
            (633_600_000, "7 d 8 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
        let (start, end) = ("2026-01-31T12:00:00.000Z", "2026-01-31T12:00:01.500Z");
        assert_eq!(between(start, end).as_deref(), Some("1.5 s"));
        assert_eq!(between(end, start).as_deref(), Some("0 ms"));
        assert_eq!(between(start, "later"), None);
    }
}
