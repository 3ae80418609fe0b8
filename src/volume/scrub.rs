//! Is everything in the store that versions need, and is it what was written? Each object is read
//! once; where something is wrong, a second look tells whom it hurts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::VolumeError;
use super::fetch::{Wanted, fetch, plan};
use super::head::Head;
use super::mark::Needed;
use super::pack::PackKind;
use super::project::Project;
use super::version::{Root, Version};
use super::{Volumes, keys};
use crate::base::ids::{PackId, VersionId};
use crate::base::parallel::parallel;
use crate::store::{Key, StoreError};

/// Objects that are read at a time; each is in memory as a whole, 8 MiB as a rule, 64 at most.
const PARALLEL: usize = 4;

/// Objects between two reports of progress.
const STEP: usize = 32;

/// Files that are named for one object and version; there may be more.
const FILES_MAX: usize = 10;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Versions whose root was read.
    pub versions: u64,
    /// Packs and pages objects that were read.
    pub objects: u64,
    /// Blocks and pages that were verified.
    pub frames: u64,
    /// What is wrong; by object.
    pub damages: Vec<Damage>,
}

/// An object that is missing or not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which.
    pub object: Key,
    /// What is wrong with it.
    pub problem: String,
    /// Who needs just what is wrong; nobody where that is the object's own table.
    pub hurts: Vec<Hurt>,
}

/// A version that cannot be restored, or that lacks what its wakes read first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// Which.
    pub version: VersionId,
    /// Whose it is, and who started from it: `PROJECT/BRANCH`, or what else it is.
    pub names: Vec<String>,
    /// The files that need what is wrong, at most ten.
    pub files: Vec<String>,
}

type Place = (PackKind, PackId);

impl Volumes {
    /// Verifies everything that versions need. `progress` is told where it has got to, in words.
    ///
    /// # Errors
    /// The store fails otherwise than by what it holds: then nothing is known.
    pub async fn scrub(
        &self,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Scrubbed, VolumeError> {
        let mut scrub = Scrub { scrubbed: Scrubbed::default(), faults: BTreeMap::new() };
        let names = scrub.names(self).await?;
        let (versions, needed) = scrub.versions(self, &names, progress).await?;
        scrub.missing(self, &names, &versions).await?;
        scrub.objects(self, &needed, progress).await?;
        if !scrub.faults.is_empty() {
            scrub.whom(self, &names, &versions, progress).await?;
        }
        scrub.scrubbed.damages.sort_unstable_by(|a, b| a.object.as_str().cmp(b.object.as_str()));
        Ok(scrub.scrubbed)
    }
}

struct Scrub {
    scrubbed: Scrubbed,
    /// What is wrong with packs and pages objects.
    faults: BTreeMap<Place, String>,
}

impl Scrub {
    async fn names(&mut self, volumes: &Volumes) -> Result<Names, VolumeError> {
        let heads = self.sound(volumes.documents(keys::HEADS, Head::open_at).await?);
        let read = |_: &Key, object: &[u8]| Project::open(object);
        let projects = self.sound(volumes.documents(keys::PROJECTS, read).await?);
        Ok(Names { heads, projects })
    }

    /// The documents that could be read; the others are damages.
    fn sound<T>(&mut self, documents: Vec<Result<T, VolumeError>>) -> Vec<T> {
        let mut sound = Vec::new();
        for document in documents {
            match document {
                Ok(document) => sound.push(document),
                Err(error) => self.damaged(error, Vec::new()),
            }
        }
        sound
    }

    fn damaged(&mut self, error: VolumeError, hurts: Vec<Hurt>) {
        let problem = error.chain();
        if let VolumeError::Damaged { object, .. } | VolumeError::Newer { object, .. } = error {
            self.scrubbed.damages.push(Damage { object, problem, hurts });
        }
    }

    /// Reads every root and page.
    async fn versions(
        &mut self,
        volumes: &Volumes,
        names: &Names,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(Vec<VersionId>, Needed), VolumeError> {
        let listed = volumes.listed(keys::VERSIONS).await?;
        let ids: Vec<VersionId> =
            listed.iter().filter_map(|entry| keys::id(keys::VERSIONS, &entry.key)).collect();
        let (mut readable, mut needed) = (Vec::new(), Needed::default());
        for (number, id) in ids.iter().enumerate() {
            progress(format!("read version {} of {}", number + 1, ids.len()));
            let root = match volumes.root(*id).await {
                Ok(root) => Arc::new(root),
                // Deleted since it was listed; a head that needs it is looked at later.
                Err(VolumeError::NoVersion { .. }) => continue,
                Err(error) if error.is_damage() || matches!(error, VolumeError::Newer { .. }) => {
                    self.damaged(error, vec![names.hurt(*id, None)]);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (bad, error) in volumes.mark_what_reads(root, &mut needed).await? {
                let place = (PackKind::Pages, bad.reference.pack);
                self.faults.entry(place).or_insert_with(|| error.chain());
            }
            readable.push(*id);
        }
        self.scrubbed.versions = readable.len() as u64;
        Ok((readable, needed))
    }

    /// Heads and projects whose versions are not there.
    async fn missing(
        &mut self,
        volumes: &Volumes,
        names: &Names,
        versions: &[VersionId],
    ) -> Result<(), VolumeError> {
        for version in names.wanted() {
            let reported = |damage: &Damage| damage.object == keys::version(version);
            if versions.contains(&version) || self.scrubbed.damages.iter().any(reported) {
                continue;
            }
            // Heads move on and branches go while this runs: what counts is what is said now.
            let still = Names {
                heads: volumes.heads().await.unwrap_or_default(),
                projects: volumes.projects().await.unwrap_or_default(),
            };
            let gone = matches!(volumes.root(version).await, Err(VolumeError::NoVersion { .. }));
            if gone && still.wanted().any(|wanted| wanted == version) {
                let (object, problem) = (keys::version(version), "it does not exist".to_owned());
                let hurts = vec![still.hurt(version, None)];
                self.scrubbed.damages.push(Damage { object, problem, hurts });
            }
        }
        Ok(())
    }

    /// Reads every object that is needed, once.
    async fn objects(
        &mut self,
        volumes: &Volumes,
        needed: &Needed,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), VolumeError> {
        let mut places = needed.objects();
        places.sort_unstable();
        for (number, some) in places.chunks(STEP).enumerate() {
            progress(format!("read object {} of {}", number * STEP + 1, places.len()));
            let reads = some.iter().map(|&(kind, pack)| {
                let frames = needed.frames(kind, pack).cloned().unwrap_or_default();
                let volumes = volumes.clone();
                async move {
                    match volumes.whole_pack(kind, pack, frames).await {
                        Ok(frames) => Ok(((kind, pack), Ok(frames.len() as u64))),
                        Err(error) if error.is_damage() => Ok(((kind, pack), Err(error.chain()))),
                        Err(error) => Err(error),
                    }
                }
            });
            for (place, read) in parallel(PARALLEL, reads.collect::<Vec<_>>()).await? {
                match read {
                    Ok(frames) => self.scrubbed.frames += frames,
                    Err(problem) => drop(self.faults.entry(place).or_insert(problem)),
                }
            }
        }
        self.scrubbed.objects = places.len() as u64;
        Ok(())
    }

    /// Finds which versions need what is wrong in the objects that are at fault.
    async fn whom(
        &mut self,
        volumes: &Volumes,
        names: &Names,
        versions: &[VersionId],
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), VolumeError> {
        let mut look = SecondLook { volumes, faults: &self.faults, bad: BTreeMap::new() };
        let mut hurts = BTreeMap::<Place, Vec<Hurt>>::new();
        for (number, id) in versions.iter().enumerate() {
            progress(format!(
                "look for what is hurt in version {} of {}",
                number + 1,
                versions.len()
            ));
            let root = match volumes.root(*id).await {
                Ok(root) => Arc::new(root),
                Err(VolumeError::NoVersion { .. }) => continue,
                Err(error) => return Err(error),
            };
            for (place, files) in look.version(&root).await? {
                let hurt = Hurt { files, ..names.hurt(*id, Some(&root.version)) };
                hurts.entry(place).or_default().push(hurt);
            }
        }
        for ((kind, pack), problem) in std::mem::take(&mut self.faults) {
            let object = keys::pack(kind, pack);
            let hurts = hurts.remove(&(kind, pack)).unwrap_or_default();
            let size = volumes.store.size(&object).await;
            // Garbage collection took it meanwhile, as nothing needed it any more.
            if !hurts.is_empty() || !matches!(size, Err(StoreError::NotFound { .. })) {
                self.scrubbed.damages.push(Damage { object, problem, hurts });
            }
        }
        Ok(())
    }
}

/// Frame by frame, in the objects that are at fault.
struct SecondLook<'s> {
    volumes: &'s Volumes,
    faults: &'s BTreeMap<Place, String>,
    /// What was found of a frame: kind, object, offset.
    bad: BTreeMap<(PackKind, PackId, u32), bool>,
}

impl SecondLook<'_> {
    /// The objects that hurt a version, and the files that need what is wrong.
    async fn version(
        &mut self,
        root: &Arc<Root>,
    ) -> Result<BTreeMap<Place, Vec<String>>, VolumeError> {
        let mut hurt = BTreeMap::<Place, Vec<String>>::new();
        let mut add = |place: Place, wanted: &Wanted| {
            let path = root.tree.files()[wanted.file].path.to_string();
            let files = hurt.entry(place).or_default();
            if !files.contains(&path) && files.len() < FILES_MAX {
                files.push(path);
            }
        };
        let mut sound = Vec::new();
        for page in root.wanted_pages() {
            let place = (PackKind::Pages, page.reference.pack);
            if self.faults.contains_key(&place) && self.is_bad_page(root, page).await? {
                add(place, &page);
            } else {
                sound.push(page);
            }
        }
        if !self.faults.keys().any(|(kind, _)| *kind == PackKind::Blocks) {
            return Ok(hurt);
        }
        let mut pages = self.volumes.read_pages(root, sound).await?;
        pages.sort_unstable_by_key(|(page, _)| (page.file, page.index));
        for (page, content) in pages {
            for reference in content.slots().iter().flatten() {
                let place = (PackKind::Blocks, reference.pack);
                let block = Wanted { reference: *reference, ..page };
                if self.faults.contains_key(&place) && self.is_bad_block(block).await? {
                    add(place, &block);
                }
            }
        }
        for block in &root.boot {
            let place = (PackKind::Blocks, block.reference.pack);
            if self.faults.contains_key(&place) && self.is_bad_block(*block).await? {
                add(place, block);
            }
        }
        Ok(hurt)
    }

    async fn is_bad_page(&mut self, root: &Arc<Root>, page: Wanted) -> Result<bool, VolumeError> {
        let frame = (PackKind::Pages, page.reference.pack, page.reference.frame.offset);
        if let Some(known) = self.bad.get(&frame) {
            return Ok(*known);
        }
        let bad = is_bad(self.volumes.read_pages(root, vec![page]).await)?;
        self.bad.insert(frame, bad);
        Ok(bad)
    }

    async fn is_bad_block(&mut self, block: Wanted) -> Result<bool, VolumeError> {
        let frame = (PackKind::Blocks, block.reference.pack, block.reference.frame.offset);
        if let Some(known) = self.bad.get(&frame) {
            return Ok(*known);
        }
        let batches = plan(vec![block]);
        let store = &*self.volumes.store;
        let bad = is_bad(fetch(store, PackKind::Blocks, &batches[0], |_| String::new()).await)?;
        self.bad.insert(frame, bad);
        Ok(bad)
    }
}

fn is_bad<T>(read: Result<T, VolumeError>) -> Result<bool, VolumeError> {
    match read {
        Ok(_) => Ok(false),
        Err(error) if error.is_damage() => Ok(true),
        Err(error) => Err(error),
    }
}

/// What versions are called by those who know no ids.
struct Names {
    heads: Vec<Head>,
    projects: Vec<Project>,
}

impl Names {
    fn hurt(&self, id: VersionId, version: Option<&Version>) -> Hurt {
        let branch = version.and_then(|version| version.branch);
        let its = |head: &&Head| Some(head.branch) == branch || head.version == id;
        let branches = self.heads.iter().filter(its).map(|head| {
            let deleted = if head.deleted.is_some() { " (deleted)" } else { "" };
            format!("{}/{}{deleted}", head.project_name, head.branch_name)
        });
        let projects = self.projects.iter().filter(|project| project.base == Some(id));
        let projects = projects.map(|project| format!("the base of project {}", project.name));
        Hurt { version: id, names: branches.chain(projects).collect(), files: Vec::new() }
    }

    /// Versions without which a branch cannot wake, or a project make one.
    fn wanted(&self) -> impl Iterator<Item = VersionId> {
        let bases = self.projects.iter().filter_map(|project| project.base);
        self.heads.iter().map(|head| head.version).chain(bases)
    }
}
