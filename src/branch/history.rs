//! Which versions a branch has, and which one a source or a time means.

use std::sync::Arc;

use argon_admin::types::{At, Label};

use super::BranchError;
use super::cell::Cell;
use super::shared::Shared;
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::catalog::{BranchRow, VersionRow};

/// What a branch started from, then its own versions; oldest first. The first one's time is the
/// branch's own beginning: that is since when the branch was like that.
pub(super) fn versions(shared: &Shared, row: &BranchRow) -> Result<Vec<VersionRow>, BranchError> {
    let own = shared.catalog.versions_of(row.id)?;
    let start = match own.first() {
        Some(first) => first.parent,
        None => Some(row.head),
    };
    let mut versions = Vec::with_capacity(own.len() + 1);
    if let Some(start) = start
        && let Some(start) = shared.catalog.version(start)?
    {
        versions.push(VersionRow { created: row.created, ..start });
    }
    versions.extend(own);
    Ok(versions)
}

/// The version of a branch that `at` means.
pub(super) fn find(shared: &Shared, cell: &Arc<Cell>, at: &At) -> Result<VersionId, BranchError> {
    let versions = versions(shared, &cell.row())?;
    let unknown = |version: &str| BranchError::UnknownVersion {
        branch: cell.name.clone(),
        version: version.to_owned(),
    };
    match at {
        At::Version(text) => {
            let id: VersionId = text.parse()?;
            let found = versions.iter().find(|version| version.id == id);
            found.map(|version| version.id).ok_or_else(|| unknown(&id.to_string()))
        }
        At::Label(text) => {
            let label: Label = text.parse()?;
            labelled(&versions, &label).map(|version| version.id).ok_or_else(|| unknown(text))
        }
        At::Time(text) => {
            let time = Timestamp::parse(text)?;
            newest_until(&versions, time).ok_or_else(|| BranchError::BeforeFirstVersion {
                branch: cell.name.clone(),
                time: time.to_string(),
                first: versions.first().map_or_else(String::new, |v| v.created.to_string()),
            })
        }
    }
}

/// The version with this label. A save that broke off may have left one that nobody knew of until
/// the catalog was rebuilt: so the newest.
fn labelled<'v>(versions: &'v [VersionRow], label: &Label) -> Option<&'v VersionRow> {
    versions.iter().rev().find(|version| version.label.as_deref() == Some(label.as_str()))
}

/// Makes sure that no version of a branch has this label.
pub(super) fn check_free(
    shared: &Shared,
    row: &BranchRow,
    label: &Label,
) -> Result<(), BranchError> {
    match labelled(&versions(shared, row)?, label) {
        None => Ok(()),
        Some(version) => Err(BranchError::LabelTaken {
            branch: row.name.clone(),
            label: label.clone(),
            version: version.id,
        }),
    }
}

/// The newest version that is not younger than `time`; `versions` are oldest first.
fn newest_until(versions: &[VersionRow], time: Timestamp) -> Option<VersionId> {
    versions.iter().rev().find(|version| version.created <= time).map(|version| version.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ms: u64) -> VersionRow {
        VersionRow {
            id: VersionId::generate(Timestamp::from_unix_ms(ms)),
            branch: None,
            parent: None,
            created: Timestamp::from_unix_ms(ms),
            cause: "suspend".into(),
            label: None,
            total_bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            mongod_version: "6.0.5".into(),
            fcv: "6.0".into(),
            pinned: false,
        }
    }

    #[test]
    fn a_time_means_the_newest_version_not_after_it() {
        let versions = [version(10), version(20), version(30)];
        for (time, found) in [(9, None), (10, Some(0)), (19, Some(0)), (20, Some(1)), (99, Some(2))]
        {
            let expected = found.map(|index: usize| versions[index].id);
            assert_eq!(newest_until(&versions, Timestamp::from_unix_ms(time)), expected, "{time}");
        }
        assert_eq!(newest_until(&[], Timestamp::from_unix_ms(5)), None);
    }

    #[test]
    fn a_label_means_the_version_that_has_it_and_the_newest_of_two() {
        let labelled_as = |ms, label: &str| VersionRow { label: Some(label.into()), ..version(ms) };
        let versions =
            [labelled_as(10, "a"), labelled_as(20, "b"), labelled_as(30, "a"), version(40)];
        for (label, found) in [("a", Some(2)), ("b", Some(1)), ("c", None)] {
            let found = found.map(|index: usize| &versions[index]);
            assert_eq!(labelled(&versions, &label.parse().unwrap()), found, "{label}");
        }
    }
}
