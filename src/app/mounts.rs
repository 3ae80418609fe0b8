//! The settings of mounts and of the disk that they take.

use super::config::{ConfigError, Given, Layers};
use crate::base::limits::{MountKind, Mounts};

/// Units of sizes, bytes. Those of disks are powers of ten, those with an `i` powers of two.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

pub(super) fn mounts(layers: &Layers<'_>) -> Result<Mounts, ConfigError> {
    let default = Mounts::default();
    let size = |found: Option<Given>, default: u64| match found {
        Some(given) => given.parse(bytes, "a number of bytes, as in 4GiB, 500MB or 1073741824"),
        None => Ok(default),
    };
    let kind = layers.pick("mount", "ARGON_MOUNT", |values| &values.mount);
    Ok(Mounts {
        kind: match kind {
            Some(given) => given.parse(named, "auto, lazy or eager")?,
            None => default.kind,
        },
        cache_bytes: size(
            layers.pick("cache_bytes", "ARGON_CACHE_BYTES", |values| &values.cache_bytes),
            default.cache_bytes,
        )?,
        background_fill_bytes: size(
            layers
                .pick("background_fill", "ARGON_BACKGROUND_FILL", |values| &values.background_fill),
            default.background_fill_bytes,
        )?,
        min_free_bytes: size(
            layers.pick("min_free", "ARGON_MIN_FREE", |values| &values.min_free),
            default.min_free_bytes,
        )?,
    })
}

fn named(text: &str) -> Option<MountKind> {
    match text {
        "auto" => Some(MountKind::Auto),
        "lazy" => Some(MountKind::Lazy),
        "eager" => Some(MountKind::Eager),
        _ => None,
    }
}

/// A size as people write it.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit) = UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("1B", Some(1)),
            ("500MB", Some(500_000_000)),
            ("4GiB", Some(4 << 30)),
            ("2gib", Some(2 << 30)),
            ("1TiB", Some(1 << 40)),
            ("", None),
            ("GB", None),
            ("-1", None),
            ("1.5GB", None),
            ("1 GB", None),
            ("1G", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
