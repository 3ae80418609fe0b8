//! Which of the versions that were made by the clock are too many for their age.
//!
//! Time is cut into minutes, hours and days as the clock has them, not as they lie before now, so
//! that the newest version of an hour was the newest of its minute before, and a pass takes nothing
//! that a later pass would have kept in its place.

use std::collections::HashSet;

use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::base::retention::Thinning;
use crate::catalog::VersionRow;
use crate::volume::Cause;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Which of a branch's own versions, the oldest first, are thinned out: of those that were made by
/// the clock and that nobody needs, pinned or gave a label, all but the newest of each bucket. The
/// branch's newest version always stays.
pub(super) fn thinned(
    own: &[VersionRow],
    needed: &HashSet<VersionId>,
    rules: &Thinning,
    now: Timestamp,
) -> HashSet<VersionId> {
    let Some((_, old)) = own.split_last() else { return HashSet::new() };
    let mut taken = HashSet::new();
    let is_thinned = |version: &&VersionRow| {
        may_go(version, needed)
            && bucket(version.created, rules, now).is_some_and(|bucket| !taken.insert(bucket))
    };
    // The newest first: it is the one that stays.
    old.iter().rev().filter(is_thinned).map(|version| version.id).collect()
}

fn may_go(version: &VersionRow, needed: &HashSet<VersionId>) -> bool {
    version.cause == Cause::Periodic.as_str()
        && !version.pinned
        && version.label.is_none()
        && !needed.contains(&version.id)
}

/// A stretch of time of which one version stays: how long it is, and its number.
type Bucket = (u64, u64);

/// The bucket of a version of this age; `None` where all stay. One from the future is young.
fn bucket(created: Timestamp, rules: &Thinning, now: Timestamp) -> Option<Bucket> {
    let age = now.unix_ms().saturating_sub(created.unix_ms());
    let [all, minutes, hours] = rules.to_ms();
    let length = match age {
        age if age < all => return None,
        age if age < minutes => MINUTE_MS,
        age if age < hours => HOUR_MS,
        _ => DAY_MS,
    };
    Some((length, created.unix_ms() / length))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::BranchId;

    const DAYS: u64 = 20_000 * DAY_MS;

    fn version(number: u8, created_ms: u64, cause: Cause) -> VersionRow {
        VersionRow {
            id: VersionId::from_bytes([number; 16]),
            branch: Some(BranchId::from_bytes([1; 16])),
            parent: None,
            created: Timestamp::from_unix_ms(created_ms),
            cause: cause.to_string(),
            label: None,
            total_bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            mongod_version: "6.0.5".into(),
            fcv: "6.0".into(),
            pinned: false,
        }
    }

    /// Versions made by the clock, numbered from 1, and a suspend after them.
    fn history(times: &[u64]) -> Vec<VersionRow> {
        let periodic = (1..).zip(times).map(|(n, time)| version(n, DAYS + time, Cause::Periodic));
        let last = version(200, DAYS + 90 * DAY_MS, Cause::Suspend);
        periodic.chain([last]).collect()
    }

    fn numbers(gone: &HashSet<VersionId>, own: &[VersionRow]) -> Vec<usize> {
        let places = own.iter().enumerate().filter(|(_, version)| gone.contains(&version.id));
        places.map(|(place, _)| place + 1).collect()
    }

    #[test]
    fn of_each_minute_hour_and_day_the_newest_stays_by_its_age() {
        let at = |hours: u64, minutes: u64, seconds: u64| {
            hours * HOUR_MS + minutes * MINUTE_MS + seconds * 1_000
        };
        let times =
            [at(0, 0, 0), at(0, 0, 20), at(0, 0, 59), at(0, 1, 0), at(0, 59, 0), at(1, 0, 0)];
        let own = history(&times);
        for (now, gone) in [
            (at(0, 59, 59), &[][..]),
            (at(1, 0, 0), &[]),
            // Version 2 is an hour old: one of its minute stays, and 3 is not asked yet.
            (at(1, 0, 20), &[1]),
            (at(1, 0, 59), &[1, 2]),
            (at(23, 59, 59), &[1, 2]),
            // A day: by the hour, as far as they are that old.
            (at(24, 0, 59), &[1, 2]),
            (at(24, 1, 0), &[1, 2, 3]),
            (at(25, 0, 0), &[1, 2, 3, 4]),
            (at(24 * 30, 59, 0), &[1, 2, 3, 4]),
            (at(24 * 30 + 1, 0, 0), &[1, 2, 3, 4, 5]),
            // A clock that was set back.
            (0, &[]),
        ] {
            let now = Timestamp::from_unix_ms(DAYS + now);
            let found = thinned(&own, &HashSet::new(), &Thinning::default(), now);
            assert_eq!(numbers(&found, &own), gone, "at {now}");
        }
    }

    #[test]
    fn what_somebody_needs_or_named_or_asked_for_stays_and_so_does_the_newest() {
        let now = Timestamp::from_unix_ms(DAYS + 80 * DAY_MS);
        let mut own = history(&[1, 2, 3, 4, 5, 6]);
        own[0].pinned = true;
        own[1].label = Some("before".into());
        own[2].cause = Cause::Snapshot.to_string();
        let needed = HashSet::from([own[3].id]);
        let gone = |own: &[VersionRow]| thinned(own, &needed, &Thinning::default(), now);
        assert_eq!(numbers(&gone(&own), &own), [5]);
        // Where it is the branch's newest, the last one of its bucket is not even asked.
        own.pop();
        assert_eq!(numbers(&gone(&own), &own), [] as [usize; 0]);
        assert_eq!(gone(&[]), HashSet::new());
    }

    proptest! {
        #[test]
        fn at_most_one_of_a_bucket_stays_and_nothing_goes_that_is_wanted(
            mut times in vec(0..200 * HOUR_MS, 0..60),
            kinds in vec(0_u8..8, 60),
            rules in vec(0..100 * HOUR_MS, 3),
            now in 0..400 * HOUR_MS,
        ) {
            times.sort_unstable();
            let mut own = history(&times);
            let mut needed = HashSet::new();
            for (version, kind) in own.iter_mut().zip(kinds) {
                match kind {
                    0 => version.pinned = true,
                    1 => version.label = Some("x".into()),
                    2 => version.cause = Cause::Suspend.to_string(),
                    3 => drop(needed.insert(version.id)),
                    _ => {}
                }
            }
            let rules = Thinning::from_ms([rules[0], rules[1], rules[2]]);
            let now = Timestamp::from_unix_ms(DAYS + now);
            let gone = thinned(&own, &needed, &rules, now);

            prop_assert!(own.last().is_none_or(|newest| !gone.contains(&newest.id)));
            let mut newest = HashMap::new();
            for version in &own {
                prop_assert!(may_go(version, &needed) || !gone.contains(&version.id));
                let old = bucket(version.created, &rules, now);
                prop_assert!(old.is_some() || !gone.contains(&version.id));
                if let Some(old) = old.filter(|_| may_go(version, &needed)) {
                    newest.insert(old, version.id);
                }
            }
            for version in own.iter().filter(|version| may_go(version, &needed)) {
                let stays = !gone.contains(&version.id);
                if let Some(old) = bucket(version.created, &rules, now) {
                    prop_assert_eq!(stays, newest[&old] == version.id);
                }
            }
            // A second pass over what stays finds nothing more.
            own.retain(|version| !gone.contains(&version.id));
            prop_assert_eq!(thinned(&own, &needed, &rules, now), HashSet::new());
        }
    }
}
