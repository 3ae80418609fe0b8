//! From a suspended branch to a mongod that takes commands.

use std::sync::Arc;

use super::BranchError;
use super::cell::Cell;
use super::life::Life;
use super::local::Workspace;
use super::reconcile::reconcile;
use super::report::WakeReport;
use super::shared::Shared;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::volume::Head;

/// Claims the branch's next life, brings its volume here unless its working directory is here
/// already, and starts a mongod on it.
///
/// Crash points, and what the next start finds: before the claim, nothing changed; after it, the
/// epoch is one higher and nothing else; while restoring, a directory that is thrown away; after
/// the row says `Present`, a working directory that is the branch's state.
pub(super) async fn wake(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Life, BranchError> {
    let begun = tokio::time::Instant::now();
    let workspace = shared.layout.branch(cell.id);
    let (head, etag) = reconcile(shared, cell).await?;
    let head = Head { epoch: head.epoch.next(), owner: Some(shared.server), ..head };
    let etag = shared.volumes.move_head(&head, &etag).await?;
    let row = cell.update_row(shared, |row| row.epoch = head.epoch)?;
    if row.local == LocalData::None {
        restore(shared, &workspace, head.version).await?;
    }
    let restored = begun.elapsed();
    let local = LocalData::Present { base: head.version, saving: None };
    cell.update_row(shared, |row| row.local = local)?;
    match shared.start_in_turn(&workspace).await {
        Ok((instance, queue)) => {
            let report = WakeReport::new(shared, &head, queue, restored, instance.start_phases());
            Ok(Life::new(instance, head, etag, report))
        }
        Err(error) => {
            if row.local == LocalData::None {
                // Fresh from the store and never served: nothing is lost, and it takes no room.
                workspace.discard_data()?;
                cell.update_row(shared, |row| row.local = LocalData::None)?;
            }
            Err(error)
        }
    }
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
