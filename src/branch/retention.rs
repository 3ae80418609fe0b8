//! Which old versions and deleted branches are kept, and which are let go.
//!
//! Decided here by pure functions over the catalog's rows. Garbage collection then deletes from the
//! store what was given up, unless a head, an origin, a project's base or a pin that this catalog
//! may not know of needs it; only after that a row goes. So a crash at any point leaves a row
//! without its version at most, which the next pass finds and removes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use argon_admin::types;
use tracing::{info, warn};

use super::reconcile::version_row;
use super::shared::Shared;
use super::state::State;
use super::thinning::thinned;
use super::{BranchError, Branches, view};
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, VersionId};
use crate::base::retention::Retention;
use crate::catalog::{BranchRow, LocalData, ProjectRow, VersionRow};
use crate::volume::{Project, VolumeError};

impl Branches {
    /// One pass of the rules of every project: deleted branches whose time is over are purged, and
    /// the versions that no rule keeps are named for [`crate::volume`] to collect. Call
    /// [`Self::forget`] with those that are gone.
    ///
    /// # Errors
    /// The catalog or the store fails. What was purged by then stays so.
    pub async fn retain(&self) -> Result<HashSet<VersionId>, BranchError> {
        let shared = &self.shared;
        // What the store says is pinned, is pinned.
        shared.catalog.set_pins(&shared.volumes.pins().await?)?;
        follow_the_store(shared).await?;
        let now = shared.clock.now();
        let projects = shared.projects();
        for row in shared.catalog.all_branches()? {
            let rules = projects.iter().find(|project| project.id == row.project);
            if rules.is_some_and(|project| is_due(&row, &project.retention, now)) {
                self.purge_when_deleted_everywhere(&row).await?;
            }
        }
        self.let_go()
    }

    /// The versions that no rule keeps. Changes nothing.
    pub(super) fn let_go(&self) -> Result<HashSet<VersionId>, BranchError> {
        let (all, now) = (Rows::read(&self.shared)?, self.shared.clock.now());
        let projects = self.shared.projects();
        Ok(projects.iter().flat_map(|project| all.let_go(project, now)).collect())
    }

    /// Takes the rows of versions out that are gone from the store. One that is still needed stays.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub fn forget(&self, versions: &[VersionId]) -> Result<(), BranchError> {
        Ok(self.shared.catalog.forget_versions(versions)?)
    }

    /// Sets the rules of a project.
    ///
    /// # Errors
    /// There is no such project, or the store cannot be written; then the old rules hold.
    pub async fn set_retention(
        &self,
        project: &str,
        rules: types::Retention,
    ) -> Result<types::Project, BranchError> {
        let retention = view::rules(&rules)?;
        let _turn = self.shared.changing.lock().await;
        let row = ProjectRow { retention, ..self.shared.project(&project.parse()?)? };
        self.shared.volumes.save_project(&kept(&row)).await?;
        self.shared.catalog.set_retention(row.id, &row.retention)?;
        self.shared.set_project(row.clone());
        info!(project = %row.name, ?retention, "set the rules of retention");
        Ok(view::project(&row))
    }

    /// What these rules would let go of now. Changes nothing.
    ///
    /// # Errors
    /// There is no such project.
    pub fn preview_retention(
        &self,
        project: &str,
        rules: types::Retention,
    ) -> Result<Vec<types::Leaving>, BranchError> {
        let retention = view::rules(&rules)?;
        let project = ProjectRow { retention, ..self.shared.project(&project.parse()?)? };
        let (all, now) = (Rows::read(&self.shared)?, self.shared.clock.now());
        let mut leaving = Vec::new();
        for branch in all.branches.iter().filter(|branch| branch.project == project.id) {
            let named = |version| types::Leaving {
                branch: branch.name.to_string(),
                branch_id: branch.id.to_string(),
                version,
            };
            if is_due(branch, &retention, now) {
                leaving.push(named(None));
                continue;
            }
            let gone = all.let_go_of(branch, &retention, now);
            let rows = all.own(branch).iter().filter(|row| gone.contains(&row.id));
            leaving.extend(rows.map(|row| named(Some(view::version(row)))));
        }
        Ok(leaving)
    }

    /// Another server may have brought it back: the head in the store decides.
    async fn purge_when_deleted_everywhere(&self, row: &BranchRow) -> Result<(), BranchError> {
        let _turn = self.shared.changing.lock().await;
        let cell = self.shared.cells.get(&row.id).map(|cell| cell.clone());
        if cell.is_some_and(|cell| cell.state() != State::Deleted) {
            return Ok(());
        }
        match self.shared.volumes.head(row.id).await {
            Ok((head, _)) if head.deleted.is_none() => {
                warn!(branch = %row.id, name = %row.name,
                      "kept, though its time as a deleted branch is over: its head is not deleted");
                Ok(())
            }
            Ok(_) | Err(VolumeError::NoHead { .. }) => {
                self.purge_id(row.id).await?;
                info!(branch = %row.id, name = %row.name, "purged: its time was over");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A project as the store has it.
pub(super) fn kept(row: &ProjectRow) -> Project {
    let ProjectRow { id, name, created, base, retention, image } = row.clone();
    Project { id, name, created, base, retention, image }
}

/// Enters versions of known branches that the catalog lacks, and takes out what is gone. Another
/// server may have made them; a save may have been cut off before its head moved, and what it wrote
/// would otherwise stay for ever; garbage collection may have been cut off between the store and
/// the catalog.
async fn follow_the_store(shared: &Arc<Shared>) -> Result<(), BranchError> {
    let there: HashSet<_> = shared.volumes.version_ids().await?.into_iter().collect();
    let rows = shared.catalog.all_versions()?;
    let known: HashSet<_> = rows.iter().map(|row| row.id).collect();
    for id in there.difference(&known) {
        let version = match shared.volumes.version(*id).await {
            Err(VolumeError::NoVersion { .. }) => continue,
            version => version?,
        };
        if version.branch.is_some_and(|branch| shared.cells.contains_key(&branch)) {
            shared.catalog.insert_version(&version_row(&version))?;
        }
    }
    let mut gone = Vec::new();
    for row in rows {
        // A listing may be stale; an object that cannot be read by its key is gone.
        if !there.contains(&row.id)
            && matches!(shared.volumes.version(row.id).await, Err(VolumeError::NoVersion { .. }))
        {
            gone.push(row.id);
        }
    }
    Ok(shared.catalog.forget_versions(&gone)?)
}

/// What the rules look at.
struct Rows {
    branches: Vec<BranchRow>,
    /// Each branch's own, the oldest first.
    own: HashMap<BranchId, Vec<VersionRow>>,
    needed: HashSet<VersionId>,
}

impl Rows {
    fn read(shared: &Shared) -> Result<Self, BranchError> {
        let branches = shared.catalog.all_branches()?;
        let mut needed = needed(&branches, &shared.projects());
        needed.extend(shared.catalog.seeds()?);
        let mut own = HashMap::<_, Vec<_>>::new();
        for version in shared.catalog.all_versions()? {
            if let Some(branch) = version.branch {
                own.entry(branch).or_default().push(version);
            }
        }
        Ok(Self { branches, own, needed })
    }

    fn own(&self, branch: &BranchRow) -> &[VersionRow] {
        self.own.get(&branch.id).map_or(&[], Vec::as_slice)
    }

    fn let_go(&self, project: &ProjectRow, now: Timestamp) -> Vec<VersionId> {
        let branches = self.branches.iter().filter(|branch| branch.project == project.id);
        branches.flat_map(|branch| self.let_go_of(branch, &project.retention, now)).collect()
    }

    fn let_go_of(
        &self,
        branch: &BranchRow,
        rules: &Retention,
        now: Timestamp,
    ) -> HashSet<VersionId> {
        let_go(self.own(branch), &self.needed, rules, now)
    }
}

/// What must stay whatever the rules say: states of branches, deleted ones too, what branches were
/// made from, what is being saved and on top of what, and bases.
fn needed(branches: &[BranchRow], projects: &[ProjectRow]) -> HashSet<VersionId> {
    let of_branch = |branch: &BranchRow| {
        let local = match branch.local {
            LocalData::None => [None, None],
            LocalData::Present { base, saving } => [Some(base), saving],
        };
        [Some(branch.head), branch.origin_version].into_iter().chain(local).flatten()
    };
    let bases = projects.iter().filter_map(|project| project.base);
    branches.iter().flat_map(of_branch).chain(bases).collect()
}

/// Which of a branch's own versions, the oldest first, the rules let go: those that are too many
/// for their age among the ones made by the clock, and of the rest what is neither among the newest
/// nor young enough. By age a version stays as long as the branch was still in that state within the
/// time to keep: so every moment that was not thinned out can be gone back to.
fn let_go(
    own: &[VersionRow],
    needed: &HashSet<VersionId>,
    rules: &Retention,
    now: Timestamp,
) -> HashSet<VersionId> {
    let mut gone = thinned(own, needed, &rules.periodic, now);
    let own: Vec<_> = own.iter().filter(|version| !gone.contains(&version.id)).collect();
    let last = rules.keep_last.map_or(own.len(), |last| last as usize);
    let old = own.len().saturating_sub(last);
    let since = rules.keep_for_ms().map_or(0, |ms| now.unix_ms().saturating_sub(ms));
    let of_old = own.iter().take(old).enumerate().filter(|(place, version)| {
        let replaced = own.get(place + 1).is_some_and(|next| next.created.unix_ms() <= since);
        replaced && !version.pinned && !needed.contains(&version.id)
    });
    gone.extend(of_old.map(|(_, version)| version.id));
    gone
}

/// Whether the rules of its project may let go of a version of this branch now.
pub(super) fn may_go(
    shared: &Shared,
    branch: &BranchRow,
    rules: &Retention,
    version: VersionId,
) -> Result<bool, BranchError> {
    let now = shared.clock.now();
    if is_due(branch, rules, now) {
        return Ok(true);
    }
    let own = shared.catalog.versions_of(branch.id)?;
    // Not what other branches need: that much more is taken for what may go.
    let needed = needed(std::slice::from_ref(branch), &[]);
    Ok(let_go(&own, &needed, rules, now).contains(&version))
}

/// Whether a deleted branch is to be purged.
fn is_due(branch: &BranchRow, rules: &Retention, now: Timestamp) -> bool {
    branch
        .deleted
        .zip(rules.keep_deleted_ms())
        .is_some_and(|(deleted, keep)| deleted.unix_ms().saturating_add(keep) <= now.unix_ms())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Epoch, ProjectId};
    use crate::base::own_time::OwnTime;

    fn id(number: u8) -> VersionId {
        VersionId::from_bytes([number; 16])
    }

    /// Version `n` was made at `10 * n` milliseconds.
    fn version(number: u8) -> VersionRow {
        VersionRow {
            id: id(number),
            branch: Some(BranchId::from_bytes([1; 16])),
            parent: None,
            created: Timestamp::from_unix_ms(10 * u64::from(number)),
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

    fn branch() -> BranchRow {
        BranchRow {
            id: BranchId::from_bytes([1; 16]),
            project: ProjectId::from_bytes([2; 16]),
            name: "dev".parse().unwrap(),
            head: id(9),
            epoch: Epoch(1),
            idle_timeout: OwnTime::Default,
            snapshot_every: OwnTime::Default,
            keep_warm: OwnTime::Default,
            created: Timestamp::from_unix_ms(1),
            deleted: None,
            origin_branch: None,
            origin_version: None,
            local: LocalData::None,
            error: None,
            port: None,
            socket: false,
            head_pending: false,
        }
    }

    #[test]
    fn a_version_goes_only_where_both_rules_let_it_go() {
        const FOREVER: Option<u64> = None;
        let own: Vec<_> = (1..=5).map(version).collect();
        for (last, keep_for, now, gone) in [
            (None, FOREVER, 1_000, &[][..]),
            (None, Some(0), 1_000, &[]),
            (Some(1), FOREVER, 1_000, &[]),
            (Some(1), Some(0), 1_000, &[1, 2, 3, 4]),
            (Some(2), Some(0), 1_000, &[1, 2, 3]),
            (Some(5), Some(0), 1_000, &[]),
            (Some(99), Some(0), 1_000, &[]),
            // The newest stays even where none is to.
            (Some(0), Some(0), 1_000, &[1, 2, 3, 4]),
            // Version 3 was the state until 40, so one who goes back to 35 needs it.
            (Some(1), Some(15), 50, &[1, 2]),
            (Some(1), Some(10), 50, &[1, 2, 3]),
            (Some(1), Some(11), 50, &[1, 2]),
            (Some(1), Some(50), 50, &[]),
            (Some(3), Some(10), 50, &[1, 2]),
            // A clock that was set back lets nothing go.
            (Some(1), Some(10), 5, &[]),
            (Some(1), Some(u64::MAX), 50, &[]),
        ] {
            let rules = Retention::from_ms(last, keep_for, None);
            let now = Timestamp::from_unix_ms(now);
            let found = let_go(&own, &HashSet::new(), &rules, now);
            let expected: HashSet<_> = gone.iter().copied().map(id).collect();
            assert_eq!(found, expected, "keep {last:?}, for {keep_for:?}, at {now}");
        }
    }

    #[test]
    fn what_is_pinned_or_needed_stays() {
        let mut own: Vec<_> = (1..=9).map(version).collect();
        own[0].pinned = true;
        let child = BranchRow {
            id: BranchId::from_bytes([3; 16]),
            head: id(3),
            origin_branch: Some(branch().id),
            origin_version: Some(id(2)),
            ..branch()
        };
        let deleted =
            BranchRow { head: id(4), deleted: Some(Timestamp::from_unix_ms(5)), ..child.clone() };
        let running = BranchRow {
            local: LocalData::Present { base: id(5), saving: Some(id(6)) },
            ..branch()
        };
        let project = ProjectRow {
            id: branch().project,
            name: "shop".parse().unwrap(),
            created: Timestamp::from_unix_ms(1),
            base: Some(id(7)),
            retention: Retention::default(),
            image: None,
        };
        let needed = needed(&[running, child, deleted], &[project]);
        let rules = Retention::from_ms(Some(1), Some(0), Some(0));
        let now = Timestamp::from_unix_ms(1_000);
        assert_eq!(let_go(&own, &needed, &rules, now), HashSet::from([id(8)]));
    }

    #[test]
    fn what_is_thinned_out_goes_whatever_else_is_kept_and_is_not_counted() {
        let mut own: Vec<_> = (1..=6).map(version).collect();
        for version in &mut own[..4] {
            version.cause = "periodic".into();
        }
        let now = Timestamp::from_unix_ms(2 * 60 * 60 * 1_000);
        let none = HashSet::new();
        // All of one minute, and older than an hour: the newest of them stays, and the suspends.
        let forever = Retention::from_ms(None, None, None);
        let thinned = HashSet::from([1, 2, 3].map(id));
        assert_eq!(let_go(&own, &none, &forever, now), thinned);
        for (last, gone) in [(3, &[1, 2, 3][..]), (2, &[1, 2, 3, 4]), (1, &[1, 2, 3, 4, 5])] {
            let rules = Retention::from_ms(Some(last), Some(0), None);
            let expected: HashSet<_> = gone.iter().copied().map(id).collect();
            assert_eq!(let_go(&own, &none, &rules, now), expected, "keep {last}");
        }
    }

    #[test]
    fn a_deleted_branch_goes_when_its_time_is_over() {
        for (deleted, keep, now, due) in [
            (None, Some(0), 100, false),
            (Some(50), None, u64::MAX, false),
            (Some(50), Some(50), 99, false),
            (Some(50), Some(50), 100, true),
            (Some(50), Some(0), 49, false),
            (Some(50), Some(u64::MAX), 1 << 40, false),
        ] {
            let deleted = deleted.map(Timestamp::from_unix_ms);
            let row = BranchRow { deleted, ..branch() };
            let rules = Retention::from_ms(None, None, keep);
            assert_eq!(is_due(&row, &rules, Timestamp::from_unix_ms(now)), due, "{keep:?} {now}");
        }
    }
}
