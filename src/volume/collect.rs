//! Garbage collection: two looks, and then what is dead on both is deleted.
//!
//! `ARCHITECTURE.md`, "Garbage", has the reasons.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::condemned::Condemned;
use super::error::VolumeError;
use super::head::Head;
use super::mark::Needed;
use super::pack::PackKind;
use super::version::Version;
use super::{Project, Volumes, keys};
use crate::base::clock::Timestamp;
use crate::base::failpoint::failpoint;
use crate::base::ids::{BranchId, PackId, VersionId};
use crate::base::parallel::parallel;
use crate::store::{ETag, Key, Listed};

/// Roots that are read ahead, and objects that are deleted at a time.
const PARALLEL: usize = 8;

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Collect {
    /// Whether anything is changed.
    pub mode: Mode,
    /// How long something must have been dead before it is deleted.
    pub min_age: Duration,
    /// Versions that retention gives up. One that a head, a project or a pin needs stays all the
    /// same.
    pub given_up: HashSet<VersionId>,
    /// Versions that stay all the same: heads are on their way to the store that name them.
    pub awaited: HashSet<VersionId>,
}

/// Whether a run changes the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It tells what a run would do.
    DryRun,
    /// It condemns, deletes and rewrites.
    Run,
}

/// Objects, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Versions.
    pub versions: u64,
    /// Pages objects.
    pub pages: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of them all.
    pub bytes: u64,
}

/// What a run did; a dry one, what a run would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What is needed.
    pub kept: Tally,
    /// What was deleted.
    pub deleted: Tally,
    /// The versions among it.
    pub versions: Vec<VersionId>,
    /// What is dead, and not for long enough.
    pub condemned: Tally,
    /// When the first of that may be deleted.
    pub next: Option<Timestamp>,
    /// The packs and pages objects of which little was needed, and that nothing needs any more.
    pub rewritten: Tally,
    /// Bytes that were written instead of them.
    pub rewritten_as: u64,
}

/// What the run found before it changed anything.
pub(super) struct Found {
    /// All objects of which versions, if they are not dead, need something, and those frames.
    pub(super) needed: Needed,
    /// The versions that are not dead.
    pub(super) living: Vec<VersionId>,
    /// All packs and pages objects, by key.
    pub(super) objects: Vec<(PackKind, PackId, Listed)>,
    dead: BTreeMap<Key, u64>,
    kept: Tally,
}

impl Volumes {
    /// One run. `progress` is told where it has got to, in words.
    ///
    /// # Errors
    /// Something could not be read that may need other objects: then nothing was deleted.
    /// [`VolumeError::OtherCollector`] where another server did the same. A deletion that fails
    /// leaves the rest to the next run.
    pub async fn collect(
        &self,
        request: &Collect,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Collected, VolumeError> {
        let _one_at_a_time = self.uploads.collecting.lock().await;
        let ran = self.clock.now();
        let before = self.condemned().await?;
        let found = self.find(request, progress).await?;
        let (known, etag) = match before {
            Some((list, etag)) => (list.since, Some(etag)),
            None => (BTreeMap::new(), None),
        };
        let (since, horizon) = match request.mode {
            Mode::DryRun => (self.new_list(ran, &found, &known).since, self.horizon(request)),
            Mode::Run => self.condemn_now(request, ran, &found, &known, etag).await?,
        };
        let old = |key: &Key| known.get(key).is_some_and(|since| *since <= horizon);
        let (doomed, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.dead.iter().map(|(key, bytes)| (key, *bytes)).partition(|(key, _)| old(key));
        let mut collected = Collected {
            kept: found.kept,
            deleted: tally(&doomed),
            versions: doomed.keys().filter_map(|key| keys::id(keys::VERSIONS, key)).collect(),
            condemned: tally(&waiting),
            next: waiting.keys().filter_map(|key| since.get(key)).min().map(|since| {
                Timestamp::from_unix_ms(since.unix_ms() + request.min_age.as_millis() as u64)
            }),
            ..Collected::default()
        };
        if request.mode == Mode::Run {
            failpoint("gc.condemned");
            self.delete(doomed.into_keys(), progress).await?;
            failpoint("gc.deleted");
        }
        let oldest = Timestamp::from_unix_ms(since_epoch(ran, request.min_age));
        self.rewrite(request.mode, &found, oldest, &mut collected, progress).await?;
        Ok(collected)
    }

    /// Writes the list, and gives it with the moment up to which what was condemned may be deleted.
    async fn condemn_now(
        &self,
        request: &Collect,
        ran: Timestamp,
        found: &Found,
        known: &BTreeMap<Key, Timestamp>,
        etag: Option<ETag>,
    ) -> Result<(BTreeMap<Key, Timestamp>, Timestamp), VolumeError> {
        let _gate = self.uploads.hold().await;
        let list = self.new_list(ran, found, known);
        self.condemn(&list, etag).await?;
        Ok((list.since, self.horizon(request)))
    }

    fn new_list(
        &self,
        ran: Timestamp,
        found: &Found,
        known: &BTreeMap<Key, Timestamp>,
    ) -> Condemned {
        let now = self.clock.now();
        let since = |key: &Key| (key.clone(), known.get(key).copied().unwrap_or(now));
        Condemned { ran, since: found.dead.keys().map(since).collect() }
    }

    fn horizon(&self, request: &Collect) -> Timestamp {
        let aged = since_epoch(self.clock.now(), request.min_age);
        let oldest = self.uploads.oldest().map_or(u64::MAX, |begun| begun.unix_ms() - 1);
        Timestamp::from_unix_ms(aged.min(oldest))
    }

    async fn find(
        &self,
        request: &Collect,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Found, VolumeError> {
        progress("listing".to_owned());
        // Before the versions, so that what is written meanwhile is not missed.
        let mut objects = Vec::new();
        for kind in [PackKind::Blocks, PackKind::Pages] {
            let listed = self.packs(kind).await?;
            objects.extend(listed.into_iter().map(|(id, entry)| (kind, id, entry)));
        }
        let pins = self.pins().await?;
        let rule = Rule::new(request, self.heads().await?, self.projects().await?, pins);
        let listed: Vec<(VersionId, Listed)> = self.version_objects().await?;
        let (mut needed, mut living, mut dead) = (Needed::default(), Vec::new(), BTreeMap::new());
        let mut kept = Tally::default();
        for (number, some) in listed.chunks(PARALLEL).enumerate() {
            progress(format!("reading version {} of {}", number * PARALLEL + 1, listed.len()));
            let reads = some.iter().map(|(id, _)| {
                let (volumes, id) = (self.clone(), *id);
                async move {
                    match volumes.root(id).await {
                        // Deleted by another run since it was listed.
                        Err(VolumeError::NoVersion { .. }) => Ok(None),
                        read => read.map(|root| Some((id, root))),
                    }
                }
            });
            let roots = parallel(PARALLEL, reads.collect::<Vec<_>>()).await?;
            let mut roots: HashMap<_, _> = roots.into_iter().flatten().collect();
            for (id, entry) in some {
                let Some(root) = roots.remove(id) else { continue };
                if rule.is_dead(&root.version) {
                    dead.insert(entry.key.clone(), entry.bytes);
                } else {
                    self.mark(Arc::new(root), &mut needed).await?;
                    living.push(*id);
                    add(&mut kept, entry);
                }
            }
        }
        rule.ensure_all_there(&living)?;
        for (kind, id, entry) in &objects {
            match needed.frames(*kind, *id) {
                Some(_) => add(&mut kept, entry),
                None => drop(dead.insert(entry.key.clone(), entry.bytes)),
            }
        }
        Ok(Found { needed, living, objects, dead, kept })
    }

    /// Versions first: whatever breaks off here, no version lacks anything.
    async fn delete(
        &self,
        doomed: impl Iterator<Item = &Key>,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), VolumeError> {
        let mut doomed: Vec<_> = doomed.cloned().collect();
        for prefix in [keys::VERSIONS, keys::packs(PackKind::Pages), keys::packs(PackKind::Blocks)]
        {
            let here = doomed.extract_if(.., |key| key.as_str().starts_with(prefix));
            let deletes: Vec<_> = here
                .map(|key| {
                    let volumes = self.clone();
                    async move {
                        let deleted = volumes.store.delete(&key).await;
                        deleted.map_err(VolumeError::store(|| format!("delete {key}")))
                    }
                })
                .collect();
            progress(format!("deleting {} of {prefix}", deletes.len()));
            parallel(PARALLEL, deletes).await?;
            failpoint("gc.some");
        }
        Ok(())
    }
}

/// Which versions are dead.
struct Rule<'r> {
    request: &'r Collect,
    heads: HashMap<BranchId, VersionId>,
    named: HashSet<VersionId>,
}

impl<'r> Rule<'r> {
    fn new(
        request: &'r Collect,
        heads: Vec<Head>,
        projects: Vec<Project>,
        pins: Vec<VersionId>,
    ) -> Self {
        let origins = heads.iter().filter_map(|head| Some(head.origin?.version));
        let bases = projects.iter().filter_map(|project| project.base);
        let states = heads.iter().map(|head| head.version);
        let named = states.chain(origins).chain(bases).chain(pins);
        let named = named.chain(request.awaited.iter().copied()).collect();
        let heads = heads.iter().map(|head| (head.branch, head.version)).collect();
        Self { request, heads, named }
    }

    /// A head whose version is missing means that something is wrong, if only with the listing.
    fn ensure_all_there(&self, living: &[VersionId]) -> Result<(), VolumeError> {
        let living: HashSet<_> = living.iter().collect();
        let missing = self.heads.values().find(|version| !living.contains(version));
        missing.map_or(Ok(()), |version| Err(VolumeError::NoVersion { version: *version }))
    }

    fn is_dead(&self, version: &Version) -> bool {
        let Some(branch) = version.branch else { return false };
        if self.named.contains(&version.id) {
            return false;
        }
        match self.heads.get(&branch) {
            None => true,
            // Made from the head: a save may be about to move the head here.
            Some(head) if version.parent == Some(*head) => false,
            Some(_) => self.request.given_up.contains(&version.id),
        }
    }
}

fn since_epoch(now: Timestamp, min_age: Duration) -> u64 {
    now.unix_ms().saturating_sub(u64::try_from(min_age.as_millis()).unwrap_or(u64::MAX))
}

fn add(tally: &mut Tally, entry: &Listed) {
    count(tally, &entry.key, entry.bytes);
}

/// Counts one object.
pub(super) fn count(tally: &mut Tally, key: &Key, bytes: u64) {
    let key = key.as_str();
    if key.starts_with(keys::VERSIONS) {
        tally.versions += 1;
    } else if key.starts_with(keys::packs(PackKind::Pages)) {
        tally.pages += 1;
    } else {
        tally.packs += 1;
    }
    tally.bytes += bytes;
}

fn tally(objects: &BTreeMap<&Key, u64>) -> Tally {
    let mut tally = Tally::default();
    objects.iter().for_each(|(key, bytes)| count(&mut tally, key, *bytes));
    tally
}
