//! From a suspended branch to a mongod that takes commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::BranchError;
use super::cell::Cell;
use super::claim::{claim, release};
use super::life::Life;
use super::local::Workspace;
use super::report::WakeReport;
use super::shared::Shared;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::Instance;

/// Claims the branch's next life, brings its volume here unless its working directory is here
/// already, and starts a mongod on it.
///
/// Crash points, and what the next start finds: before the claim, nothing changed; after it, the
/// epoch is one higher and nothing else; until the row says `Present`, a directory that no client
/// wrote to, and that is thrown away; after it, a directory that is the branch's state.
pub(super) async fn wake(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Life, BranchError> {
    let begun = Instant::now();
    let workspace = shared.layout.branch(cell.id);
    let claim = claim(shared, cell).await?;
    failpoint("resume.claim");
    let mut restored = begun.elapsed();
    let (instance, queue) = match cell.row().local {
        LocalData::Present { .. } => shared.start_in_turn(&workspace).await?,
        LocalData::None => match fresh(shared, cell, &workspace, claim.head.version).await {
            Ok((instance, queue, done)) => {
                restored = done - begun;
                (instance, queue)
            }
            Err(error) => {
                // It never served: nothing is lost, and it takes no room.
                workspace.discard_data()?;
                release(shared, cell).await;
                return Err(error);
            }
        },
    };
    let report = WakeReport::new(shared, &claim.head, queue, restored, instance.start_phases());
    Ok(Life::new(instance, shared.lease.clone(), &claim, report))
}

/// Brings a version here and starts a mongod on it. Gives that, how long its turn was waited for,
/// and when the version was here.
async fn fresh(
    shared: &Shared,
    cell: &Cell,
    workspace: &Workspace,
    version: VersionId,
) -> Result<(Arc<dyn Instance>, Duration, Instant), BranchError> {
    restore(shared, workspace, version).await?;
    failpoint("resume.restored");
    let restored = Instant::now();
    let (instance, queue) = start_fresh(shared, workspace).await?;
    failpoint("resume.started");
    cell.update_row(shared, |row| {
        row.local = LocalData::Present { base: version, saving: None };
    })?;
    failpoint("resume.row");
    Ok((instance, queue, restored))
}

/// Starts a mongod on what was just restored, and brings that to the disk meanwhile: mongod makes
/// its own writes durable, and they are worth nothing without the rest.
async fn start_fresh(
    shared: &Shared,
    workspace: &Workspace,
) -> Result<(Arc<dyn Instance>, Duration), BranchError> {
    let (started, synced) = tokio::join!(shared.start_in_turn(workspace), workspace.sync());
    synced?;
    started
}

/// Makes a version the workspace's dbpath.
pub(super) async fn restore(
    shared: &Shared,
    workspace: &Workspace,
    version: VersionId,
) -> Result<(), BranchError> {
    check_mongod(shared, version).await?;
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
async fn check_mongod(shared: &Shared, version: VersionId) -> Result<(), BranchError> {
    let volume = shared.volumes.version(version).await?.mongod.version;
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
