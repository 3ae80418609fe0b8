//! How a server turns volumes into dbpaths: decided once, when it starts.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::{info, warn};

use super::BranchError;
use super::error::chain;
use crate::base::blocking::blocking;
use crate::base::clock::Clock;
use crate::base::limits::{MountKind, Mounts};
use crate::compute::{Compute, ComputeError, User};
use crate::mount::lazy::{self, Access};
use crate::store::Store;
use crate::volume::{BlockCache, Volumes};

/// How a volume becomes a dbpath here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounting {
    /// At once: blocks come when they are read.
    Lazy,
    /// As a plain directory, with every block.
    Eager,
}

impl Mounting {
    /// In a few words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Lazy => "mounted lazily",
            Self::Eager => "restored whole",
        }
    }
}

/// Tries what the host allows, and takes the best of what is wished for.
///
/// # Errors
/// Lazy mounts are wished for and do not work here.
pub(super) async fn choose(
    kind: MountKind,
    data_dir: &Path,
    compute: &Arc<dyn Compute>,
) -> Result<Mounting, BranchError> {
    if kind == MountKind::Eager {
        return Ok(Mounting::Eager);
    }
    let place = data_dir.join("tmp");
    let (access, compute, runtime) = (access(&**compute), compute.clone(), Handle::current());
    let look = move |file: &Path| {
        let looked = runtime.block_on(compute.look_at(file));
        looked.map_err(|error: ComputeError| chain(&error))
    };
    match blocking(move || lazy::probe(&place, access, &look)).await {
        Ok(()) => {
            info!("FUSE works: branches wake without waiting for their data");
            Ok(Mounting::Lazy)
        }
        Err(error) if kind == MountKind::Lazy => Err(error.into()),
        Err(error) => {
            let error = BranchError::from(error);
            warn!("no lazy mounts, branches are restored whole when they wake: {}", error.chain());
            Ok(Mounting::Eager)
        }
    }
}

/// Who must be able to use mounts, so that mongods run on them.
pub(super) fn access(compute: &dyn Compute) -> Access {
    match compute.user() {
        Some(User { uid, gid }) => Access::Everybody { user: uid, group: gid },
        None => Access::Server,
    }
}

/// The volumes of the store, and a cache of their blocks where mounts read them one by one.
pub(super) fn volumes(
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    mounting: Mounting,
    mounts: &Mounts,
    data_dir: &Path,
) -> (Volumes, Option<Arc<BlockCache>>) {
    let volumes = Volumes::new(store.clone(), clock.clone());
    if mounting == Mounting::Eager || mounts.cache_bytes == 0 {
        return (volumes, None);
    }
    match BlockCache::open(&data_dir.join("cache"), mounts.cache_bytes) {
        Ok(cache) => {
            let cache = Arc::new(cache);
            (volumes.with_cache(cache.clone()), Some(cache))
        }
        Err(error) => {
            // It only makes reads faster.
            warn!(%error, "no local cache of blocks");
            (volumes, None)
        }
    }
}
