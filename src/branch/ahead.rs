//! Whether a wake gets a mongod that was started ahead, and a volume's way before it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use argon_admin::types;
use thiserror::Error;
use tracing::debug;

use super::BranchError;
use super::local::Workspace;
use super::mounted::Mounted;
use super::mounting::{self, Mounting};
use super::shared::Shared;
use super::wake::build;
use crate::base::blocking::blocking;
use crate::base::ids::VersionId;
use crate::compute::{Build, Parked};
use crate::mount::lazy::{LazyMount, Source, Template, Unfit};
use crate::pool::{ParkedMongod, Place, Terms};
use crate::volume::LazyVolume;

/// Why a wake starts a mongod of its own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Cold {
    #[error("no mongod is started ahead here")]
    Off,
    #[error("none was parked just then")]
    NoneParked,
    #[error("the volume is of mongod {volume}, and {server} is parked")]
    OtherMongod { volume: Build, server: Build },
    #[error("volumes are not mounted lazily here")]
    Eager,
    #[error("{0}")]
    Unfit(Unfit),
    #[error("the one that was parked failed: {0}")]
    Failed(String),
}

/// Where a wake's mongod comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Parked,
    Cold(Cold),
}

impl Start {
    pub(super) fn by(&self) -> types::WakeBy {
        match self {
            Self::Parked => types::WakeBy::Parked,
            Self::Cold(_) => types::WakeBy::Cold,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        self.by().as_str()
    }

    pub(super) fn why(&self) -> Option<String> {
        match self {
            Self::Parked => None,
            Self::Cold(why) => Some(why.to_string()),
        }
    }
}

/// A mongod that was let in to a volume.
pub(super) struct Admitted {
    pub(super) process: Arc<dyn Parked>,
    /// Its directories; they stay as long as the mount.
    pub(super) place: Place,
}

/// What all mongods of a server are started with.
pub(super) fn terms(shared: &Shared) -> Terms {
    Terms { cache_gb: shared.settings.cache_gb, oplog_mb: shared.settings.oplog_mb }
}

/// Begins to keep mongods parked, which start as on this volume.
pub(super) async fn open(shared: &Shared, like: VersionId) -> Result<(), BranchError> {
    if shared.mounting != Mounting::Lazy || shared.pool.size() == 0 {
        return Ok(());
    }
    let volume = shared.volumes.open(like).await?;
    match Template::of(&*volume).await {
        Ok(template) => shared.pool.open(template),
        // Branches wake without it.
        Err(error) => tracing::warn!(%error, version = %like, "no mongod can be started ahead"),
    }
    Ok(())
}

/// A parked mongod for this volume.
pub(super) async fn take(shared: &Shared, volume: &Arc<LazyVolume>) -> Result<ParkedMongod, Cold> {
    if shared.pool.status().size == 0 {
        return Err(Cold::Off);
    }
    let written_by = build(&volume.description().mongod);
    if !shared.compute.parks_for(&written_by) {
        let server = Build {
            version: shared.compute.mongod_version().to_owned(),
            image: shared.compute.image().map(str::to_owned),
        };
        return Err(Cold::OtherMongod { volume: written_by, server });
    }
    let parked = shared.pool.take(terms(shared)).ok_or(Cold::NoneParked)?;
    let suits = parked.mount().template().suits(&**volume).await.unwrap_or_else(|error| {
        debug!(%error, "compare a volume with what is parked");
        false
    });
    if suits {
        return Ok(parked);
    }
    shared.pool.give_back(parked);
    Err(Cold::Unfit(Unfit::Differs))
}

/// Mounts a version with nothing written on it, before a parked mongod where there is one that fits.
pub(super) async fn mount(
    shared: &Shared,
    workspace: &Workspace,
    volume: Arc<LazyVolume>,
    parked: Result<ParkedMongod, Cold>,
) -> Result<(LazyMount, Result<Admitted, Cold>), BranchError> {
    let (workspace, access) = (workspace.clone(), mounting::access(&*shared.compute));
    let made = blocking(move || {
        workspace.prepare_mount()?;
        let (overlay, db, log) = (workspace.overlay(), workspace.db(), workspace.log());
        let parked = match parked {
            Ok(parked) => parked,
            Err(why) => {
                let mount = LazyMount::create_for_start(access, volume, &overlay, &db)?;
                return Ok::<_, BranchError>((mount, Err((why, None))));
            }
        };
        let source: Arc<dyn Source> = volume;
        let (mount, fit) = LazyMount::create_behind(parked.mount(), source, &overlay, &db)?;
        match fit {
            Ok(()) => {
                share_log(&parked.log(), &log);
                let (process, place) = parked.admitted();
                Ok::<_, BranchError>((mount, Ok(Admitted { process, place })))
            }
            Err(unfit) => Ok((mount, Err((Cold::Unfit(unfit), Some(parked))))),
        }
    });
    let (mount, begun): (_, Result<_, (_, Option<_>)>) = made.await?;
    let begun = begun.map_err(|(why, unused)| {
        if let Some(parked) = unused {
            shared.pool.give_back(parked);
        }
        why
    });
    Ok((mount, begun))
}

/// Moves what is mounted, writes and all, before a parked mongod, where there is one that fits.
pub(super) async fn move_behind(
    shared: &Shared,
    workspace: &Workspace,
    mounted: Arc<Mounted>,
) -> Result<Result<Arc<dyn Parked>, Cold>, BranchError> {
    let parked = match take(shared, &mounted.below()).await {
        Ok(parked) => parked,
        Err(why) => return Ok(Err(why)),
    };
    let log = workspace.log();
    let moved = blocking(move || {
        Ok::<_, BranchError>(match mounted.mount.move_behind(parked.mount())? {
            Ok(()) => {
                share_log(&parked.log(), &log);
                let (process, place) = parked.admitted();
                drop(mounted.moved(place));
                Ok(process)
            }
            Err(unfit) => Err((Cold::Unfit(unfit), parked)),
        })
    });
    Ok(moved.await?.map_err(|(why, parked)| {
        shared.pool.give_back(parked);
        why
    }))
}

/// The log of a mongod that was started ahead becomes its branch's, under a second name.
fn share_log(of_parked: &Path, of_branch: &Path) {
    let removed = match fs::remove_file(of_branch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if let Err(error) = removed.and_then(|()| fs::hard_link(of_parked, of_branch)) {
        tracing::warn!(%error, log = %of_branch.display(), "the branch's log stays the old one");
    }
}
