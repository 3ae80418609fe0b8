//! Branch heads: the one object of a branch that changes, and who may change it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::{self, Kind};
use super::error::VolumeError;
use super::format::{FormatError, ms, optional_ms};
use super::listing::no_id;
use super::{Volumes, keys};
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, Epoch, ProjectId, ServerId, VersionId};
use crate::base::name::Name;
use crate::base::own_time::OwnTime;
use crate::store::{Condition, ETag, Key, StoreError};

/// A branch, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its id.
    pub branch: BranchId,
    /// Its name.
    pub branch_name: Name,
    /// Its project.
    pub project: ProjectId,
    /// Its project's name.
    pub project_name: Name,
    /// Its last committed state.
    pub version: VersionId,
    /// Its life; never goes back.
    pub epoch: Epoch,
    /// Who may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ServerId>,
    /// When it was made.
    #[serde(rename = "created_ms", with = "ms")]
    pub created: Timestamp,
    /// When it was deleted, if it was.
    #[serde(
        rename = "deleted_ms",
        default,
        with = "optional_ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub deleted: Option<Timestamp>,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// When it is suspended by itself.
    #[serde(rename = "idle_timeout_ms", default, skip_serializing_if = "OwnTime::is_default")]
    pub idle_timeout: OwnTime,
    /// How often a version is made of it while it runs.
    #[serde(rename = "snapshot_every_ms", default, skip_serializing_if = "OwnTime::is_default")]
    pub snapshot_every: OwnTime,
    /// How long its idle mongod stands still before it is suspended.
    #[serde(rename = "keep_warm_ms", default, skip_serializing_if = "OwnTime::is_default")]
    pub keep_warm: OwnTime,
}

/// The version of another branch that a branch was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The branch.
    pub branch: BranchId,
    /// Its version.
    pub version: VersionId,
}

impl Head {
    /// The object.
    pub(super) fn seal(&self) -> Result<Bytes, FormatError> {
        envelope::seal(Kind::Head, self)
    }

    /// Reads the object under this key.
    pub(super) fn open_at(key: &Key, object: &[u8]) -> Result<Self, FormatError> {
        Self::open(keys::id(keys::HEADS, key).ok_or_else(no_id)?, object)
    }

    /// Reads the object of the branch with this id.
    pub(super) fn open(id: BranchId, object: &[u8]) -> Result<Self, FormatError> {
        let head: Self = envelope::open(Kind::Head, object)?;
        if head.branch == id {
            return Ok(head);
        }
        let [expected, found] = [id, head.branch].map(|id| format!("head of branch {id}"));
        Err(FormatError::Other { expected, found })
    }
}

impl Volumes {
    /// Writes the first head of a branch, on a version that exists.
    ///
    /// # Errors
    /// [`VolumeError::HeadExists`] where there is another; the very same head is a success, so that
    /// a write that took effect and reported a failure can be repeated. [`VolumeError::NoVersion`]
    /// or [`VolumeError::Condemned`] where its version is gone or about to go; then there is no
    /// head.
    pub async fn create_head(&self, head: &Head) -> Result<ETag, VolumeError> {
        self.ensure_kept(head.version).await?;
        let etag = self.write_head(head).await?;
        // Once more: from now on the version cannot be condemned, but it may be already.
        let kept = self.ensure_kept(head.version).await;
        if let Err(VolumeError::NoVersion { .. } | VolumeError::Condemned { .. }) = kept {
            self.delete_head(head.branch).await?;
        }
        kept.map(|()| etag)
    }

    async fn write_head(&self, head: &Head) -> Result<ETag, VolumeError> {
        let key = keys::head(head.branch);
        let bytes = head.seal().map_err(VolumeError::unwritable(&key))?;
        match self.store.write(&key, bytes, Condition::Absent).await {
            Err(StoreError::Conflict { .. }) => match self.head(head.branch).await {
                Ok((found, etag)) if found == *head => Ok(etag),
                Ok(_) => Err(VolumeError::HeadExists { branch: head.branch }),
                Err(error) => Err(error),
            },
            written => written.map_err(VolumeError::store(|| format!("create {key}"))),
        }
    }

    /// The head of a branch, and the mark by which it can be moved.
    pub async fn head(&self, branch: BranchId) -> Result<(Head, ETag), VolumeError> {
        let key = keys::head(branch);
        match self.store.read(&key).await {
            Ok(object) => {
                let head = Head::open(branch, &object.bytes);
                let head = head.map_err(VolumeError::damaged(&key, "its document"))?;
                Ok((head, object.etag))
            }
            Err(StoreError::NotFound { .. }) => Err(VolumeError::NoHead { branch }),
            Err(source) => Err(VolumeError::Store { doing: format!("read {key}"), source }),
        }
    }

    /// Replaces a head that is still the `expected` one. Where `head` itself is there already, that
    /// is a success: an earlier try took effect and reported a failure.
    ///
    /// # Errors
    /// [`VolumeError::Fenced`] where it is another, is gone, or has a higher epoch than `head`.
    pub async fn move_head(&self, head: &Head, expected: &ETag) -> Result<ETag, VolumeError> {
        let (found, etag) = match self.head(head.branch).await {
            Err(VolumeError::NoHead { .. }) => return Err(fenced(head, None)),
            read => read?,
        };
        if found == *head {
            return Ok(etag);
        }
        if etag != *expected || head.epoch < found.epoch {
            return Err(fenced(head, Some(&found)));
        }
        let key = keys::head(head.branch);
        let bytes = head.seal().map_err(VolumeError::unwritable(&key))?;
        // What was read has the expected mark, so this writes over that very epoch or not at all.
        match self.store.write(&key, bytes, Condition::Matches(etag)).await {
            Err(StoreError::Conflict { .. }) => match self.head(head.branch).await {
                Ok((found, etag)) if found == *head => Ok(etag),
                Ok((found, _)) => Err(fenced(head, Some(&found))),
                Err(VolumeError::NoHead { .. }) => Err(fenced(head, None)),
                Err(error) => Err(error),
            },
            written => written.map_err(VolumeError::store(|| format!("move {key}"))),
        }
    }

    /// Deletes a head for good; one that does not exist is fine.
    pub async fn delete_head(&self, branch: BranchId) -> Result<(), VolumeError> {
        let key = keys::head(branch);
        self.store.delete(&key).await.map_err(VolumeError::store(|| format!("delete {key}")))
    }
}

fn fenced(head: &Head, found: Option<&Head>) -> VolumeError {
    VolumeError::Fenced {
        branch: head.branch,
        epoch: head.epoch,
        found: found.map(|head| head.epoch),
        owner: found.and_then(|head| head.owner),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::volume::testing::{Faults, When, add_version, head, volumes};

    #[tokio::test]
    async fn a_head_lives_its_life() {
        let (volumes, store) = volumes();
        add_version(&*store).await;
        let mut head = head(1);
        let absent = volumes.head(head.branch).await;
        assert!(matches!(absent, Err(VolumeError::NoHead { .. })));
        let first = volumes.create_head(&head).await.unwrap();
        assert_eq!(volumes.head(head.branch).await.unwrap(), (head.clone(), first.clone()));
        assert_eq!(volumes.create_head(&head).await.unwrap(), first);

        head.epoch = head.epoch.next();
        let taken = volumes.create_head(&head).await;
        assert!(matches!(taken, Err(VolumeError::HeadExists { .. })));
        let second = volumes.move_head(&head, &first).await.unwrap();
        assert_eq!(volumes.head(head.branch).await.unwrap(), (head.clone(), second));
        for _ in 0..2 {
            volumes.delete_head(head.branch).await.unwrap();
        }
        assert!(matches!(volumes.head(head.branch).await, Err(VolumeError::NoHead { .. })));
    }

    #[tokio::test]
    async fn who_lost_a_branch_is_told() {
        let (volumes, store) = volumes();
        add_version(&*store).await;
        let ours = head(5);
        let old = volumes.create_head(&ours).await.unwrap();
        let owner = Some(ServerId::from_bytes([9; 16]));
        let theirs = Head { epoch: Epoch(6), owner, ..ours.clone() };
        let new = volumes.move_head(&theirs, &old).await.unwrap();

        let late = volumes.move_head(&ours, &old).await.unwrap_err();
        assert!(late.to_string().contains("epoch 5 met epoch 6 of server"), "{late}");
        // Even one who reads the mark anew may not take the epoch back.
        let back = volumes.move_head(&ours, &new).await.unwrap_err();
        assert!(matches!(back, VolumeError::Fenced { epoch: Epoch(5), found: Some(Epoch(6)), .. }));
        assert_eq!(volumes.head(ours.branch).await.unwrap(), (theirs.clone(), new.clone()));
        volumes.delete_head(ours.branch).await.unwrap();
        let gone = volumes.move_head(&theirs, &new).await.unwrap_err();
        assert!(matches!(gone, VolumeError::Fenced { found: None, .. }), "{gone}");
    }

    #[tokio::test]
    async fn a_move_that_took_effect_unnoticed_can_be_repeated() {
        let faults = Faults::new();
        let volumes = faults.volumes();
        add_version(&*faults).await;
        let before = head(1);
        let etag = volumes.create_head(&before).await.unwrap();
        let after = Head { epoch: Epoch(2), ..before };
        faults.fail_write(1, When::AfterTheEffect);
        let error = volumes.move_head(&after, &etag).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().starts_with("move heads/"), "{error}");
        let moved = volumes.move_head(&after, &etag).await.unwrap();
        assert_eq!(volumes.head(after.branch).await.unwrap(), (after, moved));
    }

    #[test]
    fn every_time_of_its_own_comes_back() {
        let id = head(1).branch;
        let ms = |ms| OwnTime::Time(Duration::from_millis(ms));
        for (own, wanted) in [
            (OwnTime::Default, OwnTime::Default),
            (OwnTime::Off, OwnTime::Off),
            (ms(1), ms(1)),
            (ms(7_200_000), ms(7_200_000)),
            (OwnTime::Time(Duration::ZERO), ms(1)),
        ] {
            let heads = [
                Head { idle_timeout: own, ..head(1) },
                Head { snapshot_every: own, ..head(1) },
                Head { keep_warm: own, ..head(1) },
            ];
            let [idle, snapshots, warm] =
                heads.map(|head| Head::open(id, &head.seal().unwrap()).unwrap());
            assert_eq!(idle, Head { idle_timeout: wanted, ..head(1) });
            assert_eq!(snapshots, Head { snapshot_every: wanted, ..head(1) });
            assert_eq!(warm, Head { keep_warm: wanted, ..head(1) });
        }
        let other = Head::open(BranchId::from_bytes([200; 16]), &head(1).seal().unwrap());
        assert!(matches!(other, Err(FormatError::Other { .. })));
    }
}
