//! How long old versions and deleted branches are kept.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The rules of a project. A version goes only where both of the first two let it go; what is
/// needed or pinned is none of theirs. In the catalog and in the store's formats a duration is a
/// number of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The newest versions of each branch that stay; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// How far back every state of a branch stays; none is for ever.
    #[serde(rename = "keep_for_ms", default, skip_serializing_if = "Option::is_none", with = "ms")]
    pub keep_for: Option<Duration>,
    /// How long a deleted branch can be brought back; none is for ever.
    #[serde(
        rename = "keep_deleted_ms",
        default,
        skip_serializing_if = "Option::is_none",
        with = "ms"
    )]
    pub keep_deleted: Option<Duration>,
    /// How versions that were made by the clock are thinned, before the rules above are asked.
    #[serde(default, skip_serializing_if = "Thinning::is_default")]
    pub periodic: Thinning,
}

/// How the versions that were made by the clock are thinned with age. Those that are older than
/// `hours` are thinned to one a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thinning {
    /// Up to this age all of them stay.
    #[serde(rename = "all_ms", with = "plain_ms")]
    pub all: Duration,
    /// Up to this age the newest of each minute stays.
    #[serde(rename = "minutes_ms", with = "plain_ms")]
    pub minutes: Duration,
    /// Up to this age the newest of each hour stays.
    #[serde(rename = "hours_ms", with = "plain_ms")]
    pub hours: Duration,
}

impl Default for Thinning {
    /// All of an hour, one a minute for a day, one an hour for 30 days.
    fn default() -> Self {
        Self { all: HOUR, minutes: DAY, hours: 30 * DAY }
    }
}

impl Thinning {
    /// With milliseconds, as they are kept.
    pub fn from_ms([all, minutes, hours]: [u64; 3]) -> Self {
        let [all, minutes, hours] = [all, minutes, hours].map(Duration::from_millis);
        Self { all, minutes, hours }
    }

    /// `all`, `minutes` and `hours` in milliseconds.
    pub fn to_ms(&self) -> [u64; 3] {
        [self.all, self.minutes, self.hours].map(to_ms)
    }

    /// Whether it is what holds where nobody says otherwise.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Retention {
    /// What holds where nobody says otherwise: the last 100 versions, those of 30 days, and 7 days
    /// to bring a branch back.
    fn default() -> Self {
        Self {
            keep_last: Some(100),
            keep_for: Some(30 * DAY),
            keep_deleted: Some(7 * DAY),
            periodic: Thinning::default(),
        }
    }
}

impl Retention {
    /// With durations in milliseconds, as they are kept, and the usual thinning.
    pub fn from_ms(
        keep_last: Option<u32>,
        keep_for: Option<u64>,
        keep_deleted: Option<u64>,
    ) -> Self {
        let [keep_for, keep_deleted] =
            [keep_for, keep_deleted].map(|ms| ms.map(Duration::from_millis));
        Self { keep_last, keep_for, keep_deleted, periodic: Thinning::default() }
    }

    /// How far back every state stays, milliseconds.
    pub fn keep_for_ms(&self) -> Option<u64> {
        self.keep_for.map(to_ms)
    }

    /// How long a deleted branch stays, milliseconds.
    pub fn keep_deleted_ms(&self) -> Option<u64> {
        self.keep_deleted.map(to_ms)
    }
}

/// What fits a signed number of 64 bits, as BSON and SQLite have it.
fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

mod ms {
    use super::*;

    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(to_ms).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(input)?.map(Duration::from_millis))
    }
}

mod plain_ms {
    use super::*;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        to_ms(*duration).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(input)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_is_for_ever() {
        let forever = Retention::from_ms(None, None, None);
        for (rules, json) in [
            (
                Retention::default(),
                r#"{"keep_last":100,"keep_for_ms":2592000000,"keep_deleted_ms":604800000}"#,
            ),
            (forever, "{}"),
        ] {
            assert_eq!(serde_json::to_string(&rules).unwrap(), json);
            assert_eq!(serde_json::from_str::<Retention>(json).unwrap(), rules);
            let kept = (rules.keep_for_ms(), rules.keep_deleted_ms());
            assert_eq!(Retention::from_ms(rules.keep_last, kept.0, kept.1), rules);
        }
        let periodic = Thinning::from_ms([1, 2, 3]);
        let thinned = Retention { periodic, ..forever };
        let json = r#"{"periodic":{"all_ms":1,"minutes_ms":2,"hours_ms":3}}"#;
        assert_eq!(serde_json::to_string(&thinned).unwrap(), json);
        assert_eq!(serde_json::from_str::<Retention>(json).unwrap(), thinned);
        assert_eq!(periodic.to_ms(), [1, 2, 3]);
        let long = Retention { keep_for: Some(Duration::MAX), ..forever };
        assert_eq!(long.keep_for_ms(), Some(i64::MAX as u64));
    }
}
