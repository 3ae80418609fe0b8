//! All branches of a server, from its start to its end.

use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use super::cell::Cell;
use super::local::Layout;
use super::shared::{Parts, Settings, Shared};
use super::state::State;
use super::{
    BranchError, Damage, ahead, birth, disk, doors, identity, mounting, news, rebuild, seed,
    server_lease,
};
use crate::base::ids::BranchId;
use crate::base::limits::SAVES_AT_ONCE;
use crate::compute::ServerFacts;
use crate::volume::Volumes;

/// All projects and branches of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Branches {
    pub(super) shared: Arc<Shared>,
}

impl Branches {
    /// Takes up where the last server on this data directory stopped, however it stopped: branches
    /// with unsaved writes are saved in the background. Returns when mongod is known well enough
    /// to speak for it, which takes a few seconds the first time.
    ///
    /// # Errors
    /// The data directory or the catalog cannot be used, or mongod does not start;
    /// [`BranchError::CatalogLost`] where the data directory was used before, and its catalog is
    /// new, and the store has branches.
    pub async fn open(parts: Parts, settings: Settings) -> Result<Self, BranchError> {
        meet_the_store(&parts, &settings.data_dir).await?;
        let server = identity::server_id(&parts.catalog, &settings.data_dir, &*parts.clock)?;
        let layout = Layout::new(&settings.data_dir, server)?;
        let (kind, compute) = (settings.mounts.kind, &parts.compute);
        let mounting = mounting::choose(kind, &settings.data_dir, compute).await?;
        let shared = Shared::new(parts, settings, layout, server, mounting)?;
        shared.volumes.prepare().await?;
        news::look(&shared).await;
        birth::look_at_condemned(&shared).await?;
        let empty = seed::empty(&shared, &seed::own(&shared)).await?;
        ahead::open(&shared, empty).await?;
        doors::open_all(&shared);
        birth::follow_all(&shared);
        tokio::spawn(server_lease::keep(Arc::downgrade(&shared), shared.lease.clone()));
        disk::watch(&shared);
        let recovering = shared.clone();
        shared.tasks.spawn(async move { save_all(&recovering).await });
        let branches = Self { shared };
        branches.collect_garbage_now_and_then();
        Ok(branches)
    }

    /// What the real mongod says of itself.
    pub fn server_facts(&self) -> Arc<ServerFacts> {
        self.shared.facts.get().expect("`open` returns only when they are known").clone()
    }

    /// Wakes nothing any more, suspends what runs, and waits for everything that is under way.
    /// Returns the branches whose writes could not be stored; they are kept on this disk.
    pub async fn close(&self) -> Vec<BranchError> {
        self.shared.closing.cancel();
        self.shared.doors.close_all().await;
        let failed = save_all(&self.shared).await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.pool.close().await;
        self.shared.lease.over.cancel();
        failed
    }

    pub(super) fn live(&self, project: &str, branch: &str) -> Result<Arc<Cell>, BranchError> {
        let found = self.shared.live(&project.parse()?, &branch.parse()?);
        found.inspect_err(|_| news::look_soon(&self.shared))
    }

    pub(super) fn cell(&self, id: BranchId) -> Option<Arc<Cell>> {
        self.shared.cells.get(&id).map(|cell| cell.clone())
    }
}

/// A catalog that no server used yet, and a store that has branches: another machine's, or other
/// servers' too. They become known here with all their versions. Where this very data directory was
/// used before, its catalog was lost, and with it what only somebody can tell who knows why.
async fn meet_the_store(parts: &Parts, data_dir: &Path) -> Result<(), BranchError> {
    let volumes = Volumes::new(parts.store.clone(), parts.clock.clone());
    if !identity::is_new(&parts.catalog)? || !volumes.has_heads().await? {
        return Ok(());
    }
    if identity::was_used(data_dir)? {
        return Err(BranchError::CatalogLost { store: parts.store.describe() });
    }
    let (store, clock) = (parts.store.clone(), parts.clock.clone());
    let found = rebuild(&parts.catalog, store, data_dir, clock, Damage::Refuse).await?;
    info!(
        projects = found.projects,
        branches = found.branches,
        versions = found.versions,
        "the catalog is new: it was filled with what the store has"
    );
    for note in found.notes {
        warn!("{note}");
    }
    Ok(())
}

/// Suspends every branch that has writes of its own, a few at a time.
async fn save_all(shared: &Arc<Shared>) -> Vec<BranchError> {
    let awake: Vec<_> = shared
        .cells
        .iter()
        .filter(|cell| {
            let rests = matches!(cell.state(), State::Suspended | State::Deleted);
            !rests || cell.row().head_pending
        })
        .map(|cell| cell.clone())
        .collect();
    let saves = stream::iter(awake).map(|cell| async move {
        match cell.settle_saved(shared).await {
            // Somebody deletes it just now: that saves it too.
            Ok(()) | Err(BranchError::Deleted { .. }) => None,
            // What was unsaved of it is safe in a branch of its own.
            Err(BranchError::Lost { .. }) => None,
            Err(error) => {
                warn!(branch = %cell.id, name = %cell.name, error = error.chain(), "not saved");
                Some(error)
            }
        }
    });
    saves.buffer_unordered(SAVES_AT_ONCE).filter_map(|failed| async { failed }).collect().await
}
