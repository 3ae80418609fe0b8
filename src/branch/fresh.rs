//! The wake of a branch that sleeps whole in the store, on a lazy mount.
//!
//! A mongod on a mount that nothing was written to is nobody's: it may begin before the branch is
//! claimed. So the claim, the mount and mongod's start go side by side, and only what must wait for
//! another does: the row says `Present` when the branch is claimed and its overlay is on the disk, and
//! commands are let in when all of it is done.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::BranchError;
use super::ahead::{self, Cold, Start};
use super::cell::Cell;
use super::claim::{Claim, claim, release};
use super::local::Workspace;
use super::mounted::{self, Mounted};
use super::shared::Shared;
use super::steps::Steps;
use super::wake::{Started, build, check_mongod, is_here, let_in, start as start_cold};
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::Parked;
use crate::volume::LazyVolume;

/// Claims the branch, and meanwhile starts a mongod on the version that this server knows as its
/// newest, which it is unless another server had the branch since.
pub(super) async fn wake(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    workspace: &Workspace,
    steps: &mut Steps,
) -> Result<(Claim, Started), BranchError> {
    let guess = cell.row().head;
    let (mounted, is_mounted) = oneshot::channel();
    let begun = Instant::now();
    let given_up = CancellationToken::new();
    let claiming = async {
        let claim = claim(shared, cell).await.inspect_err(|_| given_up.cancel())?;
        failpoint("resume.claim");
        let claimed = begun.elapsed();
        // Where it is not mounted, or not the head, it is nothing.
        if claim.head.version == guess && is_mounted.await.is_ok() {
            is_mounted_here(shared, cell, guess).await?;
        }
        failpoint("resume.row");
        Ok::<_, BranchError>((claim, claimed))
    };
    let beside = Beside { mounted, given_up: &given_up };
    let starting = mount_and_start(shared, cell, workspace, guess, steps, Some(beside));
    // Neither is dropped when the other fails: what it began must be known to be taken back.
    let (claimed, started) = tokio::join!(claiming, starting);
    let (claim, claimed) = match claimed {
        Ok(claimed) => claimed,
        Err(error) => {
            take_back(shared, cell, started.ok()).await?;
            return Err(error);
        }
    };
    let version = claim.head.version;
    let started = match started {
        started if version != guess => {
            warn!(branch = %cell.id, name = %cell.name, "its head was moved elsewhere: waking that");
            take_back(shared, cell, started.ok()).await?;
            start(shared, cell, workspace, version, steps).await
        }
        Ok(started) => {
            steps.done("claimed");
            steps.beside("claim", claimed);
            failpoint("resume.started");
            Ok(started)
        }
        Err(error) => Err(error),
    };
    match started {
        Ok(started) => Ok((claim, started)),
        Err(error) => {
            take_back(shared, cell, None).await?;
            release(shared, cell).await;
            Err(error)
        }
    }
}

/// A claim that is made while a mongod starts.
struct Beside<'a> {
    /// To be told when the overlay is there.
    mounted: oneshot::Sender<()>,
    /// The claim has failed.
    given_up: &'a CancellationToken,
}

/// Brings a version here that the branch is claimed with, and starts a mongod on it.
pub(super) async fn start(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let started = mount_and_start(shared, cell, workspace, version, steps, None).await?;
    failpoint("resume.started");
    is_mounted_here(shared, cell, version).await?;
    steps.done("row");
    failpoint("resume.row");
    Ok(started)
}

/// The branch's state is the overlay from now on, which must be found for that.
async fn is_mounted_here(
    shared: &Shared,
    cell: &Cell,
    version: VersionId,
) -> Result<(), BranchError> {
    if let Some(mounted) = cell.mounted() {
        mounted.mount.persist().await?;
    }
    is_here(shared, cell, version)
}

/// Ends what was begun. It never served: nothing is lost, and it takes no room.
async fn take_back(
    shared: &Shared,
    cell: &Cell,
    started: Option<Started>,
) -> Result<(), BranchError> {
    if let Some(started) = started {
        started.instance.kill().await;
    }
    if cell.row().local != LocalData::None {
        // First, for without its overlay a row that says `Present` means one that was lost.
        cell.update_row(shared, |row| row.local = LocalData::None)?;
    }
    mounted::clear(shared, cell).await
}

/// Mounts a version as a dbpath, and starts a mongod on it unless a claim beside it fails.
async fn mount_and_start(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
    steps: &mut Steps,
    beside: Option<Beside<'_>>,
) -> Result<Started, BranchError> {
    let volume = shared.volumes.open(version).await?;
    check_mongod(shared, volume.description()).await?;
    steps.done("open");
    let parked = ahead::take(shared, &volume).await;
    steps.done("take");
    let (mounted, begun) = Mounted::fresh(shared, workspace, volume.clone(), parked).await?;
    cell.set_mounted(Some(mounted));
    steps.done("mount");
    failpoint("resume.restored");
    let start = start_on(shared, cell, workspace, volume, begun, steps);
    let Some(Beside { mounted, given_up }) = beside else { return start.await };
    // Nobody listens where the claim has failed already.
    let _ = mounted.send(());
    tokio::select! {
        started = start => started,
        // What is dropped with it ends. The claim says why.
        () = given_up.cancelled() => Err(BranchError::Closing),
    }
}

/// Lets in the mongod that waits before a mount, or starts one.
async fn start_on(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    volume: Arc<LazyVolume>,
    begun: Result<Arc<dyn Parked>, Cold>,
    steps: &mut Steps,
) -> Result<Started, BranchError> {
    let (restore, build) = (steps.so_far(), build(&volume.description().mongod));
    let why = match begun {
        Ok(process) => match let_in(shared, cell, process, steps).await {
            Ok(instance) => return Ok(Started::parked(instance, restore)),
            Err(why) => {
                // Nobody was served by it: another begins with nothing that it wrote.
                mounted::clear(shared, cell).await?;
                let cold = Err(why.clone());
                let (mounted, _) = Mounted::fresh(shared, workspace, volume, cold).await?;
                // The row may say already that it is there.
                mounted.mount.persist().await?;
                cell.set_mounted(Some(mounted));
                steps.done("mount");
                why
            }
        },
        Err(why) => why,
    };
    let (instance, queue) = start_cold(shared, cell, workspace, Some(build), steps).await?;
    Ok(Started { instance, start: Start::Cold(why), queue, restore })
}
