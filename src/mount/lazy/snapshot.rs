//! An overlay's whole state as records: what a log begins with.

use std::collections::HashMap;

use super::content::pages_records;
use super::names::Names;
use super::node::State;
use super::pages::PAGE_BYTES;
use super::record::Record;
use crate::base::ids::VersionId;

/// Whether something may differ from the version below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dirty {
    Yes,
    No,
}

/// Where a node stands in a version that is to come below: its file, and its size there.
pub(super) type Places = HashMap<u64, (usize, u64)>;

/// How much of a file of a version that is to come below counts.
pub(super) fn source_bytes_after(state: &State, bytes: u64) -> u64 {
    state.guard.as_ref().map_or(bytes, |guard| bytes.min(guard.shrunk))
}

/// The records. With `places`, on the version in which those are; whatever is in none of its files
/// goes back to nothing.
///
/// A node's state is read under its lock, and what is appended to the log meanwhile goes into the
/// new log too: a change is in one of them, or harmlessly in both.
pub(super) fn records(
    names: &Names,
    version: VersionId,
    dirty: Dirty,
    places: Option<&Places>,
) -> Vec<Record> {
    let mut records = vec![Record::Base { version }];
    if dirty == Dirty::Yes {
        records.push(Record::Dirty);
    }
    for (_, entry) in names.walk() {
        let (node, parent) = (entry.node.number, entry.parent);
        let (mode, name) = (entry.mode, entry.name.clone());
        let Ok(state) = entry.node.read() else {
            records.push(Record::Directory { node, parent, mode, name });
            continue;
        };
        let mut logged = state.present.clone();
        logged.subtract(&state.unlogged);
        let origin = match places {
            None => state.origin.as_ref().map(|origin| (origin.file, state.source_bytes)),
            Some(places) => places.get(&node).map(|(file, bytes)| {
                let source_bytes = source_bytes_after(&state, *bytes);
                // Up to there the data file alone had them; it was synced.
                let end = source_bytes.div_ceil(PAGE_BYTES);
                logged.insert_range(state.source_end(), end);
                (*file, source_bytes)
            }),
        };
        let origin = origin.map(|(file, bytes)| (file as u64, bytes));
        records.push(Record::File { node, parent, mode, origin, name });
        match (state.floor, state.cut) {
            (Some(floor), _) => records.extend(pages_records(node, floor, &logged)),
            (None, Some(bytes)) => {
                records.push(Record::Cut { node, bytes });
                records.push(Record::CutDone { node });
            }
            (None, None) => {}
        }
    }
    records
}
