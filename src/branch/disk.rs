//! Room on this machine's disk: who must make some when it gets scarce.
//!
//! What was fetched from the store can be fetched again, so it goes first. When that does not help,
//! no further branch is woken, and what is left is for those that run: they must be able to seal
//! what they wrote.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use tokio::time::sleep;
use tracing::warn;

use super::BranchError;
use super::shared::Shared;
use crate::base::blocking::blocking;
use crate::base::limits::DISK_LOOK;

impl Shared {
    /// Sees to it that there is room on the disk for one more branch, at the cost of the cache first.
    ///
    /// # Errors
    /// [`BranchError::LowDisk`] where even that leaves too little for those that run.
    pub(super) async fn make_room(&self) -> Result<(), BranchError> {
        let path = self.settings.data_dir.clone();
        let (cache, mounts) = (self.cache.clone(), self.settings.mounts);
        blocking(move || {
            let free = free_bytes(&path)
                .map_err(|source| BranchError::local("ask for the free room on", &path, source))?;
            let cached = cache.as_ref().map_or(0, |cache| cache.bytes());
            let room = Room::decide(free, mounts.min_free_bytes, cached);
            let keep = match room {
                Room::Plenty => mounts.cache_bytes,
                Room::ShrinkCache { to } => to,
                Room::RefuseWakes => 0,
            };
            if let Some(cache) = cache {
                cache.shrink_to(keep);
            }
            match room {
                Room::RefuseWakes => {
                    Err(BranchError::LowDisk { path, free, least: mounts.min_free_bytes })
                }
                _ => Ok(()),
            }
        })
        .await
    }
}

/// Makes room now and then, whether or not a branch is woken: those that run write too, and what they
/// need the cache must give in time.
pub(super) fn watch(shared: &Arc<Shared>) {
    // Weakly: what nobody else uses any more must not be kept open for this.
    let (shared, closing) = (Arc::downgrade(shared), shared.closing.clone());
    tokio::spawn(async move {
        let mut is_low = false;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = sleep(DISK_LOOK) => {}
            }
            let Some(shared) = shared.upgrade() else { return };
            let made = shared.make_room().await;
            // Once, not with every look.
            if let (false, Err(error)) = (is_low, &made) {
                warn!(error = error.chain(), hint = error.hint(), "no branch is woken");
            }
            is_low = made.is_err();
        }
    });
}

/// What the room on the disk allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Everything.
    Plenty,
    /// A wake, once the block cache has been shrunk to this.
    ShrinkCache {
        /// Bytes that the cache may have from now on.
        to: u64,
    },
    /// No wake: even without the cache too little is free. What is cached is to go all the same.
    RefuseWakes,
}

impl Room {
    /// Decides, with `free` bytes on the disk, of which `min_free` are to stay free, and `cached` bytes
    /// in the block cache. Below twice `min_free` the cache gives what is missing to that, as far as it
    /// can.
    pub(super) fn decide(free: u64, min_free: u64, cached: u64) -> Self {
        let comfort = min_free.saturating_mul(2);
        if free >= comfort {
            return Self::Plenty;
        }
        if free.saturating_add(cached) < min_free {
            return Self::RefuseWakes;
        }
        Self::ShrinkCache { to: cached.saturating_sub(comfort - free) }
    }
}

/// Bytes that a program without privileges may still write to the file system that holds `path`.
///
/// # Errors
/// There is no such path, or the file system does not say.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a NUL, and `found` is as large as the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled `found`.
    let found = unsafe { found.assume_init() };
    // POSIX statvfs: `f_bavail` counts units of `f_frsize`. Their types differ between platforms.
    #[allow(clippy::unnecessary_cast, reason = "they are not 64 bits wide everywhere")]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_makes_room_before_wakes_are_refused() {
        use Room::{Plenty, RefuseWakes, ShrinkCache};
        for (free, min_free, cached, expected) in [
            (1_000, 100, 0, Plenty),
            (200, 100, 500, Plenty),
            // Below twice the least, the cache gives what is missing to that.
            (199, 100, 500, ShrinkCache { to: 499 }),
            (150, 100, 500, ShrinkCache { to: 450 }),
            (150, 100, 20, ShrinkCache { to: 0 }),
            // Below the least, wakes go on as long as the cache can bring it back above.
            (20, 100, 500, ShrinkCache { to: 320 }),
            (20, 100, 80, ShrinkCache { to: 0 }),
            (20, 100, 79, RefuseWakes),
            (0, 100, 0, RefuseWakes),
            // Nothing to shrink, and more than the least is free: nor may it grow.
            (150, 100, 0, ShrinkCache { to: 0 }),
            (100, 100, 0, ShrinkCache { to: 0 }),
            (99, 100, 0, RefuseWakes),
            // Switched off.
            (0, 0, 0, Plenty),
            (0, 0, 500, Plenty),
            (u64::MAX, u64::MAX, u64::MAX, Plenty),
            (1, u64::MAX, u64::MAX, ShrinkCache { to: 1 }),
        ] {
            let found = Room::decide(free, min_free, cached);
            assert_eq!(found, expected, "{free} free, {min_free} at least, {cached} cached");
        }
    }

    #[test]
    fn a_disk_says_how_much_is_free_and_a_missing_path_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(dir.path()).unwrap() > 0);
        let missing = free_bytes(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
