//! From a suspended branch to a mongod that takes commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::BranchError;
use super::cell::Cell;
use super::claim::{claim, release};
use super::life::Life;
use super::local::Workspace;
use super::mounted::{self, Mounted};
use super::mounting::Mounting;
use super::report::WakeReport;
use super::shared::Shared;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::{Build, Instance};
use crate::volume::{MongodVersion, Version};

/// Claims the branch's next life, brings its volume here unless its writes are here already, and
/// starts a mongod on it.
///
/// Crash points, and what the next start finds: before the claim, nothing changed; after it, the
/// epoch is one higher and nothing else; until the row says `Present`, a directory or overlay that
/// no client wrote to, and that is thrown away; after it, one that is the branch's state.
pub(super) async fn wake(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Life, BranchError> {
    let begun = Instant::now();
    let workspace = shared.layout.branch(cell.id);
    shared.make_room().await?;
    let claim = claim(shared, cell).await?;
    failpoint("resume.claim");
    mounted::here(shared, cell).await?;
    let started = match cell.row().local {
        LocalData::Present { .. } => again(shared, cell, &workspace).await?,
        LocalData::None => match fresh(shared, cell, &workspace, claim.head.version).await {
            Ok(started) => started,
            Err(error) => {
                // It never served: nothing is lost, and it takes no room.
                mounted::clear(shared, cell).await?;
                release(shared, cell).await;
                return Err(error);
            }
        },
    };
    let Started { instance, queue, here } = started;
    let report = WakeReport::new(shared, &claim.head, queue, here - begun, instance.start_phases());
    Ok(Life::new(instance, shared.lease.clone(), &claim, report))
}

/// A mongod that takes commands.
struct Started {
    instance: Arc<dyn Instance>,
    /// How long its turn was waited for.
    queue: Duration,
    /// When its dbpath was there.
    here: Instant,
}

/// Starts a mongod on the writes that are here.
async fn again(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
) -> Result<Started, BranchError> {
    let here = Instant::now();
    let build = writer(shared, cell).await?;
    let (instance, queue) = shared.start_in_turn(workspace, build).await?;
    Ok(Started { instance, queue, here })
}

/// Brings a version here and starts a mongod on it.
async fn fresh(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
) -> Result<Started, BranchError> {
    let build = match shared.mounting {
        Mounting::Lazy => mount(shared, cell, workspace, version).await?,
        Mounting::Eager => restore(shared, workspace, version).await?,
    };
    failpoint("resume.restored");
    let here = Instant::now();
    let (instance, queue) = match shared.mounting {
        Mounting::Lazy => shared.start_in_turn(workspace, Some(build)).await?,
        Mounting::Eager => start_restored(shared, workspace, build).await?,
    };
    failpoint("resume.started");
    cell.update_row(shared, |row| {
        row.local = LocalData::Present { base: version, saving: None };
    })?;
    failpoint("resume.row");
    Ok(Started { instance, queue, here })
}

/// Mounts a version as the workspace's dbpath.
async fn mount(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
) -> Result<Build, BranchError> {
    let volume = shared.volumes.open(version).await?;
    let build = check_mongod(shared, volume.description()).await?;
    cell.set_mounted(Some(Mounted::fresh(shared, workspace, volume).await?));
    Ok(build)
}

/// Which mongod wrote what is here of a branch.
pub(super) async fn writer(shared: &Shared, cell: &Cell) -> Result<Option<Build>, BranchError> {
    if let Some(mounted) = cell.mounted() {
        return Ok(Some(build(&mounted.below().description().mongod)));
    }
    match cell.row().local {
        LocalData::Present { base, .. } => {
            Ok(Some(build(&shared.volumes.version(base).await?.mongod)))
        }
        LocalData::None => Ok(None),
    }
}

fn build(mongod: &MongodVersion) -> Build {
    Build { version: mongod.version.clone(), image: mongod.image.clone() }
}

/// Starts a mongod on what was just restored, and brings that to the disk meanwhile: mongod makes
/// its own writes durable, and they are worth nothing without the rest.
async fn start_restored(
    shared: &Shared,
    workspace: &Workspace,
    build: Build,
) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
    let (started, synced) =
        tokio::join!(shared.start_in_turn(workspace, Some(build)), workspace.sync());
    synced?;
    started
}

/// Makes a version the workspace's dbpath, and says which mongod wrote it.
pub(super) async fn restore(
    shared: &Shared,
    workspace: &Workspace,
    version: VersionId,
) -> Result<Build, BranchError> {
    let build = check_mongod(shared, &shared.volumes.version(version).await?).await?;
    let restoring = workspace.prepare()?;
    let restored = shared.volumes.restore(version, &restoring).await;
    match restored {
        Ok(_) => workspace.adopt(&restoring).map(|()| build),
        Err(error) => {
            workspace.discard_data()?;
            Err(error.into())
        }
    }
}

/// Refuses a version that no mongod here opens; else says which one wrote it.
async fn check_mongod(shared: &Shared, version: &Version) -> Result<Build, BranchError> {
    let build = build(&version.mongod);
    if shared.compute.opens(&build).await? {
        return Ok(build);
    }
    let server = shared.compute.mongod_version().to_owned();
    let Build { version, image } = build;
    Err(BranchError::MongodVersion { volume: version, image, server })
}
