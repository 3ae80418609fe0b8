//! The captures of this process that run now: garbage collection leaves alone what they may need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::time::Instant;

use super::Volumes;
use super::error::VolumeError;
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::base::limits::UPLOAD_DEADLINE;

/// A register of what runs.
#[derive(Debug, Default)]
pub struct Uploads {
    /// Captures register and read the list of what is condemned under it, together; a collection
    /// writes that list under it, alone.
    gate: RwLock<()>,
    begun: Mutex<BTreeMap<VersionId, Timestamp>>,
    /// Held by the one collection of this process.
    pub(super) collecting: tokio::sync::Mutex<()>,
}

/// A capture that runs; dropping it is its end.
#[derive(Debug)]
pub struct Running {
    uploads: Arc<Uploads>,
    version: VersionId,
    begun: Timestamp,
    /// The machine's other clock: one of the two may be set back.
    started: Instant,
}

impl Uploads {
    /// Keeps captures from beginning while the list of what is condemned is written.
    pub async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    /// When the oldest capture that runs began.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.lock().values().min().copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VersionId, Timestamp>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volumes {
    /// Registers a capture. Also tells whether its parent may be shared with: not one that is
    /// condemned.
    pub(super) async fn begin_upload(
        &self,
        version: VersionId,
        parent: Option<VersionId>,
    ) -> Result<(Running, Option<VersionId>), VolumeError> {
        let _gate = self.uploads.gate.read().await;
        let begun = self.clock.now();
        self.uploads.lock().insert(version, begun);
        let uploads = self.uploads.clone();
        let running = Running { uploads, version, begun, started: Instant::now() };
        let parent = match parent {
            Some(parent) if self.is_condemned(parent).await? => None,
            parent => parent,
        };
        Ok((running, parent))
    }
}

impl Running {
    /// Fails where the upload took longer than garbage collection waits for one.
    pub fn ensure_in_time(&self, now: Timestamp) -> Result<(), VolumeError> {
        let passed = now.unix_ms().saturating_sub(self.begun.unix_ms());
        let took = Duration::from_millis(passed).max(self.started.elapsed());
        if took < UPLOAD_DEADLINE {
            return Ok(());
        }
        Err(VolumeError::TooLate { version: self.version, took, limit: UPLOAD_DEADLINE })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.uploads.lock().remove(&self.version);
    }
}
