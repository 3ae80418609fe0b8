//! Branches, versions, pins and garbage collection at random, against a trivial model: what
//! [`rounds`] does with crashes and faults of the store.

mod rounds;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::memory::{Memory, Process};
use super::model::noise;
use super::pack::PackKind;
use super::sealed::Sealed;
use super::testing::{ManualClock, Random, head, request};
use super::{Capture, Collect, Head, LazyVolume, Mode, Origin, VolumeError, Volumes, check};
use crate::base::clock::Clock;
use crate::base::ids::{BranchId, VersionId};
use crate::base::limits::BLOCK_BYTES;
use crate::store::faults::Faults;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Files by name.
type Content = Arc<BTreeMap<String, Vec<u8>>>;

struct Branch {
    id: BranchId,
    /// What its head says, as far as that was acknowledged.
    head: VersionId,
    /// What it may say as well: a step towards it broke off.
    doubt: Option<VersionId>,
    origin: Option<Origin>,
    deleted: bool,
    /// A version that was made of it, and that its head may not have moved to.
    waiting: Option<VersionId>,
}

struct World {
    memory: Arc<Memory>,
    clock: Arc<ManualClock>,
    process: Arc<Process>,
    /// Before the process; calm unless a round says otherwise.
    faults: Arc<Faults>,
    volumes: Volumes,
    random: Random,
    /// Every version that may ever have been made.
    contents: BTreeMap<VersionId, Content>,
    /// Those that were acknowledged, each with its branch and its parent.
    made: BTreeMap<VersionId, (BranchId, Option<VersionId>)>,
    branches: Vec<Branch>,
    given_up: HashSet<VersionId>,
    /// Versions that this life has open.
    opened: BTreeMap<VersionId, Arc<LazyVolume>>,
    /// What is pinned, as far as that was acknowledged.
    pins: BTreeSet<VersionId>,
    /// Where pinning or the opposite broke off.
    pin_in_doubt: Option<VersionId>,
    /// Where purging broke off.
    purge_in_doubt: Option<BranchId>,
    lists_may_be_stale: bool,
    /// Versions that were deleted, packs that were rewritten.
    went: [u64; 2],
    what: String,
}

impl World {
    async fn new(seed: u64) -> Self {
        let clock = ManualClock::new();
        let memory = Memory::new(clock.clone());
        let process = memory.process();
        let faults = Faults::new(process.clone(), seed);
        let volumes = Volumes::new(faults.clone(), clock.clone());
        let mut world = Self {
            memory,
            clock,
            process,
            faults,
            volumes,
            random: Random(seed),
            contents: BTreeMap::new(),
            made: BTreeMap::new(),
            branches: Vec::new(),
            given_up: HashSet::new(),
            opened: BTreeMap::new(),
            pins: BTreeSet::new(),
            pin_in_doubt: None,
            purge_in_doubt: None,
            lists_may_be_stale: false,
            went: [0, 0],
            what: String::new(),
        };
        // What branches start from: it belongs to none, and stays.
        let start = world.capture(None, None).await.unwrap();
        world.create(start, None).await.unwrap();
        world
    }

    /// The next life, after a crash or for a change.
    fn restart(&mut self) {
        self.opened.clear();
        self.process = self.memory.process();
        self.faults = Faults::new(self.process.clone(), self.random.next());
        self.volumes = Volumes::new(self.faults.clone(), self.clock.clone());
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.random.below(of.len())])
    }

    /// Stores some change of `parent`.
    async fn capture(
        &mut self,
        parent: Option<VersionId>,
        branch: Option<BranchId>,
    ) -> Result<VersionId, VolumeError> {
        let before = parent.map(|parent| self.contents[&parent].clone()).unwrap_or_default();
        let content = Arc::new(changed(&before, &mut self.random));
        let id = VersionId::generate(self.clock.now());
        self.contents.insert(id, content.clone());
        let capture = Capture { id, branch, ..request(parent) };
        match parent {
            Some(parent) if self.random.below(2) == 0 => {
                self.capture_changes(parent, &before, &content, capture).await?;
            }
            _ => {
                let directory = tempfile::tempdir().unwrap();
                for (name, bytes) in &*content {
                    fs::write(directory.path().join(name), bytes).unwrap();
                }
                self.volumes.capture(directory.path(), capture).await?;
            }
        }
        if let Some(branch) = branch {
            self.made.insert(id, (branch, parent));
        }
        Ok(id)
    }

    /// The same as a mount does it, which may have seen a start, and may have been opened long ago.
    async fn capture_changes(
        &mut self,
        parent: VersionId,
        before: &Content,
        after: &Content,
        capture: Capture,
    ) -> Result<(), VolumeError> {
        let below = match self.opened.remove(&parent) {
            Some(opened) => opened,
            None => self.volumes.open(parent).await?,
        };
        let [before, after] = [before, after].map(|content| {
            content.iter().map(|(name, bytes)| (name.clone(), Some(bytes.clone()))).collect()
        });
        let mut sealed = Sealed::new(&*below, &before, &after);
        sealed.boot = (self.random.below(2) == 0).then(|| {
            let files = after.values().flatten().enumerate();
            let blocks = files.flat_map(|(file, bytes)| {
                (0..bytes.len().div_ceil(BLOCK_BYTES) as u64).map(move |index| (file, index))
            });
            blocks.filter(|_| self.random.below(3) == 0).collect()
        });
        let (version, opened) = self.volumes.capture_changes(&below, &sealed, capture).await?;
        self.opened.insert(version.id, opened);
        Ok(())
    }

    async fn create(
        &mut self,
        version: VersionId,
        origin: Option<Origin>,
    ) -> Result<(), VolumeError> {
        let id = BranchId::generate(self.clock.now());
        let new = Head { branch: id, version, origin, ..head(1) };
        let created = self.volumes.create_head(&new).await;
        if let Err(VolumeError::NoVersion { .. } | VolumeError::Condemned { .. }) = created {
            return Ok(());
        }
        // A head that nobody was told of is a branch that nobody misses.
        if created.is_err() {
            let branch = Branch {
                id,
                head: version,
                doubt: Some(version),
                origin,
                deleted: false,
                waiting: None,
            };
            self.branches.push(branch);
        }
        created?;
        let branch =
            Branch { id, head: version, doubt: None, origin, deleted: false, waiting: None };
        self.branches.push(branch);
        Ok(())
    }

    /// Moves the head of a branch to a version, or marks it deleted or not.
    async fn move_head(
        &mut self,
        place: usize,
        to: VersionId,
        deleted: bool,
    ) -> Result<(), VolumeError> {
        let (head, etag) = self.volumes.head(self.branches[place].id).await?;
        self.branches[place].doubt = Some(to);
        let deleted_at = deleted.then(|| self.clock.now());
        let head = Head { version: to, deleted: deleted_at, ..head };
        self.volumes.move_head(&head, &etag).await?;
        let branch = &mut self.branches[place];
        (branch.head, branch.doubt, branch.deleted) = (to, None, deleted);
        Ok(())
    }

    /// Versions that can be seen, and are not condemned.
    async fn offered(&self) -> Result<Vec<VersionId>, VolumeError> {
        let mut offered = Vec::new();
        for version in self.volumes.version_ids().await? {
            if !self.volumes.is_condemned(version).await? {
                offered.push(version);
            }
        }
        Ok(offered)
    }

    async fn step(&mut self) -> Result<(), VolumeError> {
        let live: Vec<_> = self.places(|branch| !branch.deleted);
        let deleted: Vec<_> = self.places(|branch| branch.deleted);
        match self.random.below(14) {
            0..4 => {
                let Some(place) = self.any(&live) else { return Ok(()) };
                let (id, parent) = (self.branches[place].id, self.branches[place].head);
                self.what = format!("suspend {place}");
                let version = self.capture(Some(parent), Some(id)).await?;
                self.branches[place].waiting = Some(version);
                if self.random.below(4) == 0 {
                    return Ok(());
                }
                self.move_head(place, version, false).await
            }
            4 => {
                let Some(place) = self.any(&live) else { return Ok(()) };
                self.what = format!("end the save of {place}");
                let head = self.branches[place].head;
                let Some(version) = self.branches[place].waiting else { return Ok(()) };
                // Only while the head is the one that it was made from.
                if self.made[&version].1 == Some(head) {
                    return self.move_head(place, version, false).await;
                }
                self.branches[place].waiting = None;
                Ok(())
            }
            5 | 6 => {
                self.what = "fork".to_owned();
                let offered = self.offered().await?;
                let Some(version) = self.any(&offered) else { return Ok(()) };
                let branch = self.made.get(&version).map(|made| made.0);
                self.create(version, branch.map(|branch| Origin { branch, version })).await
            }
            7 => {
                let Some(place) = self.any(&live) else { return Ok(()) };
                self.what = format!("delete {place}");
                self.move_head(place, self.branches[place].head, true).await
            }
            8 => {
                let Some(place) = self.any(&deleted) else { return Ok(()) };
                self.what = format!("purge {place}");
                let branch = self.branches.remove(place);
                self.purge_in_doubt = Some(branch.id);
                self.volumes.delete_head(branch.id).await?;
                self.purge_in_doubt = None;
                Ok(())
            }
            9 => {
                self.what = "pin".to_owned();
                let offered = self.offered().await?;
                let Some(version) = self.any(&offered) else { return Ok(()) };
                self.pin_in_doubt = Some(version);
                match self.volumes.pin(version).await {
                    Err(VolumeError::NoVersion { .. } | VolumeError::Condemned { .. }) => {}
                    pinned => {
                        pinned?;
                        self.pins.insert(version);
                    }
                }
                self.pin_in_doubt = None;
                Ok(())
            }
            10 => {
                self.what = "unpin".to_owned();
                let pins: Vec<_> = self.pins.iter().copied().collect();
                let Some(version) = self.any(&pins) else { return Ok(()) };
                self.pin_in_doubt = Some(version);
                self.volumes.unpin(version).await?;
                self.pins.remove(&version);
                self.pin_in_doubt = None;
                Ok(())
            }
            11 => {
                self.what = "give versions up".to_owned();
                for version in self.made.keys() {
                    if self.random.below(2) == 0 {
                        self.given_up.insert(*version);
                    }
                }
                Ok(())
            }
            _ => {
                self.what = "collect garbage".to_owned();
                let hours = self.random.below(30) as u32;
                self.wait(hours);
                // What is younger is deleted by whoever can rely on every list.
                let ages = if self.lists_may_be_stale { [24, 24] } else { [0, 24] };
                let min_age = HOUR * ages[self.random.below(2)];
                self.collect(min_age).await
            }
        }
    }

    /// Hours pass. No list is stale for as long as one.
    fn wait(&mut self, hours: u32) {
        self.clock.advance(HOUR * hours);
        if hours > 0 {
            self.faults.settle();
        }
    }

    fn places(&self, which: impl Fn(&Branch) -> bool) -> Vec<usize> {
        let certain = |branch: &Branch| branch.doubt.is_none() && which(branch);
        (0..self.branches.len()).filter(|place| certain(&self.branches[*place])).collect()
    }

    async fn collect(&mut self, min_age: Duration) -> Result<(), VolumeError> {
        let given_up = self.given_up.clone();
        let request = Collect { mode: Mode::Run, min_age, given_up, awaited: HashSet::new() };
        let collected = self.volumes.collect(&request, &|_| {}).await?;
        self.went[0] += collected.deleted.versions;
        self.went[1] += collected.rewritten.packs;
        Ok(())
    }

    /// Takes from the store what a crash left in doubt, if it is one of the two that it may be.
    async fn settle(&mut self) {
        let mut settled = Vec::new();
        for mut branch in std::mem::take(&mut self.branches) {
            match self.volumes.head(branch.id).await {
                Ok((head, _)) => {
                    let may = head.version == branch.head || Some(head.version) == branch.doubt;
                    assert!(may, "{}: a head is at {}", self.what, head.version);
                    (branch.head, branch.deleted) = (head.version, head.deleted.is_some());
                    branch.doubt = None;
                    settled.push(branch);
                }
                Err(VolumeError::NoHead { .. }) => {
                    assert!(branch.doubt == Some(branch.head), "{}: a head is gone", self.what);
                }
                Err(error) => panic!("{}: {error}", self.what),
            }
        }
        self.branches = settled;
        for head in self.volumes.heads().await.unwrap() {
            if !self.branches.iter().any(|branch| branch.id == head.branch) {
                // Purged and not acknowledged: its head may be there still.
                assert_eq!(
                    self.purge_in_doubt,
                    Some(head.branch),
                    "{}: a head appeared",
                    self.what
                );
                self.volumes.delete_head(head.branch).await.unwrap();
            }
        }
        self.purge_in_doubt = None;
        let pins: BTreeSet<_> = self.volumes.pins().await.unwrap().into_iter().collect();
        let doubt = self.pin_in_doubt.take();
        let changed: Vec<_> = pins.symmetric_difference(&self.pins).collect();
        let legal = changed.iter().all(|version| doubt == Some(**version));
        assert!(legal, "{}: pins changed: {changed:?}", self.what);
        self.pins = pins;
    }

    /// The versions that must be there.
    async fn needed(&self) -> BTreeSet<VersionId> {
        let pins = self.volumes.pins().await.unwrap();
        let named = |branch: &Branch| [Some(branch.head), branch.origin.map(|o| o.version)];
        let named = self.branches.iter().flat_map(named).flatten();
        let mut needed: BTreeSet<_> = named.chain(pins).collect();
        let heads: BTreeMap<_, _> = self.branches.iter().map(|b| (b.id, b.head)).collect();
        for (version, (branch, parent)) in &self.made {
            let Some(head) = heads.get(branch) else { continue };
            if *parent == Some(*head) || !self.given_up.contains(version) {
                needed.insert(*version);
            }
        }
        needed
    }

    /// Every version that can be seen is whole and what it was made from; what is needed is there.
    async fn verify(&self) -> BTreeSet<VersionId> {
        let visible: BTreeSet<_> = self.volumes.version_ids().await.unwrap().into_iter().collect();
        // Every byte that any version needs against its hash; then the hashes against the model.
        let scrubbed = self.volumes.scrub(&|_| {}).await.unwrap();
        assert_eq!(
            (scrubbed.versions, scrubbed.damages),
            (visible.len() as u64, vec![]),
            "{}",
            self.what
        );
        for version in &visible {
            self.verify_version(*version).await;
        }
        let needed = self.needed().await;
        let lost: Vec<_> = needed.difference(&visible).collect();
        assert!(lost.is_empty(), "{}: lost {lost:?}", self.what);
        visible
    }

    async fn verify_version(&self, version: VersionId) {
        let what = &self.what;
        let index = self.volumes.index(version).await.unwrap();
        let content = &self.contents[&version];
        let names: Vec<_> = index.root.tree.files().iter().map(|f| f.path.to_string()).collect();
        assert_eq!(names, content.keys().cloned().collect::<Vec<_>>(), "{what}: {version}");
        for (place, bytes) in content.values().enumerate() {
            assert_eq!(index.root.tree.files()[place].bytes, bytes.len() as u64);
            let found: BTreeMap<_, _> =
                index.blocks(place).map(|one| (one.index, one.reference.frame.hash)).collect();
            let wanted = bytes.chunks(BLOCK_BYTES).enumerate();
            let wanted = wanted.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            let wanted: BTreeMap<_, _> =
                wanted.map(|(number, block)| (number as u64, blake3::hash(block))).collect();
            assert_eq!(found, wanted, "{what}: {version}");
            for block in index.root.boot.iter().filter(|block| block.file == place) {
                assert_eq!(found[&block.index], block.reference.frame.hash, "{what}: {version}");
            }
        }
    }

    /// After some last runs exactly the needed is left.
    async fn end(&mut self, start: VersionId) {
        self.what = "the end".to_owned();
        for _ in 0..5 {
            self.wait(1);
            self.collect(Duration::ZERO).await.unwrap();
        }
        let visible = self.verify().await;
        let mut needed = self.needed().await;
        needed.insert(start);
        // A version whose maker was not told: kept like any other of a living branch.
        let untold = |version: &&VersionId| !self.made.contains_key(version);
        let more: Vec<_> = visible.difference(&needed).filter(|v| !untold(v)).collect();
        assert!(more.is_empty(), "dead, and there: {more:?}");
        let mut objects = BTreeSet::new();
        for version in &visible {
            objects
                .extend(check::frames_of(&self.volumes.index(*version).await.unwrap()).into_keys());
        }
        let mut found = BTreeSet::new();
        for kind in [PackKind::Blocks, PackKind::Pages] {
            let listed = self.volumes.packs(kind).await.unwrap();
            found.extend(listed.into_iter().map(|(id, _)| (kind, id)));
        }
        assert_eq!(found, objects, "packs and pages: just what versions need");
    }
}

/// A few files of a few blocks: some blocks change, files come and go.
fn changed(before: &BTreeMap<String, Vec<u8>>, random: &mut Random) -> BTreeMap<String, Vec<u8>> {
    let mut after = before.clone();
    for _ in 0..1 + random.below(3) {
        let name = format!("f{}", random.below(5));
        match random.below(6) {
            0 => drop(after.remove(&name)),
            1 => drop(after.insert(name, vec![0; random.below(3 * BLOCK_BYTES)])),
            _ => {
                let content = after.entry(name).or_default();
                let blocks = [1, 2, 6][random.below(3)];
                let at = random.below(6) * BLOCK_BYTES;
                let (end, fresh) = (at + blocks * BLOCK_BYTES, noise(random, blocks * BLOCK_BYTES));
                content.resize(content.len().max(end), 0);
                content[at..end].copy_from_slice(&fresh);
            }
        }
    }
    after
}
