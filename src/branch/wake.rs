//! From a suspended branch to a mongod that takes commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::BranchError;
use super::ahead::{self, Cold, Start};
use super::cell::Cell;
use super::claim::{Claim, claim, release};
use super::fresh;
use super::life::Life;
use super::local::Workspace;
use super::mounted;
use super::mounting::Mounting;
use super::report::{WakeReport, Woken};
use super::shared::Shared;
use super::steps::Steps;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::{Build, Instance, Parked};
use crate::volume::{MongodVersion, Version};

/// Claims the branch's next life, brings its volume here unless its writes are here already, and
/// starts a mongod on it.
///
/// Crash points, and what the next start finds: before the claim, nothing changed; after it, the
/// epoch is one higher and nothing else; until the row says `Present`, a directory or overlay that
/// no client wrote to, and that is thrown away; after it, one that is the branch's state.
pub(super) async fn wake(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Life, BranchError> {
    let _waking = shared.pool.wake();
    let mut steps = Steps::begin();
    let workspace = shared.layout.branch(cell.id);
    shared.make_room().await?;
    steps.done("room");
    if cell.row().local == LocalData::None && shared.mounting == Mounting::Lazy {
        let (claim, started) = fresh::wake(shared, cell, &workspace, &mut steps).await?;
        return Ok(alive(shared, cell, &claim, started, steps));
    }
    let claim = claim(shared, cell).await?;
    failpoint("resume.claim");
    mounted::here(shared, cell).await?;
    steps.done("claim");
    let version = claim.head.version;
    let started = match (cell.row().local, shared.mounting) {
        (LocalData::Present { .. }, _) => again(shared, cell, &workspace, &mut steps).await?,
        (LocalData::None, mounting) => {
            let started = match mounting {
                // What was here turned out to be saved.
                Mounting::Lazy => fresh::start(shared, cell, &workspace, version, &mut steps).await,
                Mounting::Eager => whole(shared, cell, &workspace, version, &mut steps).await,
            };
            match started {
                Ok(started) => started,
                Err(error) => {
                    // It never served: nothing is lost, and it takes no room.
                    mounted::clear(shared, cell).await?;
                    release(shared, cell).await;
                    return Err(error);
                }
            }
        }
    };
    Ok(alive(shared, cell, &claim, started, steps))
}

fn alive(shared: &Arc<Shared>, cell: &Cell, claim: &Claim, started: Started, steps: Steps) -> Life {
    if let Some(mounted) = cell.mounted() {
        mounted.mount.start_is_over();
    }
    let Started { instance, start, queue, restore } = started;
    let (mongod, done) = (instance.start_phases(), steps.finish());
    let report =
        WakeReport::new(shared, &claim.head, Woken { start, restore, queue, mongod, done });
    Life::new(instance, shared.lease.clone(), claim, report)
}

/// A mongod that takes commands.
pub(super) struct Started {
    pub(super) instance: Arc<dyn Instance>,
    pub(super) start: Start,
    /// How long its turn was waited for.
    pub(super) queue: Duration,
    /// How long it took until its dbpath was there.
    pub(super) restore: Duration,
}

impl Started {
    /// By a mongod that was started ahead.
    pub(super) fn parked(instance: Arc<dyn Instance>, restore: Duration) -> Self {
        Self { instance, start: Start::Parked, queue: Duration::ZERO, restore }
    }
}

/// Starts a mongod on the writes that are here, or lets one in to them that waits.
async fn again(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let begun = match cell.mounted() {
        Some(mounted) => ahead::move_behind(shared, workspace, mounted).await?,
        None => Err(Cold::Eager),
    };
    steps.done("mount");
    let restore = steps.so_far();
    let why = match begun {
        Ok(process) => match let_in(shared, cell, process, steps).await {
            Ok(instance) => return Ok(Started::parked(instance, restore)),
            Err(why) => why,
        },
        Err(why) => why,
    };
    // Whatever one that failed has written is as what any mongod leaves that was killed.
    let build = writer(shared, cell).await?;
    let (instance, queue) = start(shared, cell, workspace, build, steps).await?;
    Ok(Started { instance, start: Start::Cold(why), queue, restore })
}

/// Waits until a mongod that was let in is ready; nothing of it runs any more where it fails.
pub(super) async fn let_in(
    shared: &Shared,
    cell: &Cell,
    process: Arc<dyn Parked>,
    steps: &mut Steps,
) -> Result<Arc<dyn Instance>, Cold> {
    let begun = Instant::now();
    process.is_for(shared.owner(cell));
    match process.start().await {
        Ok(instance) => {
            tell(&instance, begun, steps);
            Ok(instance)
        }
        Err(error) => {
            let error = BranchError::from(error).chain();
            warn!(branch = %cell.id, name = %cell.name, error,
                  "the mongod that was started ahead failed: starting another");
            shared.metrics.parked_lost();
            steps.done("failed_start");
            Err(Cold::Failed(error))
        }
    }
}

/// Starts a mongod on what is here, in its turn.
pub(super) async fn start(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    written_by: Option<Build>,
    steps: &mut Steps,
) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
    let dbpath = match cell.mounted() {
        Some(mounted) => mounted.mount.mountpoint(),
        None => workspace.db(),
    };
    let asked = Instant::now();
    let (instance, queue) = shared.start_in_turn(workspace, dbpath, written_by).await?;
    steps.split("queue", asked + queue);
    tell(&instance, asked + queue, steps);
    Ok((instance, queue))
}

/// The two steps of a mongod's start.
fn tell(instance: &Arc<dyn Instance>, begun: Instant, steps: &mut Steps) {
    let phases = instance.start_phases();
    steps.split("mongod_start", begun + phases.listening);
    steps.done("primary");
}

/// Brings all of a version here and starts a mongod on it.
async fn whole(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let build = restore(shared, workspace, version).await?;
    steps.done("restore");
    failpoint("resume.restored");
    let restore = steps.so_far();
    let (instance, queue) = start_restored(shared, cell, workspace, build, steps).await?;
    failpoint("resume.started");
    is_here(shared, cell, version)?;
    steps.done("row");
    failpoint("resume.row");
    Ok(Started { instance, start: Start::Cold(Cold::Eager), queue, restore })
}

/// From now on what is on this machine is the branch's state.
pub(super) fn is_here(shared: &Shared, cell: &Cell, base: VersionId) -> Result<(), BranchError> {
    let local = LocalData::Present { base, saving: None };
    cell.update_row(shared, |row| row.local = local).map(drop)
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

/// What a version says of the mongod that wrote it.
pub(super) fn build(mongod: &MongodVersion) -> Build {
    Build { version: mongod.version.clone(), image: mongod.image.clone() }
}

/// Starts a mongod on what was just restored, and brings that to the disk meanwhile: mongod makes
/// its own writes durable, and they are worth nothing without the rest.
async fn start_restored(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    build: Build,
    steps: &mut Steps,
) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
    let (started, synced) =
        tokio::join!(start(shared, cell, workspace, Some(build), steps), workspace.sync());
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
pub(super) async fn check_mongod(shared: &Shared, version: &Version) -> Result<Build, BranchError> {
    let build = build(&version.mongod);
    if shared.compute.opens(&build).await? {
        return Ok(build);
    }
    let server = shared.compute.mongod_version().to_owned();
    let Build { version, image } = build;
    Err(BranchError::MongodVersion { volume: version, image, server })
}
