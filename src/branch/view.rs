//! What people see of projects, branches and versions.

use std::sync::atomic::Ordering;

use argon_admin::types::{self, BranchState};

use super::BranchError;
use super::cell::Cell;
use super::shared::Shared;
use super::state::State;
use crate::base::retention::{Retention, Thinning};
use crate::catalog::{ProjectRow, VersionRow};

pub(super) fn project(row: &ProjectRow) -> types::Project {
    types::Project {
        id: row.id.to_string(),
        name: row.name.to_string(),
        created_at: row.created.to_string(),
        base_version: row.base.map(|version| version.to_string()),
        image: row.image.clone(),
        retention: types::Retention {
            keep_last: row.retention.keep_last,
            keep_for_ms: row.retention.keep_for_ms(),
            keep_deleted_ms: row.retention.keep_deleted_ms(),
            periodic: {
                let [all_ms, minutes_ms, hours_ms] = row.retention.periodic.to_ms();
                types::Thinning { all_ms, minutes_ms, hours_ms }
            },
        },
    }
}

/// The rules that somebody asks for.
pub(super) fn rules(rules: &types::Retention) -> Result<Retention, BranchError> {
    if rules.keep_last == Some(0) {
        return Err(BranchError::KeepNone);
    }
    let types::Retention { keep_last, keep_for_ms, keep_deleted_ms, periodic } = *rules;
    let types::Thinning { all_ms, minutes_ms, hours_ms } = periodic;
    Ok(Retention {
        periodic: Thinning::from_ms([all_ms, minutes_ms, hours_ms]),
        ..Retention::from_ms(keep_last, keep_for_ms, keep_deleted_ms)
    })
}

pub(super) fn branch(shared: &Shared, cell: &Cell) -> Result<types::Branch, BranchError> {
    let now = cell.standing();
    let row = now.row;
    let head = shared.catalog.version(row.head)?;
    let origin = row.origin_branch.zip(row.origin_version).map(|(branch, version)| {
        let name = shared.cells.get(&branch).map(|cell| cell.name.to_string());
        types::Origin {
            branch: name.unwrap_or_else(|| branch.to_string()),
            version: version.to_string(),
        }
    });
    Ok(types::Branch {
        id: row.id.to_string(),
        project: cell.project.to_string(),
        name: row.name.to_string(),
        state: match now.unsaved_since {
            // Every try of many looks like a suspend.
            Some(_) if now.state == State::Suspending => BranchState::Saving,
            _ => state(now.state),
        },
        head_version: row.head.to_string(),
        origin,
        idle_timeout: shared.idle_timeout(&row).into(),
        snapshot_every: shared.snapshot_interval(&row).into(),
        keep_warm: shared.keep_warm(&row).into(),
        frozen: now.is_frozen,
        epoch: row.epoch.0,
        created_at: row.created.to_string(),
        deleted_at: row.deleted.map(|deleted| deleted.to_string()),
        saving_since: now.unsaved_since.map(|since| since.to_string()),
        error: row.error,
        uri: types::connection_uri(
            &shared.settings.address,
            cell.project.as_str(),
            row.name.as_str(),
        ),
        clients: cell.clients.load(Ordering::Relaxed) as u64,
        in_flight: now.in_flight as u64,
        last_wake: now.last_wake.map(|report| report.view()),
        port_uri: row.port.map(|port| shared.doors.port_uri(port)),
        socket_uri: row.socket.then(|| shared.doors.socket_uri(cell)),
        listen_error: shared.doors.failure(cell.id),
        size_bytes: head.map_or(0, |version| version.total_bytes),
    })
}

pub(super) fn version(row: &VersionRow) -> types::Version {
    types::Version {
        id: row.id.to_string(),
        created_at: row.created.to_string(),
        parent: row.parent.map(|parent| parent.to_string()),
        cause: row.cause.clone(),
        label: row.label.clone(),
        pinned: row.pinned,
        size_bytes: row.total_bytes,
        new_bytes: row.new_bytes,
        stored_bytes: row.stored_bytes,
        mongod_version: row.mongod_version.clone(),
    }
}

pub(super) fn state(state: State) -> BranchState {
    match state {
        State::Suspended => BranchState::Suspended,
        State::Waking => BranchState::Waking,
        State::Running => BranchState::Running,
        State::Suspending | State::Deleting => BranchState::Suspending,
        State::Unsaved => BranchState::Saving,
        State::Held => BranchState::Held,
        State::Deleted => BranchState::Deleted,
    }
}

pub(super) fn counts(states: impl Iterator<Item = State>) -> types::BranchCounts {
    let mut counts = types::BranchCounts::default();
    for one in states {
        *match state(one) {
            BranchState::Suspended => &mut counts.suspended,
            BranchState::Waking => &mut counts.waking,
            BranchState::Running => &mut counts.running,
            BranchState::Suspending => &mut counts.suspending,
            BranchState::Saving => &mut counts.saving,
            BranchState::Held => &mut counts.held,
            BranchState::Deleted => &mut counts.deleted,
        } += 1;
    }
    counts
}
