//! From a suspended branch to a mongod that takes commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::BranchError;
use super::ahead::{self, Cold, Start};
use super::cell::Cell;
use super::claim::{claim, release};
use super::life::Life;
use super::local::Workspace;
use super::mounted::{self, Mounted};
use super::mounting::Mounting;
use super::report::{WakeReport, Woken};
use super::shared::Shared;
use super::steps::Steps;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::Instance;
use crate::volume::Version;

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
    let claim = claim(shared, cell).await?;
    failpoint("resume.claim");
    mounted::here(shared, cell).await?;
    steps.done("claim");
    let started = match cell.row().local {
        LocalData::Present { .. } => again(shared, cell, &workspace, &mut steps).await?,
        LocalData::None => {
            match fresh(shared, cell, &workspace, claim.head.version, &mut steps).await {
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
    let (instance, woken) = (started.instance.clone(), started.woken(steps));
    let report = WakeReport::new(shared, &claim.head, woken);
    Ok(Life::new(instance, shared.lease.clone(), &claim, report))
}

/// A mongod that takes commands.
struct Started {
    instance: Arc<dyn Instance>,
    start: Start,
    /// How long its turn was waited for.
    queue: Duration,
    /// How long it took until its dbpath was there.
    restore: Duration,
}

impl Started {
    fn woken(self, steps: Steps) -> Woken {
        let Self { instance, start, queue, restore } = self;
        Woken { start, restore, queue, mongod: instance.start_phases(), steps: steps.into_list() }
    }
}

/// Starts a mongod on the writes that are here.
async fn again(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let restore = steps.so_far();
    let (instance, queue) = start(shared, cell, workspace, steps).await?;
    Ok(Started { instance, start: Start::Cold(Cold::Mounted), queue, restore })
}

/// Starts a mongod on what is here, in its turn.
async fn start(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    steps: &mut Steps,
) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
    let dbpath = match cell.mounted() {
        Some(mounted) => mounted.mount.mountpoint().to_owned(),
        None => workspace.db(),
    };
    let asked = Instant::now();
    let (instance, queue) = shared.start_in_turn(workspace, dbpath).await?;
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

/// Brings a version here and starts a mongod on it.
async fn fresh(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let started = match shared.mounting {
        Mounting::Lazy => mount_and_start(shared, cell, workspace, version, steps).await?,
        Mounting::Eager => {
            restore(shared, workspace, version).await?;
            steps.done("restore");
            failpoint("resume.restored");
            let restore = steps.so_far();
            let (instance, queue) = start_restored(shared, cell, workspace, steps).await?;
            Started { instance, start: Start::Cold(Cold::Off), queue, restore }
        }
    };
    failpoint("resume.started");
    cell.update_row(shared, |row| {
        row.local = LocalData::Present { base: version, saving: None };
    })?;
    steps.done("row");
    failpoint("resume.row");
    Ok(started)
}

/// Mounts a version as a dbpath, and lets in the mongod that waits for that, or starts one.
async fn mount_and_start(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let volume = shared.volumes.open(version).await?;
    check_mongod(shared, volume.description())?;
    steps.done("open");
    let parked = ahead::take(shared, &volume).await;
    steps.done("take");
    let (mounted, begun) = Mounted::fresh(shared, workspace, volume.clone(), parked).await?;
    cell.set_mounted(Some(mounted));
    steps.done("mount");
    failpoint("resume.restored");
    let restore = steps.so_far();
    let why = match begun {
        Ok(process) => {
            let admitted = Instant::now();
            match process.start().await {
                Ok(instance) => {
                    tell(&instance, admitted, steps);
                    let (start, queue) = (Start::Parked, Duration::ZERO);
                    return Ok(Started { instance, start, queue, restore });
                }
                Err(error) => {
                    let error = BranchError::from(error).chain();
                    warn!(branch = %cell.id, name = %cell.name, error,
                          "the mongod that was started ahead failed: starting another");
                    shared.metrics.parked_lost();
                    // Nobody was served by it.
                    mounted::clear(shared, cell).await?;
                    let why = Cold::Failed(error);
                    let cold = Err(why.clone());
                    let (mounted, _) = Mounted::fresh(shared, workspace, volume, cold).await?;
                    cell.set_mounted(Some(mounted));
                    steps.done("failed_start");
                    why
                }
            }
        }
        Err(why) => why,
    };
    let (instance, queue) = start(shared, cell, workspace, steps).await?;
    Ok(Started { instance, start: Start::Cold(why), queue, restore })
}

/// Starts a mongod on what was just restored, and brings that to the disk meanwhile: mongod makes
/// its own writes durable, and they are worth nothing without the rest.
async fn start_restored(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    steps: &mut Steps,
) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
    let (started, synced) =
        tokio::join!(start(shared, cell, workspace, steps), workspace.sync());
    synced?;
    started
}

/// Makes a version the workspace's dbpath.
pub(super) async fn restore(
    shared: &Shared,
    workspace: &Workspace,
    version: VersionId,
) -> Result<(), BranchError> {
    check_mongod(shared, &shared.volumes.version(version).await?)?;
    let restoring = workspace.prepare()?;
    let restored = shared.volumes.restore(version, &restoring).await;
    match restored {
        Ok(_) => workspace.adopt(&restoring),
        Err(error) => {
            workspace.discard_data()?;
            Err(error.into())
        }
    }
}

/// Only the series of mongod that wrote a volume opens it: a newer one would change it for good, an
/// older one fails.
fn check_mongod(shared: &Shared, version: &Version) -> Result<(), BranchError> {
    let volume = version.mongod.version.clone();
    let server = shared.compute.mongod_version();
    if series(&volume) == series(server) {
        Ok(())
    } else {
        Err(BranchError::MongodVersion { volume, server: server.to_owned() })
    }
}

/// "6.0" of "6.0.5".
fn series(version: &str) -> Vec<&str> {
    version.split('.').take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_first_two_numbers() {
        assert_eq!(series("6.0.5"), series("6.0.19-rc1"));
        assert_ne!(series("6.0.5"), series("6.1.0"));
        assert_ne!(series("6.0.5"), series("16.0.5"));
    }
}
