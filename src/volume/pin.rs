//! Pins: versions that are kept for good.
//!
//! A pin is an object of its own, so that it outlives the catalog and is told by a listing alone.

use serde::{Deserialize, Serialize};

use super::envelope::{self, Kind};
use super::error::VolumeError;
use super::format::ms;
use super::{Volumes, keys};
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::store::Condition;

/// What the object says; who reads pins needs only their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    pub version: VersionId,
    #[serde(rename = "created_ms", with = "ms")]
    pub created: Timestamp,
}

impl Volumes {
    /// Keeps a version for good; one that is pinned already stays so.
    ///
    /// # Errors
    /// [`VolumeError::NoVersion`] where there is none to keep, [`VolumeError::Condemned`] where it
    /// was given up already.
    pub async fn pin(&self, version: VersionId) -> Result<(), VolumeError> {
        self.version(version).await?;
        let key = keys::pin(version);
        let pin = envelope::seal(Kind::Pin, &Pin { version, created: self.clock.now() });
        let pin = pin.map_err(VolumeError::unwritable(&key))?;
        let written = self.store.write(&key, pin, Condition::Always).await;
        written.map_err(VolumeError::store(|| format!("write {key}")))?;
        // As with a head: from now on it cannot be condemned, but it may be already.
        let kept = self.ensure_kept(version).await;
        if let Err(VolumeError::NoVersion { .. } | VolumeError::Condemned { .. }) = kept {
            self.unpin(version).await?;
        }
        kept
    }

    /// Lets a version go when its time comes; one that is not pinned is fine.
    pub async fn unpin(&self, version: VersionId) -> Result<(), VolumeError> {
        let key = keys::pin(version);
        self.store.delete(&key).await.map_err(VolumeError::store(|| format!("delete {key}")))
    }

    /// The versions that are kept for good, by id. Only keys count: a pin whose bytes are damaged
    /// still pins.
    ///
    /// # Errors
    /// The store fails, or holds something else under `pins/`: then nobody knows what is kept.
    pub async fn pins(&self) -> Result<Vec<VersionId>, VolumeError> {
        self.ids(keys::PINS).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::volume::testing::{Faults, When, request, volumes};

    #[tokio::test]
    async fn pins_are_told_by_the_store_alone() {
        let (volumes, store) = volumes();
        let directory = tempfile::tempdir().unwrap();
        let version = volumes.capture(directory.path(), request(None)).await.unwrap().id;
        assert_eq!(volumes.pins().await.unwrap(), []);
        for _ in 0..2 {
            volumes.pin(version).await.unwrap();
            assert_eq!(volumes.pins().await.unwrap(), [version]);
        }
        let key = keys::pin(version);
        store.write(&key, "damaged".into(), Condition::Always).await.unwrap();
        assert_eq!(volumes.pins().await.unwrap(), [version], "it still pins");
        for _ in 0..2 {
            volumes.unpin(version).await.unwrap();
            assert_eq!(volumes.pins().await.unwrap(), []);
        }
        let absent = volumes.pin(VersionId::from_bytes([9; 16])).await.unwrap_err();
        assert!(matches!(absent, VolumeError::NoVersion { .. }), "{absent}");

        let junk = "pins/junk".parse().unwrap();
        store.write(&junk, "junk".into(), Condition::Always).await.unwrap();
        let error = volumes.pins().await.unwrap_err();
        assert!(error.to_string().contains("pins/junk is damaged"), "{error}");
    }

    #[tokio::test]
    async fn a_pin_that_was_reported_failed_can_be_set_again() {
        let faults = Faults::new();
        let volumes = faults.volumes();
        let directory = tempfile::tempdir().unwrap();
        let version = volumes.capture(directory.path(), request(None)).await.unwrap().id;
        for (when, pinned) in
            [(When::BeforeTheEffect, vec![]), (When::AfterTheEffect, vec![version])]
        {
            faults.fail_write(1, when);
            let error = volumes.pin(version).await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
            assert_eq!(volumes.pins().await.unwrap(), pinned);
            volumes.pin(version).await.unwrap();
            volumes.unpin(version).await.unwrap();
        }
    }
}
