//! What other servers on the same store made: projects and branches that this catalog lacks.
//!
//! They are looked for at the start, and when a name is not known. Nothing else is followed: a
//! branch that is known is brought up to its head when it is woken.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::BranchError;
use super::cell::Cell;
use super::reconcile::version_row;
use super::shared::Shared;
use crate::base::ids::{BranchId, VersionId};
use crate::catalog::{BranchRow, CatalogError, LocalData, ProjectRow};
use crate::volume::{Head, Project, VolumeError};

/// Whoever asks for names that do not exist causes no more looks than this.
const PAUSE: Duration = Duration::from_secs(2);

/// When the store was last looked through, and who may write down a branch meanwhile.
#[derive(Debug, Default)]
pub(super) struct News {
    last: Mutex<Option<Instant>>,
    /// Read while a head is made and written down here; written while those of others are.
    pub(super) naming: tokio::sync::RwLock<()>,
}

impl News {
    fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// Looks through the store in the background, unless that was done a moment ago.
pub(super) fn look_soon(shared: &Arc<Shared>) {
    if shared.closing.is_cancelled() || !shared.news.is_due() {
        return;
    }
    let looking = shared.clone();
    shared.tasks.spawn(async move { look(&looking).await });
}

/// Looks through the store. What cannot be read is said in the log, and keeps nothing else away.
pub(super) async fn look(shared: &Arc<Shared>) {
    if let Err(error) = bring_in(shared).await {
        warn!(error = error.chain(), "look for what other servers made");
    }
}

async fn bring_in(shared: &Arc<Shared>) -> Result<(), BranchError> {
    let (projects, branches) =
        (shared.volumes.projects().await?, shared.volumes.branch_ids().await?);
    let unknown: Vec<_> =
        branches.into_iter().filter(|id| !shared.cells.contains_key(id)).collect();
    let known = shared.projects();
    let _naming = shared.news.naming.write().await;
    for project in projects {
        if known.iter().any(|row| row.id == project.id) {
            continue;
        }
        if let Some(base) = project.base {
            enter_version(shared, base).await?;
        }
        let Project { id, name, created, base, retention, image } = project;
        let row = ProjectRow { id, name, created, base, retention, image };
        match shared.catalog.insert_project(&row) {
            Ok(()) => shared.add_project(row),
            // Both are there; this server goes on with its own.
            Err(error @ CatalogError::NameTaken { .. }) => warn!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    for id in unknown {
        if let Err(error) = enter(shared, id).await {
            warn!(branch = %id, error = error.chain(), "take in a branch of another server");
        }
    }
    Ok(())
}

async fn enter(shared: &Arc<Shared>, id: BranchId) -> Result<(), BranchError> {
    // Read only now: whoever makes or purges branches here is kept away meanwhile.
    let head = match shared.volumes.head(id).await {
        _ if shared.cells.contains_key(&id) => return Ok(()),
        Err(VolumeError::NoHead { .. }) => return Ok(()),
        head => head?.0,
    };
    if !shared.projects().iter().any(|row| row.id == head.project) {
        return Ok(());
    }
    enter_version(shared, head.version).await?;
    if let Some(origin) = head.origin {
        enter_version(shared, origin.version).await?;
    }
    let project = head.project_name.clone();
    let row = row(head);
    let deleted = row.deleted.is_some();
    shared.catalog.insert_branch(&row)?;
    info!(branch = %row.id, name = %row.name, %project, "took in a branch of another server");
    let cell = Cell::new(row, project);
    match deleted {
        true => drop(shared.cells.insert(cell.id, cell)),
        false => shared.add_live(&cell),
    }
    Ok(())
}

async fn enter_version(shared: &Shared, id: VersionId) -> Result<(), BranchError> {
    if shared.catalog.version(id)?.is_none() {
        let version = shared.volumes.version(id).await?;
        shared.catalog.insert_version(&version_row(&version))?;
    }
    Ok(())
}

fn row(head: Head) -> BranchRow {
    BranchRow {
        id: head.branch,
        project: head.project,
        name: head.branch_name,
        head: head.version,
        epoch: head.epoch,
        idle_timeout: head.idle_timeout,
        snapshot_every: head.snapshot_every,
        keep_warm: head.keep_warm,
        created: head.created,
        deleted: head.deleted,
        origin_branch: head.origin.map(|origin| origin.branch),
        origin_version: head.origin.map(|origin| origin.version),
        local: LocalData::None,
        error: None,
        port: None,
        socket: false,
        head_pending: false,
    }
}
