//! From a suspended branch to a mongod that takes commands.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::BranchError;
use super::cell::Cell;
use super::life::Life;
use super::local::Workspace;
use super::reconcile::reconcile;
use super::shared::Shared;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::Instance;
use crate::volume::Head;

/// Claims the branch's next life, brings its volume here unless its working directory is here
/// already, and starts a mongod on it.
///
/// Crash points, and what the next start finds: before the claim, nothing changed; after it, the
/// epoch is one higher and nothing else; until the row says `Present`, a directory that no client
/// wrote to, and that is thrown away; after it, a directory that is the branch's state.
pub(super) async fn wake(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Life, BranchError> {
    let begun = Instant::now();
    let workspace = shared.layout.branch(cell.id);
    let (head, etag) = reconcile(shared, cell).await?;
    let head = Head { epoch: head.epoch.next(), owner: Some(shared.server), ..head };
    let etag = shared.volumes.move_head(&head, &etag).await?;
    let local = LocalData::Present { base: head.version, saving: None };
    let row = cell.update_row(shared, |row| {
        row.epoch = head.epoch;
        if row.local != LocalData::None {
            row.local = local;
        }
    })?;
    let instance = match row.local {
        LocalData::Present { .. } => shared.start(&workspace).await?,
        LocalData::None => {
            restore(shared, &workspace, head.version).await?;
            info!(branch = %cell.id, name = %cell.name, ms = millis(begun), "restored");
            match start_fresh(shared, &workspace).await {
                Ok(instance) => instance,
                Err(error) => {
                    // It never served: nothing is lost, and it takes no room.
                    workspace.discard_data()?;
                    return Err(error);
                }
            }
        }
    };
    cell.update_row(shared, |row| row.local = local)?;
    info!(branch = %cell.id, name = %cell.name, epoch = %head.epoch, ms = millis(begun), "awake");
    Ok(Life::new(instance, head, etag))
}

/// Starts a mongod on what was just restored, and brings that to the disk meanwhile: mongod makes
/// its own writes durable, and they are worth nothing without the rest.
async fn start_fresh(
    shared: &Shared,
    workspace: &Workspace,
) -> Result<Arc<dyn Instance>, BranchError> {
    let (started, synced) = tokio::join!(shared.start(workspace), workspace.sync());
    synced?;
    started
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
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
