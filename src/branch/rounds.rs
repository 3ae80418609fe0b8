//! Branches, retention and garbage collection at random on a store with faults, against a trivial
//! model. No mongod: what a branch wrote is put into its working directory, as one leaves it.
//!
//! `ARGON_SEED=7 cargo test -p argon branch::rounds` runs the rounds of that seed alone, and
//! `ARGON_ROUNDS=5000` more of them.

mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use argon_admin::types::{self, At, BranchSource, CollectGarbage, CreateBranch};

use super::cell::Cell;
use super::reconcile::reconcile;
use super::{BranchError, Branches, Deleted};
use crate::base::clock::{Clock, Timestamp};
use crate::base::ids::{BranchId, VersionId};
use crate::base::retention::Retention;
use crate::catalog::LocalData;
use crate::store::LocalStore;
use crate::store::faults::{Fault, Faults};
use crate::volume::{VolumeError, Volumes};
use parts::{Ahead, FILE, HOUR_MS, Random, open};

/// What must be, as far as it was acknowledged.
#[derive(Default)]
struct Model {
    /// What each version holds; of one whose maker was not told, what was found in it first.
    contents: BTreeMap<VersionId, String>,
    /// What branches hold that were neither purged nor became due; deleted ones too.
    states: BTreeMap<BranchId, String>,
    pins: BTreeSet<VersionId>,
    /// The versions that are there: whose they are, and when they were made. Also those whose maker
    /// was not told, and that no catalog knows yet.
    there: BTreeMap<VersionId, (Option<BranchId>, Timestamp)>,
    /// What some pass of retention may have let go, or a purge.
    let_go: BTreeSet<VersionId>,
    /// The rules that may hold: several where setting them broke off.
    rules: Vec<Retention>,
}

struct Rounds {
    directory: tempfile::TempDir,
    clock: Arc<Ahead>,
    faults: Arc<Faults>,
    branches: Branches,
    random: Random,
    model: Model,
    written: u64,
    what: String,
    gone: usize,
}

impl Rounds {
    async fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Ahead::default());
        let store = LocalStore::open(directory.path().join("store")).unwrap();
        let faults = Faults::new(Arc::new(store), seed);
        let branches = open(directory.path(), &faults, &clock).await;
        let model = Model { rules: vec![Retention::default()], ..Model::default() };
        let (random, what) = (Random(seed), String::new());
        Self { directory, clock, faults, branches, random, model, written: 0, what, gone: 0 }
    }

    fn volumes(&self) -> &Volumes {
        &self.branches.shared.volumes
    }

    fn names(&self, deleted: Deleted) -> Vec<(String, BranchId)> {
        let listed = self.branches.list("demo", deleted).unwrap().into_iter();
        listed.map(|one| (one.name, one.id.parse().unwrap())).collect()
    }

    async fn step(&mut self) -> Result<(), BranchError> {
        let live = self.names(Deleted::Without);
        let deleted = self.names(Deleted::Only);
        match self.random.below(16) {
            0 | 1 => self.create(&live).await,
            2..6 => {
                let Some((name, id)) = self.random.any(&live) else { return Ok(()) };
                self.what = format!("write to and suspend {name}");
                self.write(id).await?;
                let saved = self.branches.suspend("demo", &name, types::Until::Saved).await?;
                self.told(&saved.head_version, id);
                Ok(())
            }
            6 => {
                let Some((name, id)) = self.random.any(&live) else { return Ok(()) };
                self.what = format!("snapshot {name}");
                let made = self.branches.snapshot("demo", &name, None).await?;
                self.told(&made.id, id);
                Ok(())
            }
            7 => {
                let Some((name, id)) = self.random.any(&live) else { return Ok(()) };
                self.what = format!("delete {name}");
                if self.random.below(2) == 0 {
                    self.write(id).await?;
                }
                self.branches.delete("demo", &name).await.map(drop)
            }
            8 => {
                let Some((name, id)) = self.random.any(&deleted) else { return Ok(()) };
                self.what = format!("undelete {name}");
                if live.iter().any(|(other, _)| *other == name) {
                    return Ok(());
                }
                self.branches.undelete("demo", &id.to_string()).await.map(drop)
            }
            9 => {
                let Some((name, id)) = self.random.any(&deleted) else { return Ok(()) };
                self.what = format!("purge {name}");
                self.give_up(id);
                self.purge(id).await
            }
            10 | 11 => self.pin_or_not().await,
            12 => {
                let last = self.random.any(&[None, Some(1), Some(2), Some(4)]).flatten();
                let hours = self.random.any(&[None, Some(0), Some(5), Some(40)]).flatten();
                let deleted = self.random.any(&[None, Some(3), Some(50)]).flatten();
                // Half an hour more than any number of hours that pass.
                let ms = |hours: u64| hours * HOUR_MS + HOUR_MS / 2;
                let rules = types::Retention {
                    keep_last: last,
                    keep_for_ms: hours.map(ms),
                    keep_deleted_ms: deleted.map(ms),
                    periodic: types::Thinning::default(),
                };
                self.what = format!("set {rules:?}");
                let new = Retention::from_ms(last, rules.keep_for_ms, rules.keep_deleted_ms);
                self.model.rules.push(new);
                self.branches.set_retention("demo", rules).await?;
                self.model.rules = vec![new];
                Ok(())
            }
            _ => {
                self.what = "collect garbage".to_owned();
                let hours = self.random.below(30) as u64;
                self.collect(hours).await
            }
        }
    }

    async fn create(&mut self, live: &[(String, BranchId)]) -> Result<(), BranchError> {
        let name = format!("b{}", self.random.below(5));
        self.what = format!("create {name}");
        if live.iter().any(|(other, _)| *other == name) {
            return Ok(());
        }
        let source = match self.random.any(live) {
            None => BranchSource::Empty,
            Some((branch, _)) => {
                let versions = self.branches.versions("demo", &branch)?;
                let at = self.random.any(&versions).map(|version| At::Version(version.id));
                BranchSource::Branch { branch, at }
            }
        };
        let request = CreateBranch {
            name,
            source,
            idle_timeout: None,
            snapshot_every: None,
            keep_warm: None,
        };
        unless_given_up(self.branches.create("demo", request).await).map(drop)
    }

    async fn pin_or_not(&mut self) -> Result<(), BranchError> {
        let versions: Vec<_> = self.model.contents.keys().copied().collect();
        let Some(version) = self.random.any(&versions) else { return Ok(()) };
        self.what = format!("pin or unpin {version}");
        if self.model.pins.remove(&version) {
            return unless_given_up(self.branches.unpin(&version.to_string()).await).map(drop);
        }
        if unless_given_up(self.branches.pin(&version.to_string()).await)?.is_some() {
            self.model.pins.insert(version);
        }
        Ok(())
    }

    /// As a mongod leaves it that was stopped: a working directory with something new in it.
    async fn write(&mut self, branch: BranchId) -> Result<(), BranchError> {
        let shared = &self.branches.shared;
        let cell = shared.cells.get(&branch).unwrap().clone();
        // No mongod runs before its branch has a head, and the row is brought up to that.
        reconcile(shared, &cell).await?;
        if cell.row().local != LocalData::None {
            // Nor before what the last one left was saved or woken: it may be saved at this moment.
            return Ok(());
        }
        let db = shared.layout.branch(branch).db();
        fs::create_dir_all(&db).unwrap();
        self.written += 1;
        let text = format!("state {}", self.written).repeat(1 + self.written as usize % 9_000);
        fs::write(db.join(FILE), &text).unwrap();
        let row = cell.update_row(shared, |row| {
            row.local = LocalData::Present { base: row.head, saving: None };
        });
        // As the next start of a server finds it.
        shared.add_live(&Cell::new(row.unwrap(), cell.project.clone()));
        self.model.states.insert(branch, text);
        Ok(())
    }

    /// A version was acknowledged.
    fn told(&mut self, version: &str, of: BranchId) {
        let state = self.model.states[&of].clone();
        self.model.contents.entry(version.parse().unwrap()).or_insert(state);
    }

    fn give_up(&mut self, branch: BranchId) {
        self.model.states.remove(&branch);
        self.model.let_go.extend(self.own(branch).iter().map(|(id, _)| id));
    }

    /// A branch's versions, the oldest first.
    fn own(&self, branch: BranchId) -> Vec<(VersionId, Timestamp)> {
        let own = self.model.there.iter().filter(|(_, (of, _))| *of == Some(branch));
        own.map(|(id, (_, made))| (*id, *made)).collect()
    }

    async fn collect(&mut self, hours: u64) -> Result<(), BranchError> {
        self.clock.ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
        if hours > 0 {
            self.faults.settle();
        }
        self.note_what_may_go();
        let request = CollectGarbage { dry_run: false };
        let collected = self.branches.collect_garbage(request, &|_| {}).await?;
        self.gone += collected.deleted.versions as usize;
        Ok(())
    }

    /// What the rules that may hold let go, said in other words than retention says it.
    fn note_what_may_go(&mut self) {
        let now = self.clock.now().unix_ms();
        for row in self.branches.shared.catalog.all_branches().unwrap() {
            let own = self.own(row.id);
            for rules in self.model.rules.clone() {
                let over = |since: Timestamp, keep: Option<u64>| {
                    keep.is_some_and(|keep| since.unix_ms() + keep <= now)
                };
                if row.deleted.is_some_and(|deleted| over(deleted, rules.keep_deleted_ms())) {
                    self.give_up(row.id);
                }
                for (place, (version, _)) in own.iter().enumerate() {
                    let newer = &own[place + 1..];
                    let by_number = rules.keep_last.is_some_and(|n| newer.len() >= n as usize);
                    let by_age =
                        newer.first().is_some_and(|(_, made)| over(*made, rules.keep_for_ms()));
                    if by_number && by_age {
                        self.model.let_go.insert(*version);
                    }
                }
            }
        }
    }

    /// The store is well again: what broke off is done once more, and must succeed.
    async fn settle(&mut self) {
        let context = self.what.clone();
        for (name, id) in self.names(Deleted::Without) {
            // Where its deletion broke off, it may be deleted meanwhile.
            let saved = self.branches.suspend("demo", &name, types::Until::Saved).await;
            assert!(
                saved.is_ok() || self.branches.show("demo", &name).is_err(),
                "{context}: {saved:?}"
            );
            if let Ok(saved) = saved {
                let head: VersionId = saved.head_version.parse().unwrap();
                let found = self.read(head).await;
                let state = self.model.states.entry(id).or_insert_with(|| found.clone());
                assert!(
                    found == *state,
                    "{context}: {name} lost its newest write: {:?} {:?}",
                    &found[..12.min(found.len())],
                    &state[..12.min(state.len())]
                );
                self.model.contents.entry(head).or_insert(found);
            }
        }
        for (name, id) in self.names(Deleted::Only) {
            let Some(state) = self.model.states.get(&id).cloned() else {
                let purged = self.purge(id).await;
                assert!(purged.is_ok(), "{context}: purge {name}: {purged:?}");
                continue;
            };
            let (head, _) = self.volumes().head(id).await.unwrap();
            assert!(self.read(head.version).await == state, "{context}: {name} lost a write");
        }
    }

    async fn purge(&self, id: BranchId) -> Result<(), BranchError> {
        let purged = self.branches.purge("demo", &id.to_string()).await;
        match (purged, self.volumes().head(id).await) {
            // It was brought back, and the answer to that lost: that can be done again, this not.
            (Err(BranchError::NotDeleted { .. }), Ok((head, _))) if head.deleted.is_none() => {
                Ok(())
            }
            (purged, _) => purged.map(drop),
        }
    }

    async fn read(&self, version: VersionId) -> String {
        let into = self.directory.path().join("read");
        let restored = self.volumes().restore(version, &into).await;
        assert!(restored.is_ok(), "{}: {version}: {restored:?}", self.what);
        let text = fs::read_to_string(into.join(FILE)).unwrap();
        fs::remove_dir_all(&into).unwrap();
        text
    }

    /// What nothing let go is there, and all that is there is what it was.
    async fn verify(&mut self) {
        let visible: BTreeSet<_> =
            self.volumes().version_ids().await.unwrap().into_iter().collect();
        let mut there = BTreeMap::new();
        for id in &visible {
            let known = match self.model.there.get(id) {
                Some(known) => *known,
                None => {
                    let version = self.volumes().version(*id).await.unwrap();
                    (version.branch, version.created)
                }
            };
            there.insert(*id, known);
        }
        self.model.there = there;
        let heads = self.volumes().heads().await.unwrap();
        let origins = heads.iter().filter_map(|head| Some(head.origin?.version));
        let named: BTreeSet<_> = heads.iter().map(|head| head.version).chain(origins).collect();
        for version in named.iter().chain(&self.model.pins) {
            assert!(visible.contains(version), "{}: {version} is needed", self.what);
        }
        for version in self.model.contents.keys() {
            let may_go = self.model.let_go.contains(version);
            assert!(may_go || visible.contains(version), "{}: lost {version}", self.what);
        }
        let pins: BTreeSet<_> = self.volumes().pins().await.unwrap().into_iter().collect();
        assert!(self.model.pins.is_subset(&pins), "{}: a pin is lost", self.what);
        for branch in self.model.states.keys() {
            let there = heads.iter().any(|head| head.branch == *branch);
            assert!(there, "{}: branch {branch} has no head", self.what);
        }
    }

    async fn verify_contents(&mut self) {
        let scrubbed = self.volumes().scrub(&|_| {}).await.unwrap();
        assert_eq!(scrubbed.damages, [], "{}", self.what);
        for version in self.volumes().version_ids().await.unwrap() {
            let found = self.read(version).await;
            let known = self.model.contents.entry(version).or_insert_with(|| found.clone());
            assert!(*known == found, "{}: {version} is another", self.what);
        }
    }

    /// Another server takes up what this one leaves, whatever it was about to try again.
    async fn restart(self) -> Self {
        let Self { directory, clock, faults, branches, random, model, written, what, gone } = self;
        branches.shared.closing.cancel();
        branches.shared.tasks.close();
        branches.shared.tasks.wait().await;
        drop(branches);
        let branches = open(directory.path(), &faults, &clock).await;
        Self { directory, clock, faults, branches, random, model, written, what, gone }
    }
}

/// None where a version was given up, and is on its way out or gone.
fn unless_given_up<T>(done: Result<T, BranchError>) -> Result<Option<T>, BranchError> {
    let going = |error: &VolumeError| {
        matches!(error, VolumeError::Condemned { .. } | VolumeError::NoVersion { .. })
    };
    match done {
        Err(BranchError::NoVersion { .. }) => Ok(None),
        Err(BranchError::Volume { source }) if going(&source) => Ok(None),
        done => done.map(Some),
    }
}

#[tokio::test]
async fn whatever_fails_retention_takes_only_what_no_rule_keeps() {
    let seeds = match std::env::var("ARGON_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![31],
    };
    let count = std::env::var("ARGON_ROUNDS").map_or(500, |rounds| rounds.parse().unwrap());
    for seed in seeds {
        println!("ARGON_SEED={seed}");
        let mut rounds = Rounds::new(seed).await;
        let (mut failed, mut gone) = (0, 0);
        for round in 0..count {
            let often = rounds.random.any(&[0, 20, 100, 300]).unwrap();
            let before = rounds.faults.happened();
            rounds.faults.often(often, &Fault::ALL);
            let ended = rounds.step().await;
            rounds.faults.calm();
            let faults = rounds.faults.happened() - before;
            rounds.what = format!("seed {seed}, round {round}, {}, {ended:?}", rounds.what);
            assert!(ended.is_ok() || faults > 0, "{}: {ended:?}", rounds.what);
            failed += u32::from(ended.is_err());
            if rounds.random.below(20) == 0 {
                rounds = rounds.restart().await;
            }
            rounds.settle().await;
            rounds.verify().await;
            if round % 20 == 0 {
                rounds.verify_contents().await;
            }
        }
        rounds.verify_contents().await;
        gone += rounds.gone;
        println!("{failed} steps failed, {gone} versions deleted");
        assert!(std::env::var("ARGON_SEED").is_ok() || (gone > 20 && failed > 20));
    }
}
