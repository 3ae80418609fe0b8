//! From what a lazy mount holds to a version that the head names.
//!
//! One at a time for each branch ([`Cell::uploading`]), whether its mongod runs or not. Steps, and
//! what a crash after each leaves: ARCHITECTURE.md, "What is uploaded, and when".

use std::sync::Arc;

use argon_admin::types::Label;
use tracing::{info, warn};

use super::cell::Cell;
use super::claim::{Claim, refreshed, writable};
use super::mounted::{self, Mounted};
use super::reconcile::{commit, reconcile};
use super::save::Saved;
use super::shared::Shared;
use super::{BranchError, history};
use crate::base::failpoint::failpoint;
use crate::base::ids::{BranchId, VersionId};
use crate::base::metrics::While;
use crate::catalog::LocalData;
use crate::mount::lazy::Changes;
use crate::volume::{Capture, Cause, Head, MongodVersion, Version, VolumeError};

/// What a version is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) id: VersionId,
    pub(super) cause: Cause,
    pub(super) label: Option<Label>,
    pub(super) need: Need,
}

/// Whether a version is made where nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// No: the one below says it all.
    IfChanged,
    /// Yes: somebody asked for it.
    Always,
}

impl Wish {
    pub(super) fn new(shared: &Shared, cause: Cause) -> Self {
        let id = VersionId::generate(shared.clock.now());
        Self { id, cause, label: None, need: Need::IfChanged }
    }
}

/// Makes a version, moves the head to it, and, where the branch still sleeps then, gives the branch
/// back and clears this machine. Gives the version, which holds all that was written when this began;
/// `None` where nothing is mounted, since another one saved it all while this one waited for its turn.
/// To be awaited to its end: left in the middle it may have begun to give the branch back.
///
/// # Errors
/// The label is taken. Or what could not be done; then everything that was written is still here,
/// and the branch knows.
pub(super) async fn upload(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    wish: Wish,
) -> Result<Option<VersionId>, BranchError> {
    let _turn = cell.uploading.lock().await;
    if let Some(label) = &wish.label {
        history::check_free(shared, &cell.row(), label)?;
    }
    let Some(mounted) = cell.mounted() else { return Ok(None) };
    let (mut next, mut first) = (wish, None);
    loop {
        let made = make(shared, cell, &mounted, next).await;
        let made = made.map_err(|error| cell.upload_failed(shared, error))?;
        let first = *first.get_or_insert(made);
        match cell.uploaded(shared, &mounted) {
            Uploaded::Whole => {
                // It sleeps, and nobody can wake it now: what comes is short. The branch is told of a
                // failure with the end of it.
                let settled = settle(shared, cell, &mounted).await.map(|()| Saved::Whole);
                cell.saved(shared, settled)?;
                return Ok(Some(first));
            }
            Uploaded::InPart => next = Wish::new(shared, Cause::Suspend),
            Uploaded::Awake => {
                let published = publish(shared, cell, &mounted, Owner::Stays).await;
                published.map_err(|error| cell.upload_failed(shared, error))?;
                cell.caught_up();
                return Ok(Some(first));
            }
        }
    }
}

/// How a branch stands when its mount was uploaded as it was at the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// It sleeps, and nothing was written since.
    Whole,
    /// It sleeps, and wrote between the seal and its sleep.
    InPart,
    /// It runs, or something else happens to it.
    Awake,
}

/// Seals the mount, stores what changed, and puts the new version below the mount. The version that
/// is below afterwards holds everything up to the seal.
pub(super) async fn make(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    mounted: &Mounted,
    wish: Wish,
) -> Result<VersionId, BranchError> {
    // Or two versions would wait for the head, and only the later would ever be named by it.
    if mounted.pending().is_some() {
        publish(shared, cell, mounted, Owner::Stays).await?;
    }
    let below = mounted.below();
    if wish.need == Need::IfChanged && !mounted.mount.is_changed() {
        return Ok(below.description().id);
    }
    let begun = tokio::time::Instant::now();
    let sealed = mounted.mount.seal().await?;
    let doing = if cell.life().is_some() { While::Running } else { While::Asleep };
    shared.metrics.sealed(doing, sealed.pause());
    failpoint("suspend.sealed");
    cell.update_row(shared, |row| {
        if let LocalData::Present { base, .. } = row.local {
            row.local = LocalData::Present { base, saving: Some(wish.id) };
        }
    })?;
    let mongod = mongod(shared, cell, &below.description().mongod);
    let capture = Capture {
        id: wish.id,
        parent: Some(below.description().id),
        branch: Some(cell.id),
        cause: wish.cause,
        mongod,
        label: wish.label.as_ref().map(Label::to_string),
    };
    let changed: usize =
        (0..sealed.tree().files().len()).map(|file| sealed.changed(file).len()).sum();
    let (version, volume) =
        shared.volumes.capture_changes(&below, &*sealed as &dyn Changes, capture).await?;
    failpoint("suspend.version");
    mounted.mount.rebase(&sealed, volume.clone()).await?;
    failpoint("suspend.rebased");
    info!(branch = %cell.id, name = %cell.name, version = %version.id, cause = %version.cause,
          pause_us = sealed.pause().as_micros() as u64,
          save_ms = begun.elapsed().as_millis() as u64, changed_blocks = changed,
          new_bytes = version.new_bytes, stored_bytes = version.stored_bytes, "uploaded");
    mounted.rebased(volume, version);
    Ok(wish.id)
}

/// Makes a version of what is here and that another branch is to have; nothing of this branch moves.
pub(super) async fn make_for(
    shared: &Shared,
    mounted: &Mounted,
    id: VersionId,
    branch: BranchId,
) -> Result<Version, BranchError> {
    let below = mounted.below();
    let sealed = mounted.mount.seal().await?;
    let capture = Capture {
        id,
        parent: Some(below.description().id),
        branch: Some(branch),
        cause: Cause::Recovery,
        mongod: below.description().mongod.clone(),
        label: None,
    };
    let captured = shared.volumes.capture_changes(&below, &*sealed as &dyn Changes, capture).await;
    Ok(captured?.0)
}

/// Whose files these are: of the mongod that runs on them, or of the last one that did.
fn mongod(shared: &Shared, cell: &Cell, below: &MongodVersion) -> MongodVersion {
    match cell.life() {
        Some(life) => super::save::facts(shared, &life.instance),
        None => below.clone(),
    }
}

/// What becomes of the head's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This server goes on with the branch.
    Stays,
    /// The branch sleeps.
    Leaves,
}

/// Moves the head to the version below, if it does not name that yet or is to be given back.
pub(super) async fn publish(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    mounted: &Mounted,
    owner: Owner,
) -> Result<(), BranchError> {
    let pending = mounted.pending();
    if pending.is_none() && owner == Owner::Stays {
        return Ok(());
    }
    let moving = cell.moving.lock().await;
    let version = pending.as_ref().map(|pending| pending.id);
    let to = |head: Head| Head {
        version: version.unwrap_or(head.version),
        owner: (owner == Owner::Stays).then_some(shared.server),
        ..head
    };
    let claim = writable(shared, cell).await?;
    if owner == Owner::Leaves {
        // Should the answer be lost, the branch may be anybody's: then it is not woken from here
        // before the head was read.
        cell.set_claim(None);
    }
    let Claim { head, etag, term } = claim;
    let mut head = to(head);
    let etag = match shared.volumes.move_head(&head, &etag).await {
        // Perhaps by this server, whose own answer was lost.
        Err(VolumeError::Fenced { .. }) => {
            let now = match owner {
                Owner::Stays => refreshed(shared, cell).await?,
                Owner::Leaves => reconcile(shared, cell).await?,
            };
            head = to(now.head);
            shared.volumes.move_head(&head, &now.etag).await?
        }
        moved => moved?,
    };
    failpoint("suspend.head");
    let local = match owner {
        Owner::Stays => {
            let base = head.version;
            cell.set_claim(Some(Claim { head, etag, term }));
            LocalData::Present { base, saving: None }
        }
        Owner::Leaves => LocalData::None,
    };
    match &pending {
        Some(version) => commit(shared, cell, version, |row| row.local = local)?,
        None => drop(cell.update_row(shared, |row| row.local = local)?),
    }
    drop(moving);
    failpoint("suspend.row");
    if let Some(version) = version {
        mounted.published(version);
    }
    Ok(())
}

/// Gives a sleeping branch back, whole, and clears this machine of it.
pub(super) async fn settle(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    mounted: &Mounted,
) -> Result<(), BranchError> {
    publish(shared, cell, mounted, Owner::Leaves).await?;
    // Left behind, it would only take room until the next wake.
    if let Err(error) = mounted::clear(shared, cell).await {
        warn!(branch = %cell.id, error = error.chain(), "clear the working directory");
    }
    failpoint("suspend.clear");
    Ok(())
}
