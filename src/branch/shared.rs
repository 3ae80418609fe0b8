//! What all branches of a server share.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use argon_admin::types::{IdleTimeout, KeepWarm, SnapshotEvery};
use dashmap::DashMap;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::BranchError;
use super::cell::Cell;
use super::doors::Doors;
use super::local::{Layout, Workspace};
use super::mounting::{self, Mounting};
use super::news::News;
use super::server_lease::{ServerLease, Writers};
use crate::base::clock::Clock;
use crate::base::ids::{BranchId, ProjectId, ServerId, VersionId};
use crate::base::limits::{Garbage, Mounts, STARTS_AT_ONCE};
use crate::base::metrics::Metrics;
use crate::base::name::Name;
use crate::catalog::{BranchRow, Catalog, ProjectRow};
use crate::compute::{self, Build, Choice, Compute, Instance, ServerFacts};
use crate::pool::{self, Pool, Terms};
use crate::store::{Key, Store};
use crate::volume::{BlockCache, Volumes};

/// What a server is told about its branches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the server keeps its own files.
    pub data_dir: PathBuf,
    /// How long a branch may be idle, where it says nothing itself.
    pub idle_timeout: IdleTimeout,
    /// How often a version is made of a running branch, where it says nothing itself.
    pub snapshot_every: SnapshotEvery,
    /// How long an idle branch's mongod stands still before it is suspended, where it says nothing
    /// itself.
    pub keep_warm: KeepWarm,
    /// How volumes become dbpaths, and what they may take of this machine's disk.
    pub mounts: Mounts,
    /// How many mongods are kept started ahead of wakes.
    pub parked: usize,
    /// Where drivers connect, `HOST:PORT`, as it stands in URIs.
    pub address: String,
    /// The object that holds the archive new projects start from.
    pub base_key: Key,
    /// The archive that is put there when there is none.
    pub sample_base: &'static [u8],
    /// WiredTiger's cache of each mongod, GB.
    pub cache_gb: f64,
    /// Size of the oplog of new volumes, MB.
    pub oplog_mb: u32,
    /// Most connections that may use one branch at once.
    pub clients_max: usize,
    /// How garbage is collected.
    pub garbage: Garbage,
    /// Who writes to the store.
    pub writers: Writers,
}

/// The rooms below, as one server uses them.
#[derive(Debug)]
pub struct Parts {
    /// Projects, branches and versions.
    pub catalog: Catalog,
    /// Objects.
    pub store: Arc<dyn Store>,
    /// mongods.
    pub compute: Arc<dyn Compute>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) catalog: Catalog,
    pub(super) store: Arc<dyn Store>,
    pub(super) volumes: Volumes,
    pub(super) mounting: Mounting,
    /// Of blocks, where volumes are mounted lazily.
    pub(super) cache: Option<Arc<BlockCache>>,
    pub(super) compute: Arc<dyn Compute>,
    /// mongods that were started ahead.
    pub(super) pool: Pool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) doors: Doors,
    pub(super) layout: Layout,
    pub(super) server: ServerId,
    pub(super) lease: Arc<ServerLease>,
    pub(super) news: News,
    /// What runs on behalf of branches; the server's end waits for it.
    pub(super) tasks: TaskTracker,
    /// No branch is woken any more.
    pub(super) closing: CancellationToken,
    pub(super) starts: Semaphore,
    /// Versions that garbage collection had condemned at the last look; none is not knowing.
    pub(super) condemned: Mutex<Option<HashSet<VersionId>>>,
    /// Held while a volume that branches start from is being made, so that it is made once.
    pub(super) seeding: tokio::sync::Mutex<()>,
    /// Held while a deleted branch is brought back or purged, or a project's object is replaced.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Told whenever settings of a branch were changed.
    changes: watch::Sender<()>,
    pub(super) facts: OnceLock<Arc<ServerFacts>>,
    pub(super) cells: DashMap<BranchId, Arc<Cell>>,
    /// Live branches by name, and the projects by name: what routing looks up.
    names: RwLock<BTreeMap<Name, ProjectEntry>>,
}

struct ProjectEntry {
    row: ProjectRow,
    branches: BTreeMap<Name, Arc<Cell>>,
}

impl Shared {
    pub(super) fn new(
        parts: Parts,
        settings: Settings,
        layout: Layout,
        server: ServerId,
        mounting: Mounting,
    ) -> Result<Arc<Self>, BranchError> {
        let Parts { catalog, store, compute, clock, metrics } = parts;
        let doors = Doors::new(&settings)?;
        let mut names = BTreeMap::new();
        let mut project_names = BTreeMap::<ProjectId, Name>::new();
        for row in catalog.projects()? {
            project_names.insert(row.id, row.name.clone());
            names.insert(row.name.clone(), ProjectEntry { row, branches: BTreeMap::new() });
        }
        let cells = DashMap::new();
        for row in catalog.all_branches()? {
            // The catalog's foreign key sees to it that every branch has a project.
            let Some(project) = project_names.get(&row.project) else { continue };
            let deleted = row.deleted.is_some();
            let cell = Cell::new(row, project.clone());
            if !deleted && let Some(entry) = names.get_mut(project) {
                entry.branches.insert(cell.name.clone(), cell.clone());
            }
            cells.insert(cell.id, cell);
        }
        let session = ServerId::generate(clock.now());
        let lease = ServerLease::new(server, session, settings.address.clone(), settings.writers);
        let mounts = &settings.mounts;
        let (volumes, cache) =
            mounting::volumes(&store, &clock, mounting, mounts, &settings.data_dir);
        let pool = pool::Settings {
            size: settings.parked,
            directory: layout.parked(),
            sockets: layout.sockets().to_owned(),
            terms: Terms { cache_gb: settings.cache_gb, oplog_mb: settings.oplog_mb },
            access: mounting::access(&*compute),
        };
        let pool = Pool::new(compute.clone(), metrics.clone(), pool);
        Ok(Arc::new(Self {
            pool,
            volumes,
            mounting,
            cache,
            lease: Arc::new(lease),
            news: News::default(),
            settings,
            catalog,
            store,
            compute,
            clock,
            metrics,
            doors,
            layout,
            server,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            starts: Semaphore::new(STARTS_AT_ONCE),
            condemned: Mutex::default(),
            seeding: tokio::sync::Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
            changes: watch::Sender::new(()),
            facts: OnceLock::new(),
            cells,
            names: RwLock::new(names),
        }))
    }

    /// After how long without work a branch is suspended, or stands still, as the server says where it
    /// says nothing itself; `None` is never.
    pub(super) fn idle_timeout(&self, row: &BranchRow) -> Option<Duration> {
        row.idle_timeout.or(self.settings.idle_timeout.duration())
    }

    /// The same of how often a version is made of it while it runs.
    pub(super) fn snapshot_interval(&self, row: &BranchRow) -> Option<Duration> {
        row.snapshot_every.or(self.settings.snapshot_every.duration())
    }

    /// The same of how long its idle mongod stands still before it is suspended.
    pub(super) fn keep_warm(&self, row: &BranchRow) -> Option<Duration> {
        row.keep_warm.or(self.settings.keep_warm.duration())
    }

    /// A receiver that is told whenever settings of some branch were changed: whoever waits by them
    /// looks at its row again. Subscribe first, then look.
    pub(super) fn settings_changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn settings_changed(&self) {
        self.changes.send_replace(());
    }

    /// Starts the mongod of an image, or the server's own where none is named, on a dbpath, whatever
    /// wrote that.
    pub(super) async fn start_with(
        &self,
        workspace: &Workspace,
        dbpath: PathBuf,
        image: Option<&str>,
    ) -> Result<Arc<dyn Instance>, BranchError> {
        let choice = match image {
            Some(image) => Choice::Image(image.to_owned()),
            None => Choice::Server,
        };
        Ok(self.start_chosen(workspace, dbpath, choice).await?.0)
    }

    /// Starts a mongod on a dbpath that another may have written, at most [`STARTS_AT_ONCE`] at a time, in
    /// the order of asking; and how long the turn was waited for.
    pub(super) async fn start_in_turn(
        &self,
        workspace: &Workspace,
        dbpath: PathBuf,
        written_by: Option<Build>,
    ) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
        let choice = written_by.map_or(Choice::Server, Choice::WroteIt);
        self.start_chosen(workspace, dbpath, choice).await
    }

    async fn start_chosen(
        &self,
        workspace: &Workspace,
        dbpath: PathBuf,
        mongod: Choice,
    ) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
        let asked = Instant::now();
        let _turn = self.starts.acquire().await.map_err(|_| BranchError::Closing)?;
        let queued = asked.elapsed();
        workspace.make_socket_dir()?;
        let cell = compute::Cell {
            dbpath,
            socket_dir: workspace.socket_dir().to_owned(),
            log: workspace.log(),
            cache_gb: self.settings.cache_gb,
            oplog_mb: self.settings.oplog_mb,
            owner: self.owner_of(workspace),
            mongod,
        };
        Ok((self.compute.start(cell).await?, queued))
    }

    /// Whom a mongod in this workspace works for; nobody known, where its volume is being made.
    fn owner_of(&self, workspace: &Workspace) -> compute::Owner {
        let id = workspace.socket_dir().file_name().and_then(|name| name.to_str()?.parse().ok());
        let cell = id.and_then(|id: BranchId| self.cells.get(&id));
        cell.map_or_else(compute::Owner::default, |cell| self.owner(&cell))
    }

    /// Whom a branch's mongod works for.
    pub(super) fn owner(&self, cell: &Cell) -> compute::Owner {
        compute::Owner {
            project: cell.project.to_string(),
            branch: cell.name.to_string(),
            // The life that is to be claimed, where the claim is on its way beside the start.
            epoch: cell.claim().map_or(cell.row().epoch.next(), |claim| claim.head.epoch).0,
        }
    }

    pub(super) fn project(&self, name: &Name) -> Result<ProjectRow, BranchError> {
        self.read(|names| names.get(name).map(|entry| entry.row.clone()))
            .ok_or_else(|| BranchError::UnknownProject { project: name.to_string() })
    }

    pub(super) fn projects(&self) -> Vec<ProjectRow> {
        self.read(|names| names.values().map(|entry| entry.row.clone()).collect())
    }

    /// The live branch of that name.
    pub(super) fn live(&self, project: &Name, branch: &Name) -> Result<Arc<Cell>, BranchError> {
        self.read(|names| match names.get(project) {
            None => Err(BranchError::UnknownProject { project: project.to_string() }),
            Some(entry) => entry.branches.get(branch).cloned().ok_or_else(|| {
                BranchError::UnknownBranch { project: project.clone(), branch: branch.to_string() }
            }),
        })
    }

    pub(super) fn live_branches(&self, project: &Name) -> Result<Vec<Arc<Cell>>, BranchError> {
        self.read(|names| match names.get(project) {
            None => Err(BranchError::UnknownProject { project: project.to_string() }),
            Some(entry) => Ok(entry.branches.values().cloned().collect()),
        })
    }

    /// Makes a project known, or forgets one.
    pub(super) fn add_project(&self, row: ProjectRow) {
        let entry = ProjectEntry { row: row.clone(), branches: BTreeMap::new() };
        self.write(|names| names.insert(row.name, entry));
    }

    /// Replaces what is known of a project.
    pub(super) fn set_project(&self, row: ProjectRow) {
        self.write(|names| {
            if let Some(entry) = names.get_mut(&row.name) {
                entry.row = row;
            }
        });
    }

    pub(super) fn remove_project(&self, name: &Name) {
        self.write(|names| names.remove(name));
    }

    /// Makes a live branch known by its name.
    pub(super) fn add_live(&self, cell: &Arc<Cell>) {
        self.cells.insert(cell.id, cell.clone());
        self.write(|names| {
            if let Some(entry) = names.get_mut(&cell.project) {
                entry.branches.insert(cell.name.clone(), cell.clone());
            }
        });
    }

    /// Frees the name of a branch that was deleted.
    pub(super) fn remove_live(&self, cell: &Cell) {
        self.write(|names| {
            if let Some(entry) = names.get_mut(&cell.project)
                && entry.branches.get(&cell.name).is_some_and(|named| named.id == cell.id)
            {
                entry.branches.remove(&cell.name);
            }
        });
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<Name, ProjectEntry>) -> T) -> T {
        look(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut BTreeMap<Name, ProjectEntry>) -> T) -> T {
        change(&mut self.names.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}
