//! A mount and its overlay, as the rooms above see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::fetch::Fetcher;
use super::fs::Served;
use super::log::Reading;
use super::overlay::{Overlay, Usage};
use super::seal::Sealed;
use super::session::{Access, Mounted, Tuning};
use super::start::Durable;
use super::{Source, recover};
use crate::base::blocking::blocking;
use crate::base::ids::VersionId;
use crate::mount::MountError;

/// A version of a volume, mounted for one mongod to read and write. Dropping it unmounts.
#[derive(Debug)]
pub struct LazyMount {
    pub(super) overlay: Arc<Overlay>,
    pub(super) site: Arc<Site>,
}

/// Where a volume is mounted, and was last.
#[derive(Debug)]
pub(super) struct Site {
    at: Mutex<(Option<Arc<Mounted>>, PathBuf)>,
    /// Held by whoever moves it elsewhere, and by who needs it to stay.
    moving: Mutex<()>,
}

impl Site {
    /// It is not moved as long as this is held.
    pub(super) fn stay(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> MutexGuard<'_, (Option<Arc<Mounted>>, PathBuf)> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mounted(&self) -> Option<Arc<Mounted>> {
        self.at().0.clone()
    }

    pub(super) fn take(&self) -> Option<Arc<Mounted>> {
        self.at().0.take()
    }

    pub(super) fn set(&self, mounted: Arc<Mounted>) {
        let mountpoint = mounted.mountpoint().to_owned();
        *self.at() = (Some(mounted), mountpoint);
    }
}

/// Which version an overlay that was found stands on.
///
/// [`MountError::Damaged`] where its log is missing or cannot be read.
pub fn overlay_version(overlay: &Path, reading: Reading) -> Result<VersionId, MountError> {
    recover::version(overlay, reading)
}

impl LazyMount {
    /// Mounts a version for `access` with a fresh overlay, a directory that is empty or not there yet;
    /// it is on the disk when this returns. The mount point is made where it is not there. Blocks; call
    /// it on a runtime or on one of its blocking threads, as blocks are fetched by its tasks.
    pub fn create(
        access: Access,
        source: Arc<dyn Source>,
        overlay: &Path,
        mountpoint: &Path,
    ) -> Result<Self, MountError> {
        let overlay = Overlay::create(source, overlay, Durable::AtOnce)?;
        Self::mount(overlay, mountpoint, Tuning::of(access))
    }

    /// The same for a mongod that is to start. Nothing is on the disk when this returns: see
    /// [`Self::persist`] and [`Self::start_is_over`].
    pub fn create_for_start(
        access: Access,
        source: Arc<dyn Source>,
        overlay: &Path,
        mountpoint: &Path,
    ) -> Result<Self, MountError> {
        let overlay = Overlay::create(source, overlay, Durable::AfterStart)?;
        Self::mount(overlay, mountpoint, Tuning::of(access))
    }

    /// Mounts an overlay that was left behind, on the version that [`overlay_version`] names. What
    /// was synced is there; of the rest what reached the disk. [`MountError::Damaged`] where
    /// something is not there that was synced. Else as [`Self::create`].
    pub fn recover(
        access: Access,
        source: Arc<dyn Source>,
        overlay: &Path,
        mountpoint: &Path,
        reading: Reading,
    ) -> Result<Self, MountError> {
        let overlay = Overlay::recover(source, overlay, reading)?;
        Self::mount(overlay, mountpoint, Tuning::of(access))
    }

    pub(super) fn mount(
        overlay: Overlay,
        mountpoint: &Path,
        tuning: Tuning,
    ) -> Result<Self, MountError> {
        let overlay = Arc::new(overlay);
        let fetcher = Fetcher::new(overlay.clone(), Handle::current());
        let mounted = Mounted::new(Served::new(fetcher, None, tuning), mountpoint, tuning)?;
        Ok(Self::over(overlay, Arc::new(mounted)))
    }

    pub(super) fn over(overlay: Arc<Overlay>, mounted: Arc<Mounted>) -> Self {
        let at = (Some(mounted.clone()), mounted.mountpoint().to_owned());
        let site = Site { at: at.into(), moving: Mutex::default() };
        Self { overlay, site: site.into() }
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> PathBuf {
        self.site.at().1.clone()
    }

    /// Whether anything differs from the version below. What the kernel has not written back yet
    /// does not count.
    pub fn is_changed(&self) -> bool {
        self.overlay.is_changed()
    }

    /// Whether the mount is there and answers.
    pub fn is_serving(&self) -> bool {
        self.site.mounted().is_some_and(|mounted| mounted.is_served())
    }

    /// What the overlay takes. Blocks: it looks at each of its files.
    pub fn usage(&self) -> Result<Usage, MountError> {
        self.overlay.usage()
    }

    /// mongod has started and answered its first queries: what is read from now on is not part of a
    /// start.
    pub fn boot_done(&self) {
        self.overlay.boot.done();
    }

    /// Returns when it is on the disk that there is an overlay. Found again before
    /// [`Self::start_is_over`], it is one that nothing was written to.
    pub async fn persist(&self) -> Result<(), MountError> {
        let overlay = self.overlay.clone();
        blocking(move || {
            let failed = MountError::io("put on the disk", &overlay.directory);
            overlay.persist().map_err(failed)
        })
        .await
    }

    /// A client may write from now on: whatever is synced then is on the disk, and all that came
    /// before with it. What the start left undone is done behind this.
    pub fn start_is_over(&self) {
        self.overlay.start.is_over();
        let overlay = self.overlay.clone();
        Handle::current().spawn_blocking(move || {
            if let Err(error) = overlay.settle() {
                let directory = overlay.directory.display();
                tracing::warn!(%error, %directory, "put a started overlay on the disk");
            }
        });
    }

    /// Seals all files at one instant: first the kernel writes back what it kept, then writes wait
    /// for some milliseconds ([`Sealed::pause`]). [`MountError::SealHeld`] while an earlier seal is
    /// neither dropped nor the version below.
    pub async fn seal(&self) -> Result<Arc<Sealed>, MountError> {
        let (site, overlay) = (self.site.clone(), self.overlay.clone());
        blocking(move || {
            let failed = MountError::io("put on the disk", &overlay.directory);
            overlay.settle().map_err(failed)?;
            let _stays = site.stay();
            if let Some(mounted) = site.mounted() {
                let failed = MountError::io("write back", mounted.mountpoint());
                mounted.flush(&overlay.open_paths()).map_err(failed)?;
            }
            overlay.seal()
        })
        .await
    }

    /// The version below is from now on the one that was made of `sealed`; `source` has its tree.
    /// That is on the disk before it is so in memory; after an error nothing has changed, and it may
    /// be tried again. [`MountError::NotSealed`] where the two do not fit or the seal has ended.
    pub async fn rebase(
        &self,
        sealed: &Arc<Sealed>,
        source: Arc<dyn Source>,
    ) -> Result<(), MountError> {
        let (overlay, sealed) = (self.overlay.clone(), sealed.clone());
        blocking(move || overlay.rebase(&sealed, source)).await
    }

    /// Unmounts, puts the log on the disk and closes the overlay's files. Who still uses the mount
    /// gets errors from now on. A second call does nothing.
    pub async fn unmount(&self) -> Result<(), MountError> {
        let (mounted, overlay) = (self.site.take(), self.overlay.clone());
        blocking(move || end(mounted, &overlay)).await
    }
}

fn end(mounted: Option<Arc<Mounted>>, overlay: &Overlay) -> Result<(), MountError> {
    let Some(mounted) = mounted else { return Ok(()) };
    let unmounted = mounted.unmount(&overlay.open_paths());
    let closed = overlay.close();
    unmounted.and(closed)
}

impl Drop for LazyMount {
    fn drop(&mut self) {
        let mounted = self.site.take();
        if let Err(error) = end(mounted, &self.overlay) {
            tracing::warn!(%error, "a mount that is no longer used stays");
        }
    }
}

/// Whether FUSE works for this process below `directory`: mounts a tiny volume there, reads and
/// writes it, has `look` read a file of it (one that mongod would take for its configuration) on
/// behalf of those who will use such mounts, and takes it away. [`MountError::Fuse`] says in one line
/// why not. Blocks; call it on a runtime or one of its blocking threads.
pub fn probe(
    directory: &Path,
    access: Access,
    look: &dyn Fn(&Path) -> Result<(), String>,
) -> Result<(), MountError> {
    let folder = directory.join(format!("probe-{}", std::process::id()));
    let (overlay, mountpoint) = (folder.join("overlay"), folder.join("mount"));
    let tried = try_out(&overlay, &mountpoint, access, look);
    // What stays of it does no harm; the error that is returned says more.
    let _ = fs::remove_dir_all(&folder);
    tried
}

fn try_out(
    overlay: &Path,
    mountpoint: &Path,
    access: Access,
    look: &dyn Fn(&Path) -> Result<(), String>,
) -> Result<(), MountError> {
    let nothing = Arc::new(super::probe::Nothing::new());
    let mount = LazyMount::create(access, nothing, overlay, mountpoint)?;
    let file = mount.mountpoint().join("probe");
    let works = fs::write(&file, super::probe::TEXT).and_then(|()| fs::read_to_string(&file));
    let reason = match works {
        Ok(text) if text == super::probe::TEXT => look(&file).err(),
        Ok(_) => Some("it reads back something else than was written".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    end(mount.site.take(), &mount.overlay)?;
    match reason {
        None => Ok(()),
        Some(reason) => Err(MountError::Fuse { path: mountpoint.to_owned(), reason }),
    }
}
