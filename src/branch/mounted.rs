//! A branch's volume on this machine, where it is mounted lazily: the mount, the version below it,
//! and whether that is the branch's head yet.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::BranchError;
use super::ahead::{self, Admitted, Cold};
use super::cell::Cell;
use super::local::Workspace;
use super::mounting;
use super::shared::Shared;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::Parked;
use crate::mount::lazy::{self, LazyMount, Reading};
use crate::pool::{ParkedMongod, Place};
use crate::volume::{LazyVolume, Version};

/// A mounted volume. Belongs to one branch, from its wake until its writes are in the store; lives
/// and dies of its mongods come and go meanwhile.
pub(super) struct Mounted {
    pub(super) mount: LazyMount,
    inner: Mutex<Below>,
    /// Ends what is fetched ahead when the mount goes.
    over: CancellationToken,
    _ends_fetching: DropGuard,
    /// The rest of the volume is on its way here.
    filling: AtomicBool,
    /// The directories of the mongod that was started ahead on the mount; they go after it.
    place: Mutex<Option<Place>>,
}

struct Below {
    volume: Arc<LazyVolume>,
    /// That version, where it is whole in the store and the head does not name it yet.
    pending: Option<Version>,
}

impl Mounted {
    /// Mounts a version with nothing written on it, and begins to fetch what its start needs. Before
    /// a mongod that was started ahead, where one is there for it: then that is let in.
    pub(super) async fn fresh(
        shared: &Shared,
        workspace: &Workspace,
        volume: Arc<LazyVolume>,
        parked: Result<ParkedMongod, Cold>,
    ) -> Result<(Arc<Self>, Result<Arc<dyn Parked>, Cold>), BranchError> {
        let fetching = fetch_boot(shared, volume.clone());
        let (mount, begun) = ahead::mount(shared, workspace, volume.clone(), parked).await?;
        let (begun, place) = match begun {
            Ok(Admitted { process, place }) => (Ok(process), Some(place)),
            Err(why) => (Err(why), None),
        };
        let below = Below { volume, pending: None };
        Ok((Arc::new(Self::new(mount, below, fetching, place)), begun))
    }

    /// Mounts what an earlier server, or a mount that broke, left. `head` is what the store says.
    async fn found(
        shared: &Shared,
        workspace: &Workspace,
        head: VersionId,
        reading: Reading,
    ) -> Result<Arc<Self>, BranchError> {
        let version = lazy::overlay_version(&workspace.overlay(), reading)?;
        let volume = shared.volumes.open(version).await?;
        // Made and put below the overlay, and then something kept the head from moving to it.
        let pending = (version != head).then(|| volume.description().clone());
        let (overlay, db) = (workspace.overlay(), workspace.db());
        let access = mounting::access(&*shared.compute);
        let mount = LazyMount::recover(access, volume.clone(), &overlay, &db, reading)?;
        let fetching = fetch_boot(shared, volume.clone());
        Ok(Arc::new(Self::new(mount, Below { volume, pending }, fetching, None)))
    }

    fn new(mount: LazyMount, below: Below, fetching: DropGuard, place: Option<Place>) -> Self {
        let over = fetching.disarm();
        Self {
            mount,
            inner: below.into(),
            over: over.clone(),
            _ends_fetching: over.drop_guard(),
            filling: false.into(),
            place: place.into(),
        }
    }

    /// Its mongod has started, and the first commands have been answered: what is read from now on
    /// belongs to no start. Of a branch that is small enough the rest of the volume comes now, behind
    /// what clients ask for; earlier it would be in the way of what the start reads.
    pub(super) fn has_started(&self, shared: &Shared) {
        self.mount.boot_done();
        let volume = self.below();
        let small =
            volume.description().total_bytes <= shared.settings.mounts.background_fill_bytes;
        if !small || self.filling.swap(true, Ordering::Relaxed) {
            return;
        }
        let over = self.over.clone();
        shared.tasks.spawn(async move {
            if let Err(error) = volume.fill(over).await {
                debug!(error = error.chain(), "fetch the rest; what is read will be fetched then");
            }
        });
    }

    /// It is on another mount now, which has these directories. Gives the old ones, to be removed.
    pub(super) fn moved(&self, place: Place) -> Option<Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).replace(place)
    }

    pub(super) fn below(&self) -> Arc<LazyVolume> {
        self.lock().volume.clone()
    }

    /// The version below, if the head is still to be moved to it.
    pub(super) fn pending(&self) -> Option<Version> {
        self.lock().pending.clone()
    }

    /// A version was made of what is here, and put below it.
    pub(super) fn rebased(&self, volume: Arc<LazyVolume>, version: Version) {
        *self.lock() = Below { volume, pending: Some(version) };
    }

    /// The head names it now.
    pub(super) fn published(&self, version: VersionId) {
        let mut below = self.lock();
        if below.pending.as_ref().is_some_and(|pending| pending.id == version) {
            below.pending = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Below> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to fetch what a start reads. It is not needed for what is read to be right: it only comes
/// earlier. Ends with what is given.
fn fetch_boot(shared: &Shared, volume: Arc<LazyVolume>) -> DropGuard {
    let over = CancellationToken::new();
    let ended = over.clone();
    shared.tasks.spawn(async move {
        if let Some(Err(error)) = ended.run_until_cancelled(volume.fetch_boot()).await {
            debug!(error = error.chain(), "fetch ahead; what is read will be fetched then");
        }
    });
    over.drop_guard()
}

/// The mount that holds a branch's writes; mounted again where an earlier server, or a mount that
/// broke, left them. `None` where the branch has none here, or has them in a plain directory.
///
/// # Errors
/// [`BranchError::is_local_damage`] where they cannot be read in full.
pub(super) async fn here(
    shared: &Shared,
    cell: &Cell,
) -> Result<Option<Arc<Mounted>>, BranchError> {
    here_as(shared, cell, Reading::Whole).await
}

/// The same, of what may be damaged.
pub(super) async fn here_as(
    shared: &Shared,
    cell: &Cell,
    reading: Reading,
) -> Result<Option<Arc<Mounted>>, BranchError> {
    let _turn = cell.mounting.lock().await;
    if let Some(mounted) = cell.mounted() {
        if mounted.mount.is_serving() {
            return Ok(Some(mounted));
        }
        warn!(branch = %cell.id, name = %cell.name, "its mount broke: mounting it again");
        cell.set_mounted(None);
        mounted.mount.unmount().await?;
    }
    let workspace = shared.layout.branch(cell.id);
    let row = cell.row();
    if row.local == LocalData::None {
        return Ok(None);
    }
    if !workspace.has_overlay() {
        if !workspace.has_directory() {
            // It was put aside when the branch was held, or somebody took it away: never is an
            // empty directory taken for the branch.
            warn!(branch = %cell.id, name = %cell.name,
                  "its working directory is gone: it goes on from its last version");
            cell.update_row(shared, |row| row.local = LocalData::None)?;
        }
        return Ok(None);
    }
    let mounted = Mounted::found(shared, &workspace, row.head, reading).await?;
    cell.set_mounted(Some(mounted.clone()));
    Ok(Some(mounted))
}

/// Takes a branch's mount and data off this machine. Nobody uses them any more.
pub(super) async fn clear(shared: &Shared, cell: &Cell) -> Result<(), BranchError> {
    unmount(cell).await?;
    shared.layout.branch(cell.id).discard_data()
}

/// Takes a branch's mount away; its overlay stays.
pub(super) async fn unmount(cell: &Cell) -> Result<(), BranchError> {
    let _turn = cell.mounting.lock().await;
    match cell.set_mounted(None) {
        Some(mounted) => Ok(mounted.mount.unmount().await?),
        None => Ok(()),
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounted").field("below", &self.below()).finish_non_exhaustive()
    }
}
