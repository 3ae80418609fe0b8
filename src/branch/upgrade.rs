//! The move of a branch to another image: only when somebody says so.
//!
//! It is a snapshot that something follows before commands are let in again: on what the snapshot holds,
//! in a place of its own, the new image's mongod is started and stopped, and what it left becomes the
//! next version. Only when that is whole in the store does the head move to it. Until then the branch is
//! as it was, wherever it fails or the server ends: its head names the snapshot, written by the old image.

use std::sync::Arc;

use argon_admin::types::{self, Label};
use bson::doc;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::cell::Cell;
use super::claim::{Claim, writable};
use super::local::Workspace;
use super::order::{self, Refusal};
use super::reconcile::commit;
use super::shared::Shared;
use super::state::State;
use super::{BranchError, Branches, mounting, save, view};
use crate::base::blocking::blocking;
use crate::base::failpoint::failpoint;
use crate::base::ids::VersionId;
use crate::catalog::LocalData;
use crate::compute::{self, Build, Instance, OnPull};
use crate::mount::lazy::{Changes, LazyMount};
use crate::volume::{Capture, Cause, Head, MongodVersion, Version};
use crate::wire::Client;

/// Whether the data are made those of the new release for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetFcv {
    /// Yes: features of it can be used, and no older mongod opens them again.
    Yes,
    /// No: somebody does that later.
    No,
}

/// What is to follow a snapshot.
pub(super) struct Upgrade {
    pub(super) to: Build,
    pub(super) set_fcv: SetFcv,
    /// Told how it went; those who wait for the branch only wait for its end.
    pub(super) answer: oneshot::Sender<Result<VersionId, BranchError>>,
}

impl Branches {
    /// Moves a branch to another image, of the same release or of the next major one. Its present state
    /// becomes a version with a label first, and commands wait until it is over.
    ///
    /// # Errors
    /// There is no such branch or image, MongoDB does not go from the one to the other, or the new
    /// mongod does not start on the data; then the branch is as it was.
    pub async fn upgrade(
        &self,
        project: &str,
        branch: &str,
        request: types::UpgradeBranch,
        progress: OnPull<'_>,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        let to = self.shared.compute.fetch(&request.image, progress).await?;
        let set_fcv = if request.set_fcv { SetFcv::Yes } else { SetFcv::No };
        // Before anything is stopped for it.
        may_follow(&cell, &wrote(&self.shared, &cell).await?, &to)?;
        if cell.state() == State::Unsaved {
            // After a crash its own mongod must bring its data in order.
            self.resume(project, branch).await?;
        }
        let version = cell.upgrade(&self.shared, &to, set_fcv).await?;
        info!(branch = %cell.id, name = %cell.name, image = to.image, mongod = to.version,
              %version, "upgraded a branch");
        view::branch(&self.shared, &cell)
    }
}

/// What last wrote a branch: its mongod, where one runs.
async fn wrote(shared: &Shared, cell: &Cell) -> Result<MongodVersion, BranchError> {
    if let Some(life) = cell.life() {
        return Ok(save::facts(shared, &life.instance));
    }
    match cell.mounted() {
        Some(mounted) => Ok(mounted.below().description().mongod.clone()),
        None => Ok(shared.volumes.version(cell.row().head).await?.mongod),
    }
}

fn may_follow(cell: &Cell, from: &MongodVersion, to: &Build) -> Result<(), BranchError> {
    order::may_follow(from, to).map_err(refused(cell))
}

fn refused(cell: &Cell) -> impl FnOnce(Refusal) -> BranchError {
    let branch = cell.name.clone();
    move |refusal| BranchError::NoUpgrade { branch, refusal }
}

/// The label of the state before an upgrade, by which one travels back. Its tail is the version's own.
pub(super) fn label(id: VersionId) -> Result<Label, BranchError> {
    let id = id.to_string().to_ascii_lowercase();
    Ok(format!("before-upgrade-{id}").parse()?)
}

/// What follows the snapshot. The branch is whole in the store, and nothing of it runs.
pub(super) async fn follow(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    to: &Build,
    set_fcv: SetFcv,
) -> Result<VersionId, BranchError> {
    let failed = |source: BranchError| {
        let (branch, image) = (cell.name.clone(), to.image.clone().unwrap_or_default());
        BranchError::Upgrade { branch, image, source: Arc::new(source) }
    };
    let from = shared.volumes.version(cell.row().head).await?;
    // It may have been upgraded while this one waited.
    may_follow(cell, &from.mongod, to)?;
    let trial = Trial::begin(shared, cell, &from).await.map_err(failed)?;
    let version = trial.run(to, set_fcv).await.map_err(failed)?;
    failpoint("upgrade.version");
    move_head(shared, cell, &from, &version).await.map_err(failed)?;
    Ok(version.id)
}

/// A place of its own in which the new mongod is tried. Dropping it leaves nothing.
struct Trial<'a> {
    shared: &'a Arc<Shared>,
    cell: &'a Arc<Cell>,
    from: &'a Version,
    id: VersionId,
    // In the order in which they are to go.
    mount: Option<LazyMount>,
    workspace: Place,
}

/// Its directories; what cannot be removed is at the next start.
struct Place(Workspace);

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.0.discard() {
            warn!(error = error.chain(), "remove what an upgrade has left");
        }
    }
}

impl<'a> Trial<'a> {
    async fn begin(
        shared: &'a Arc<Shared>,
        cell: &'a Arc<Cell>,
        from: &'a Version,
    ) -> Result<Self, BranchError> {
        let id = VersionId::generate(shared.clock.now());
        let workspace = Place(shared.layout.seed(id));
        let mount = match shared.mounting {
            mounting::Mounting::Lazy => {
                workspace.0.prepare_mount()?;
                let volume = shared.volumes.open(from.id).await?;
                let (overlay, db) = (workspace.0.overlay(), workspace.0.db());
                let access = mounting::access(&*shared.compute);
                let make = move || LazyMount::create_for(access, volume, &overlay, &db);
                Some(blocking(make).await?)
            }
            mounting::Mounting::Eager => {
                let restoring = workspace.0.prepare()?;
                shared.volumes.restore(from.id, &restoring).await?;
                workspace.0.adopt(&restoring)?;
                None
            }
        };
        Ok(Self { shared, cell, from, id, mount, workspace })
    }

    /// Starts and stops the new mongod, and makes what it leaves a version.
    async fn run(&self, to: &Build, set_fcv: SetFcv) -> Result<Version, BranchError> {
        let (shared, db) = (self.shared, self.workspace.0.db());
        let series = order::series(&to.version).map_err(refused(self.cell))?;
        if !compute::was_stopped_cleanly(&db) {
            let branch = self.cell.name.clone();
            return Err(BranchError::NotClean { branch });
        }
        let instance =
            shared.start_with(&self.workspace.0, db.clone(), to.image.as_deref()).await?;
        let mut mongod = save::facts(shared, &instance);
        let set = match set_fcv {
            SetFcv::Yes => set_to(&instance, &series).await.map(|()| mongod.fcv = series),
            SetFcv::No => Ok(()),
        };
        let exit = instance.stop().await;
        set?;
        if !exit.is_clean() {
            return Err(BranchError::Unclean { how: exit.to_string() });
        }
        let capture = Capture {
            id: self.id,
            parent: Some(self.from.id),
            branch: Some(self.cell.id),
            cause: Cause::Suspend,
            mongod,
            label: None,
        };
        match &self.mount {
            Some(mount) => {
                let (sealed, volume) =
                    (mount.seal().await?, shared.volumes.open(self.from.id).await?);
                let changes = &*sealed as &dyn Changes;
                Ok(shared.volumes.capture_changes(&volume, changes, capture).await?.0)
            }
            None => Ok(shared.volumes.capture(&db, capture).await?),
        }
    }
}

/// Makes the data those of a release for good.
async fn set_to(instance: &Arc<dyn Instance>, series: &str) -> Result<(), BranchError> {
    let mut client = Client::connect(instance.socket()).await?;
    let mut command = doc! { "setFeatureCompatibilityVersion": series };
    // Since 7.0 it must be said that this cannot be taken back; 6.0 does not know the word.
    if series != "6.0" {
        command.insert("confirm", true);
    }
    client.command("admin", command).await?;
    Ok(())
}

/// Makes a version that is whole in the store what the branch is.
async fn move_head(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    from: &Version,
    version: &Version,
) -> Result<(), BranchError> {
    let _moving = cell.moving.lock().await;
    let Claim { head, etag, .. } = writable(shared, cell).await?;
    if head.version != from.id {
        return Err(BranchError::MovedElsewhere { branch: cell.name.clone() });
    }
    let head = Head { version: version.id, owner: None, ..head };
    // Should the answer be lost, the head is read before it is moved again.
    cell.set_claim(None);
    shared.volumes.move_head(&head, &etag).await?;
    failpoint("upgrade.head");
    commit(shared, cell, version, |row| row.local = LocalData::None)
}
