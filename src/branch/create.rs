//! New branches: a new head on an old version. No data is read, copied or uploaded, and where the
//! version is sure to stay, the store is not asked at all: see [`birth`].

use std::sync::Arc;

use argon_admin::types::{BranchSource, CreateBranch};
use tracing::info;

use super::cell::Cell;
use super::shared::Shared;
use super::{BranchError, birth, change, history, retention, seed};
use crate::base::failpoint::failpoint;
use crate::base::ids::{BranchId, Epoch, VersionId};
use crate::base::name::Name;
use crate::catalog::{BranchRow, CatalogError, Deleted, LocalData, ProjectRow};

/// What a new branch starts from.
struct Start {
    version: VersionId,
    origin: Option<BranchId>,
    /// Whether nobody gives it up in the time that a head takes to the store.
    stays: bool,
}

pub(super) async fn create(
    shared: &Arc<Shared>,
    project: &Name,
    request: CreateBranch,
) -> Result<Arc<Cell>, BranchError> {
    let name: Name = request.name.parse()?;
    let project = shared.project(project)?;
    let exists =
        || BranchError::BranchExists { project: project.name.clone(), branch: name.clone() };
    if shared.live(&project.name, &name).is_ok() {
        return Err(exists());
    }
    let start = start(shared, &project, request.source).await?;
    let created = shared.clock.now();
    let row = BranchRow {
        id: BranchId::generate(created),
        project: project.id,
        name: name.clone(),
        head: start.version,
        epoch: Epoch::default(),
        idle_timeout: change::idle_timeout(request.idle_timeout),
        snapshot_every: change::snapshot_every(request.snapshot_every),
        keep_warm: change::keep_warm(request.keep_warm),
        created,
        deleted: None,
        origin_branch: start.origin,
        origin_version: start.origin.map(|_| start.version),
        local: LocalData::None,
        error: None,
        port: None,
        socket: false,
        head_pending: start.stays,
    };
    let _naming = shared.news.naming.read().await;
    if !start.stays {
        // It is held before anybody is told that there is a branch.
        shared.volumes.create_head(&birth::head(&row, &project)).await?;
    }
    if let Err(error) = shared.catalog.insert_branch(&row) {
        if !start.stays {
            shared.volumes.delete_head(row.id).await?;
        }
        return Err(match error {
            CatalogError::NameTaken { .. } => exists(),
            other => other.into(),
        });
    }
    failpoint("create.row");
    let cell = Cell::new(row, project.name);
    shared.add_live(&cell);
    birth::follow(shared, cell.clone());
    info!(branch = %cell.id, name = %cell.name, project = %cell.project, version = %start.version,
          "created a branch");
    Ok(cell)
}

async fn start(
    shared: &Arc<Shared>,
    project: &ProjectRow,
    source: BranchSource,
) -> Result<Start, BranchError> {
    match source {
        BranchSource::Empty => {
            let maker = seed::maker(shared, project.image.as_deref(), &|_| ()).await?;
            Ok(Start { version: seed::empty(shared, &maker).await?, origin: None, stays: true })
        }
        BranchSource::Base => {
            let version = match project.base {
                Some(version) => version,
                None => {
                    let maker = seed::maker(shared, project.image.as_deref(), &|_| ()).await?;
                    super::base::loaded(shared, &maker).await?
                }
            };
            Ok(Start { version, origin: None, stays: true })
        }
        BranchSource::Branch { branch, at } => {
            let name: Name = branch.parse()?;
            let cell = source_branch(shared, project, &name, at.is_some())?;
            let version = match at {
                Some(at) => history::find(shared, &cell, &at)?,
                None => cell.present_state(shared).await?,
            };
            let stays = !birth::may_be_condemned(shared, version)
                && !retention::may_go(shared, &cell.row(), &project.retention, version)?;
            Ok(Start { version, origin: Some(cell.id), stays })
        }
    }
}

/// The live branch of that name; where a version is asked for, a deleted one serves too.
fn source_branch(
    shared: &Shared,
    project: &ProjectRow,
    name: &Name,
    deleted_too: bool,
) -> Result<Arc<Cell>, BranchError> {
    let live = shared.live(&project.name, name);
    if live.is_ok() || !deleted_too {
        return live;
    }
    let deleted = shared.catalog.branches(project.id, Deleted::Only)?;
    let newest = deleted.iter().filter(|row| row.name == *name).max_by_key(|row| row.deleted);
    newest.and_then(|row| shared.cells.get(&row.id).map(|cell| cell.clone())).map_or(live, Ok)
}
