//! A directory becomes a version: only what its parent does not have is stored.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use super::boot::carry;
use super::error::VolumeError;
use super::fetch::Wanted;
use super::index::Index;
use super::page::{PAGE_BLOCKS, Page, covered_by, pages_of};
use super::reference::Reference;
use super::stretch::{Found, Stretch};
use super::upload::{Upload, Uploaded};
use super::uploads::Running;
use super::version::{Cause, MongodVersion, Root, Version};
use super::{Volumes, keys};
use crate::base::blocking::blocking;
use crate::base::clock::Timestamp;
use crate::base::failpoint::failpoint;
use crate::base::ids::{BranchId, VersionId};
use crate::mount::{Tree, walk};
use crate::store::StoreError;

/// Stretches of 16 MiB that are read, hashed and compressed at a time. What is new of them is held
/// in memory: at most 64 MiB.
const PARALLEL: usize = 4;

/// What a capture is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The version's id, chosen by the caller so that it can be written down first. Every try takes
    /// a new one.
    pub id: VersionId,
    /// The version that the directory was made from: what did not change since is shared with it.
    pub parent: Option<VersionId>,
    /// The branch whose state it is.
    pub branch: Option<BranchId>,
    /// Why.
    pub cause: Cause,
    /// Whose files these are.
    pub mongod: MongodVersion,
    /// What a person calls it.
    pub label: Option<String>,
}

impl Capture {
    /// The version that it becomes.
    pub(super) fn version(
        self,
        created: Timestamp,
        total_bytes: u64,
        uploaded: Uploaded,
    ) -> Version {
        let Self { id, parent, branch, cause, mongod, label } = self;
        let Uploaded { new_bytes, stored_bytes } = uploaded;
        Version {
            id,
            parent,
            branch,
            cause,
            label,
            created,
            mongod,
            total_bytes,
            new_bytes,
            stored_bytes,
        }
    }
}

impl Volumes {
    /// Stores a directory that nobody writes to as a version: packs, pages, then the version itself.
    /// The head is the caller's next step.
    ///
    /// # Errors
    /// Whatever fails, the directory is as it was, the parent too, and the version does not exist,
    /// or (if the very last write failed in its answer only) exists whole and without a head. A new
    /// try takes a new id. Safe to cancel likewise. [`VolumeError::TooLate`] where it took longer than
    /// [`crate::base::limits::UPLOAD_DEADLINE`].
    pub async fn capture(
        &self,
        directory: &Path,
        request: Capture,
    ) -> Result<Version, VolumeError> {
        let root: Arc<Path> = directory.into();
        let walked = root.clone();
        let tree = blocking(move || walk(&walked)).await?;
        let (running, shared) = self.begin_upload(request.id, request.parent).await?;
        let parent = match shared {
            Some(parent) => Some(self.index(parent).await?),
            None => None,
        };
        let mut upload = Upload::new(self.clone(), format!("version {}", request.id));
        let mut boot = Inherited::new(parent.as_ref(), &tree);
        let pages = store_blocks(&root, &tree, parent.as_ref(), &mut upload, &mut boot).await?;
        let uploaded = upload.finish().await?;
        failpoint("suspend.packs");
        let version = request.version(self.clock.now(), tree.bytes(), uploaded);
        let root = Root { version, tree, pages, boot: boot.blocks };
        self.finish(&running, &root).await?;
        Ok(root.version)
    }

    /// Makes a version of the same content as `request.parent`, which must be given: nothing but the
    /// version itself is written.
    ///
    /// # Errors
    /// As [`Self::capture`]; [`VolumeError::NoVersion`] where the parent is gone,
    /// [`VolumeError::Condemned`] where it was given up.
    pub async fn repeat(&self, request: Capture) -> Result<Version, VolumeError> {
        let parent = request.parent.ok_or(VolumeError::NoVersion { version: request.id })?;
        let (running, shared) = self.begin_upload(request.id, Some(parent)).await?;
        let parent = shared.ok_or(VolumeError::Condemned { version: parent })?;
        let Root { version, tree, pages, boot } = self.root(parent).await?;
        let nothing = Uploaded::default();
        let version = request.version(self.clock.now(), version.total_bytes, nothing);
        let root = Root { version, tree, pages, boot };
        self.finish(&running, &root).await?;
        Ok(root.version)
    }

    /// Writes the version, in time.
    pub(super) async fn finish(&self, running: &Running, root: &Root) -> Result<(), VolumeError> {
        running.ensure_in_time(self.clock.now())?;
        self.write_root(root).await?;
        if let Err(late) = running.ensure_in_time(self.clock.now()) {
            // Some of what it needs may be gone, and no head can be moved to it yet.
            let key = keys::version(root.version.id);
            let deleted = self.store.delete(&key).await;
            deleted.map_err(VolumeError::store(|| format!("take {key} back")))?;
            return Err(late);
        }
        Ok(())
    }

    async fn write_root(&self, root: &Root) -> Result<(), VolumeError> {
        let version = root.version.id;
        let key = keys::version(version);
        let object = root.seal().map_err(VolumeError::unwritable(&key))?;
        match self.write_once(&key, object).await {
            Err(StoreError::Conflict { .. }) => Err(VolumeError::VersionExists { version }),
            written => written.map_err(VolumeError::store(|| format!("write {key}"))),
        }
    }
}

/// Reads every file in stretches of a page each, some ahead, and stores in the order of the files,
/// so that what lies together in the directory lies together in the packs.
async fn store_blocks(
    root: &Path,
    tree: &Tree,
    parent: Option<&Index>,
    upload: &mut Upload,
    boot: &mut Inherited,
) -> Result<Vec<Vec<Option<Reference>>>, VolumeError> {
    let moved = Arc::new(parent.map(|parent| moved_blocks(tree, parent)).unwrap_or_default());
    let mut pages: Vec<Vec<_>> = vec![Vec::new(); tree.files().len()];
    let mut waiting =
        tree.files().iter().enumerate().flat_map(|(place, file)| {
            (0..pages_of(file.bytes)).map(move |page| (place, file, page))
        });
    let mut reading = VecDeque::new();
    loop {
        while reading.len() < PARALLEL
            && let Some((place, file, page)) = waiting.next()
        {
            let before = parent.and_then(|parent| {
                let (place, _) = parent.file(file.path.as_str())?;
                parent.page(place, page as usize)
            });
            let stretch = Stretch {
                path: root.join(file.path.as_str()),
                name: file.path.as_str().to_owned(),
                file_bytes: file.bytes,
                page,
                before: before.map(|(content, _)| content.clone()),
                moved: moved.clone(),
            };
            reading.push_back((place, page, before, blocking(move || stretch.read())));
        }
        let Some((place, page, before, read)) = reading.pop_front() else { return Ok(pages) };
        let mut slots = Vec::with_capacity(PAGE_BLOCKS);
        for block in read.await? {
            slots.push(match block {
                Found::Zero => None,
                Found::Known(reference) => Some(reference),
                Found::New(block) => Some(upload.block(&block).await?),
            });
        }
        boot.page(place, page, &slots);
        let page = Page::new(covered_by(tree.files()[place].bytes, page), slots);
        pages[place].push(match before {
            _ if page.is_zero() => None,
            Some((same, reference)) if **same == page => Some(*reference),
            _ => Some(upload.page(&page)?),
        });
    }
}

/// The parent's boot set, as far as its blocks are there still.
struct Inherited {
    before: Vec<Wanted>,
    /// What is known to be there, as the pages went by.
    blocks: Vec<Wanted>,
}

impl Inherited {
    fn new(parent: Option<&Index>, tree: &Tree) -> Self {
        let files = tree.files();
        let here = |one: &Wanted| {
            let path = &parent?.root.tree.files()[one.file].path;
            let file = files.binary_search_by(|file| file.path.cmp(path)).ok()?;
            Some(Wanted { file, ..*one })
        };
        let before = parent.map(|parent| parent.root.boot.as_slice()).unwrap_or_default();
        let mut before: Vec<_> = before.iter().filter_map(here).collect();
        before.sort_unstable_by_key(|one| (one.file, one.index));
        Self { before, blocks: Vec::new() }
    }

    /// A page of the new version; they come in order.
    fn page(&mut self, file: usize, page: u64, slots: &[Option<Reference>]) {
        let first = page * PAGE_BLOCKS as u64;
        let start = self.before.partition_point(|one| (one.file, one.index) < (file, first));
        let before = self.before[start..].iter();
        let its =
            before.take_while(|one| one.file == file && one.index < first + slots.len() as u64);
        self.blocks.extend(its.filter_map(|one| {
            let now = slots[(one.index - first) as usize]?;
            Some(Wanted { reference: carry(Some(&one.reference), now), ..*one })
        }));
    }
}

/// The parent's blocks in files that are gone: what was renamed, or rotated as a journal is, is
/// recognised by its content.
fn moved_blocks(tree: &Tree, parent: &Index) -> HashMap<blake3::Hash, Reference> {
    let here: HashSet<_> = tree.files().iter().map(|file| &file.path).collect();
    let files = parent.root.tree.files().iter().enumerate();
    let gone = files.filter(|(_, file)| !here.contains(&file.path));
    gone.flat_map(|(place, _)| parent.blocks(place))
        .map(|block| (block.reference.frame.hash, block.reference))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{request, volumes};

    #[tokio::test]
    async fn a_version_can_be_repeated_under_another_name_at_no_cost() {
        let (volumes, store) = volumes();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), vec![7; 200_000]).unwrap();
        let first = volumes.capture(directory.path(), request(None)).await.unwrap();
        let before = store.count(["packs/", "pages/"]).await;
        let label = Some("again".to_owned());
        let again =
            Capture { cause: Cause::Snapshot, label: label.clone(), ..request(Some(first.id)) };
        let second = volumes.repeat(again.clone()).await.unwrap();
        assert_eq!((second.parent, &second.label), (Some(first.id), &label));
        assert_eq!((second.new_bytes, second.total_bytes), (0, first.total_bytes));
        assert_eq!(store.count(["packs/", "pages/"]).await, before);
        assert_eq!(volumes.version(second.id).await.unwrap(), second);
        assert_eq!(volumes.check(second.id).await.unwrap(), volumes.check(first.id).await.unwrap());

        let taken = volumes.repeat(again).await.unwrap_err();
        assert!(matches!(taken, VolumeError::VersionExists { .. }), "{taken}");
        let absent = volumes.repeat(request(Some(VersionId::from_bytes([9; 16])))).await;
        assert!(matches!(absent, Err(VolumeError::NoVersion { .. })));
    }
}
