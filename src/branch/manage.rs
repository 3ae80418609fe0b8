//! What the admin API and the proxy ask of branches.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon_admin::types::{self, BranchState, Until};
use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use super::Door;
use super::cell::{Attach, Cell, Patience, ended};
use super::lease::{BranchHandle, Lease, Use};
use super::local::Layout;
use super::parked::Waiter;
use super::shared::{Parts, Settings, Shared};
use super::state::{Event, State};
use super::{
    BranchError, Damage, ahead, base, birth, create, disk, doors, history, identity, mounting,
    news, rebuild, retention, seed, server_lease, view,
};
use crate::archive;
use crate::base::failpoint::failpoint;
use crate::base::ids::{BranchId, ProjectId, ServerId, VersionId};
use crate::base::limits::SAVES_AT_ONCE;
use crate::base::metrics::Observed;
use crate::base::name::Name;
use crate::base::retention::Retention;
use crate::catalog::{CatalogError, Deleted, ProjectRow};
use crate::compute::{OnPull, ServerFacts};
use crate::volume::{Head, VolumeError, Volumes};
use crate::wire::Client;

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

    /// Makes a project; the first one loads the base archive, which takes seconds.
    ///
    /// # Errors
    /// The name is none or is taken; the base archive is damaged; there is no such image.
    pub async fn create_project(
        &self,
        name: &str,
        image: Option<String>,
        progress: OnPull<'_>,
    ) -> Result<types::Project, BranchError> {
        let name: Name = name.parse()?;
        let exists = |project| BranchError::ProjectExists { project };
        if self.shared.project(&name).is_ok() {
            return Err(exists(name));
        }
        let maker = seed::maker(&self.shared, image.as_deref(), progress).await?;
        let base = Some(base::loaded(&self.shared, &maker).await?);
        let created = self.shared.clock.now();
        let (id, retention) = (ProjectId::generate(created), Retention::default());
        let row = ProjectRow { id, name, created, base, retention, image };
        self.shared.catalog.insert_project(&row).map_err(|error| match error {
            CatalogError::NameTaken { .. } => exists(row.name.clone()),
            other => other.into(),
        })?;
        // For whoever has the store alone and must make the catalog again.
        if let Err(error) = self.shared.volumes.save_project(&retention::kept(&row)).await {
            self.shared.catalog.delete_project(row.id)?;
            return Err(error.into());
        }
        self.shared.add_project(row.clone());
        info!(project = %row.name, "created a project");
        Ok(view::project(&row))
    }

    /// All projects, by name.
    pub fn projects(&self) -> Vec<types::Project> {
        // Those of other servers are in the next list.
        news::look_soon(&self.shared);
        self.shared.projects().iter().map(view::project).collect()
    }

    /// Deletes a project, and its deleted branches for good.
    ///
    /// # Errors
    /// There is none of that name, or it still has live branches.
    pub async fn delete_project(&self, name: &str) -> Result<(), BranchError> {
        let name: Name = name.parse()?;
        let row = self.shared.project(&name)?;
        let live = self.shared.live_branches(&name)?;
        if !live.is_empty() {
            let names: Vec<_> = live.iter().map(|cell| cell.name.to_string()).collect();
            return Err(BranchError::ProjectNotEmpty { project: name, branches: names.join(", ") });
        }
        let _turn = self.shared.changing.lock().await;
        for deleted in self.shared.catalog.branches(row.id, Deleted::Only)? {
            self.purge_id(deleted.id).await?;
        }
        self.shared.volumes.delete_project(row.id).await?;
        self.shared.catalog.delete_project(row.id)?;
        self.shared.remove_project(&name);
        Ok(())
    }

    /// The project that is meant where none is named: the only one.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn default_project(&self) -> Result<Name, BranchError> {
        let mut projects = self.shared.projects();
        match projects.len() {
            0 => {
                news::look_soon(&self.shared);
                Err(BranchError::NoProject)
            }
            1 => Ok(projects.remove(0).name),
            _ => {
                let names: Vec<_> = projects.iter().map(|row| row.name.to_string()).collect();
                Err(BranchError::WhichProject { choices: names.join(", ") })
            }
        }
    }

    /// Makes a branch.
    ///
    /// # Errors
    /// The project, source or version does not exist, or the name is none or is taken.
    pub async fn create(
        &self,
        project: &str,
        request: types::CreateBranch,
    ) -> Result<types::Branch, BranchError> {
        let cell = create::create(&self.shared, &project.parse()?, request).await?;
        view::branch(&self.shared, &cell)
    }

    /// A project's branches by name, or the deleted ones in the order of their deletion.
    ///
    /// # Errors
    /// There is no such project.
    pub fn list(&self, project: &str, deleted: Deleted) -> Result<Vec<types::Branch>, BranchError> {
        let project: Name = project.parse()?;
        let cells = match deleted {
            Deleted::Without => {
                // Those of other servers are in the next list.
                news::look_soon(&self.shared);
                self.shared.live_branches(&project)?
            }
            Deleted::Only => {
                let row = self.shared.project(&project)?;
                let mut rows = self.shared.catalog.branches(row.id, Deleted::Only)?;
                rows.sort_by_key(|row| row.deleted);
                rows.iter().filter_map(|row| self.cell(row.id)).collect()
            }
        };
        cells.iter().map(|cell| view::branch(&self.shared, cell)).collect()
    }

    /// One branch.
    ///
    /// # Errors
    /// There is none.
    pub fn show(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        view::branch(&self.shared, &cell)
    }

    /// How a branch's last wakes went since the server started, the newest first.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn wakes(&self, project: &str, branch: &str) -> Result<Vec<types::WakeTrace>, BranchError> {
        let reports = self.live(project, branch)?.wakes();
        Ok(reports.iter().rev().map(|report| report.trace()).collect())
    }

    /// Suspends a branch; one that sleeps already stays as it is. Returns when it has got as far
    /// as `until` says.
    ///
    /// # Errors
    /// There is no such branch, or its writes could not be stored; then they are kept.
    pub async fn suspend(
        &self,
        project: &str,
        branch: &str,
        until: Until,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        match until {
            Until::Asleep => cell.settle(&self.shared, Event::Suspend).await?,
            Until::Saved => cell.settle_saved(&self.shared).await?,
        }
        view::branch(&self.shared, &cell)
    }

    /// Makes a version of what a branch is now, on request. A branch that runs on a lazy mount goes
    /// on; on a plain directory it is suspended for it, its clients keep their connections, and their
    /// next command wakes it. One that sleeps gets a version that shares every block with the one
    /// before.
    ///
    /// # Errors
    /// There is no such branch, the label is none or is taken, or the version could not be stored.
    pub async fn snapshot(
        &self,
        project: &str,
        branch: &str,
        label: Option<&str>,
    ) -> Result<types::Version, BranchError> {
        let label = label.map(str::parse).transpose()?;
        let cell = self.live(project, branch)?;
        let id = cell.snapshot(&self.shared, label).await?;
        self.version(id)
    }

    /// Keeps a version for good, whatever the rules of its project say.
    ///
    /// # Errors
    /// There is no such version, or the store cannot be written.
    pub async fn pin(&self, version: &str) -> Result<types::Version, BranchError> {
        let id = self.version_id(version)?;
        // The store first: what it says is pinned, is kept.
        self.shared.volumes.pin(id).await?;
        self.shared.catalog.pin_version(id)?;
        self.version(id)
    }

    /// Lets a version go when its time comes; one that is not pinned stays as it is.
    ///
    /// # Errors
    /// There is no such version, or the store cannot be written.
    pub async fn unpin(&self, version: &str) -> Result<types::Version, BranchError> {
        let id = self.version_id(version)?;
        self.shared.volumes.unpin(id).await?;
        self.shared.catalog.unpin_version(id)?;
        self.version(id)
    }

    fn version_id(&self, text: &str) -> Result<VersionId, BranchError> {
        let id = text.parse()?;
        self.version(id).map(|_| id)
    }

    fn version(&self, id: VersionId) -> Result<types::Version, BranchError> {
        let row = self.shared.catalog.version(id)?;
        row.as_ref()
            .map(view::version)
            .ok_or_else(|| BranchError::NoVersion { version: id.to_string() })
    }

    /// Wakes a branch, at once even after a wake that failed just now.
    ///
    /// # Errors
    /// There is no such branch, or it cannot be woken.
    pub async fn resume(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        self.wake(&cell).await?;
        view::branch(&self.shared, &cell)
    }

    async fn wake(&self, cell: &Arc<Cell>) -> Result<Lease, BranchError> {
        let mut waiter = Waiter::new(0);
        loop {
            match cell.attach(&self.shared, Use::Work, Patience::TryNow, &mut waiter)? {
                Attach::Lease(lease) => {
                    drop(waiter);
                    // Where commands wait too, the first of them completes the report.
                    if cell.parked() == 0 {
                        lease.tell_wake();
                    }
                    return Ok(lease);
                }
                Attach::Wait(outcome) => match ended(outcome).await {
                    Ok(()) | Err(BranchError::Save { .. } | BranchError::Lost { .. }) => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Deletes a branch; its last state becomes a version first. Commands that already wait for
    /// its wake are served before, later ones are refused.
    ///
    /// # Errors
    /// There is no such branch, or its writes could not be stored; then it is not deleted.
    pub async fn delete(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        cell.settle(&self.shared, Event::Delete).await?;
        self.shared.doors.close_both(cell.id).await;
        view::branch(&self.shared, &cell)
    }

    /// Brings back a deleted branch: by id, or the one of that name that was deleted last.
    ///
    /// # Errors
    /// There is none, or its name belongs to another branch now.
    pub async fn undelete(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<types::Branch, BranchError> {
        let _turn = self.shared.changing.lock().await;
        let cell = self.deleted(project, branch)?;
        if self.shared.live(&cell.project, &cell.name).is_ok() {
            let (project, branch) = (cell.project.clone(), cell.name.clone());
            return Err(BranchError::BranchExists { project, branch });
        }
        let (head, etag) = self.shared.volumes.head(cell.id).await?;
        self.shared.volumes.move_head(&Head { deleted: None, ..head }, &etag).await?;
        failpoint("undelete.head");
        cell.update_row(&self.shared, |row| row.deleted = None)?;
        cell.settle(&self.shared, Event::Undelete).await?;
        self.shared.add_live(&cell);
        doors::reopen(&self.shared, &cell);
        view::branch(&self.shared, &cell)
    }

    /// Gives up a deleted branch for good.
    ///
    /// # Errors
    /// There is no deleted branch of that name or id.
    pub async fn purge(&self, project: &str, branch: &str) -> Result<types::Branch, BranchError> {
        let _turn = self.shared.changing.lock().await;
        let cell = self.deleted(project, branch)?;
        let last = view::branch(&self.shared, &cell)?;
        self.purge_id(cell.id).await?;
        Ok(last)
    }

    /// The caller keeps those away who would bring it back.
    pub(super) async fn purge_id(&self, id: BranchId) -> Result<(), BranchError> {
        match self.shared.volumes.head(id).await {
            // Another server brought it back, and may be using it.
            Ok((head, _)) if head.deleted.is_none() => {
                return Err(BranchError::NotDeleted { branch: head.branch_name });
            }
            Ok(_) | Err(VolumeError::NoHead { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.shared.volumes.delete_head(id).await?;
        failpoint("purge.head");
        self.shared.catalog.purge_branch(id)?;
        failpoint("purge.row");
        self.shared.cells.remove(&id);
        self.shared.layout.branch(id).discard()
    }

    /// What a branch started from and its own versions, oldest first; of a deleted branch too.
    ///
    /// # Errors
    /// There is no such branch.
    pub fn versions(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<Vec<types::Version>, BranchError> {
        let cell = match self.live(project, branch) {
            Err(unknown @ BranchError::UnknownBranch { .. }) => {
                self.deleted(project, branch).map_err(|_| unknown)?
            }
            live => live?,
        };
        Ok(history::versions(&self.shared, &cell.row())?.iter().map(view::version).collect())
    }

    /// Makes an archive what new projects start from.
    ///
    /// # Errors
    /// It is damaged or cannot be loaded; then everything stays as it was.
    pub async fn set_base(&self, archive: PathBuf) -> Result<types::Base, BranchError> {
        base::set(&self.shared, &archive).await
    }

    /// What new projects start from.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn base(&self) -> Result<types::Base, BranchError> {
        base::show(&self.shared).await
    }

    /// A file for an archive on its way in.
    pub fn temporary_file(&self) -> PathBuf {
        self.shared.layout.temporary(ServerId::generate(self.shared.clock.now()))
    }

    /// Wakes a branch and writes a gzip'ed mongodump archive of it.
    ///
    /// # Errors
    /// There is no such branch, it cannot be woken, or writing failed half way.
    pub async fn dump(
        &self,
        project: &str,
        branch: &str,
        into: impl Write + Send + 'static,
    ) -> Result<(), BranchError> {
        let cell = self.live(project, branch)?;
        let lease = self.wake(&cell).await?;
        let mut client = Client::connect(lease.socket()).await?;
        archive::dump(&mut client, into, archive::Compression::Gzip).await.map_err(|source| {
            BranchError::Dump { branch: cell.name.clone(), source: Arc::new(source) }
        })?;
        Ok(())
    }

    /// Which branch an address names; the default project where it names none. Wakes nothing.
    ///
    /// # Errors
    /// There is no such project or branch.
    pub fn route(
        &self,
        project: Option<&Name>,
        branch: &Name,
    ) -> Result<BranchHandle, BranchError> {
        let project = match project {
            Some(project) => project.clone(),
            None => self.default_project()?,
        };
        let found = self.shared.live(&project, branch);
        let cell = found.inspect_err(|_| news::look_soon(&self.shared))?;
        Ok(BranchHandle::new(self.shared.clone(), cell))
    }

    /// The branch that a door belongs to. Wakes nothing.
    ///
    /// # Errors
    /// It was deleted.
    pub fn route_door(&self, door: &Door) -> Result<BranchHandle, BranchError> {
        let cell = self.cell(door.branch).filter(|cell| cell.state() != State::Deleted);
        let deleted = || BranchError::Deleted { branch: door.name.clone() };
        Ok(BranchHandle::new(self.shared.clone(), cell.ok_or_else(deleted)?))
    }

    /// What metrics are not told as it happens.
    pub fn observed(&self) -> Observed {
        let parked = self.shared.cells.iter().map(|cell| cell.parked() as u64).sum();
        let counts = view::counts(self.shared.cells.iter().map(|cell| cell.state()));
        let branches = vec![
            (BranchState::Suspended.as_str(), counts.suspended),
            (BranchState::Waking.as_str(), counts.waking),
            (BranchState::Running.as_str(), counts.running),
            (BranchState::Suspending.as_str(), counts.suspending),
            (BranchState::Saving.as_str(), counts.saving),
            (BranchState::Held.as_str(), counts.held),
            (BranchState::Deleted.as_str(), counts.deleted),
        ];
        let pool = self.shared.pool.status();
        let (mongods_parked, mongods_starting) = (pool.parked as u64, pool.starting as u64);
        Observed { parked, branches, mongods_parked, mongods_starting }
    }

    /// How many mongods are started ahead of wakes.
    pub fn parked(&self) -> types::ParkedMongods {
        let pool = self.shared.pool.status();
        types::ParkedMongods {
            wanted: pool.size as u64,
            parked: pool.parked as u64,
            starting: pool.starting as u64,
            error: pool.failure,
        }
    }

    /// How many projects there are, and how many branches in which state.
    pub fn counts(&self) -> (u64, types::BranchCounts) {
        let states = self.shared.cells.iter().map(|cell| cell.state());
        (self.shared.projects().len() as u64, view::counts(states))
    }

    /// In a few words each: how mongods are run, and where versions are kept.
    pub fn describe(&self) -> (String, String) {
        let compute = self.shared.compute.describe();
        let mounting = self.shared.mounting.describe();
        (format!("{compute}; volumes are {mounting}"), self.shared.store.describe())
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

    fn cell(&self, id: BranchId) -> Option<Arc<Cell>> {
        self.shared.cells.get(&id).map(|cell| cell.clone())
    }

    pub(super) fn live(&self, project: &str, branch: &str) -> Result<Arc<Cell>, BranchError> {
        let found = self.shared.live(&project.parse()?, &branch.parse()?);
        found.inspect_err(|_| news::look_soon(&self.shared))
    }

    fn deleted(&self, project: &str, branch: &str) -> Result<Arc<Cell>, BranchError> {
        let row = self.shared.project(&project.parse()?)?;
        let found = self.shared.catalog.branches(row.id, Deleted::Only)?;
        let named = |id: BranchId, name: &Name| id.to_string() == branch || name.as_str() == branch;
        let newest =
            found.iter().filter(|row| named(row.id, &row.name)).max_by_key(|row| row.deleted);
        let cell = newest.and_then(|row| self.cell(row.id));
        cell.ok_or_else(|| match self.live(project, branch) {
            Ok(cell) => BranchError::NotDeleted { branch: cell.name.clone() },
            Err(unknown) => unknown,
        })
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
