//! The list of what is dead, and since when: what keeps anything from being deleted at first sight.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::{self, Kind};
use super::error::VolumeError;
use super::format::{FormatError, ms};
use super::{Volumes, keys};
use crate::base::clock::Timestamp;
use crate::base::ids::VersionId;
use crate::store::{Condition, ETag, Key, StoreError};

/// What the last run found dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// When that run began.
    pub ran: Timestamp,
    /// Each object, and since when every run found it dead.
    pub since: BTreeMap<Key, Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "ran_ms", with = "ms")]
    ran: Timestamp,
    objects: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    #[serde(rename = "since_ms", with = "ms")]
    since: Timestamp,
}

impl Condemned {
    /// The object.
    pub fn seal(&self) -> Result<Bytes, FormatError> {
        let entry = |(key, since): (&Key, &_)| Entry { key: key.to_string(), since: *since };
        let objects = self.since.iter().map(entry).collect();
        envelope::seal(Kind::Condemned, &Document { ran: self.ran, objects })
    }

    /// Reads the object.
    pub fn open(object: &[u8]) -> Result<Self, FormatError> {
        let document: Document = envelope::open(Kind::Condemned, object)?;
        let mut since = BTreeMap::new();
        for entry in document.objects {
            let key: Key = entry.key.parse().map_err(FormatError::invalid)?;
            if since.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(FormatError::invalid("the condemned objects are not sorted"));
            }
            since.insert(key, entry.since);
        }
        Ok(Self { ran: document.ran, since })
    }
}

impl Volumes {
    /// The list, and the mark by which it can be replaced; none where no run ever ended.
    pub(super) async fn condemned(&self) -> Result<Option<(Condemned, ETag)>, VolumeError> {
        let key = keys::condemned();
        match self.store.read(&key).await {
            Ok(object) => {
                let list = Condemned::open(&object.bytes);
                let list = list.map_err(VolumeError::damaged(&key, "its document"))?;
                Ok(Some((list, object.etag)))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(VolumeError::Store { doing: format!("read {key}"), source }),
        }
    }

    /// When the last run of any server began, if there was one, and the versions that it found dead:
    /// nothing new is made from them.
    pub async fn condemned_versions(
        &self,
    ) -> Result<(Option<Timestamp>, HashSet<VersionId>), VolumeError> {
        let Some((list, _)) = self.condemned().await? else { return Ok(Default::default()) };
        let versions = list.since.keys().filter_map(|key| keys::id(keys::VERSIONS, key));
        Ok((Some(list.ran), versions.collect()))
    }

    pub(super) async fn is_condemned(&self, version: VersionId) -> Result<bool, VolumeError> {
        let list = self.condemned().await?;
        Ok(list.is_some_and(|(list, _)| list.since.contains_key(&keys::version(version))))
    }

    /// Replaces the list that was read.
    ///
    /// # Errors
    /// [`VolumeError::OtherCollector`] where it is another one by now.
    pub(super) async fn condemn(
        &self,
        list: &Condemned,
        expected: Option<ETag>,
    ) -> Result<(), VolumeError> {
        let key = keys::condemned();
        let object = list.seal().map_err(VolumeError::unwritable(&key))?;
        let condition = expected.map_or(Condition::Absent, Condition::Matches);
        match self.store.write(&key, object, condition).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict { .. }) => Err(VolumeError::OtherCollector),
            Err(source) => Err(VolumeError::Store { doing: format!("write {key}"), source }),
        }
    }

    /// For whoever just wrote a head on a version that it does not own: the version must be there,
    /// and stay.
    pub(super) async fn ensure_kept(&self, version: VersionId) -> Result<(), VolumeError> {
        // The list first: a version that is gone from both was deleted.
        if self.is_condemned(version).await? {
            return Err(VolumeError::Condemned { version });
        }
        let key = keys::version(version);
        match self.store.size(&key).await {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound { .. }) => Err(VolumeError::NoVersion { version }),
            Err(source) => Err(VolumeError::Store { doing: format!("look for {key}"), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::volumes;

    fn list(keys: &[(&str, u64)]) -> Condemned {
        let entry = |(key, ms): &(&str, u64)| (key.parse().unwrap(), Timestamp::from_unix_ms(*ms));
        Condemned { ran: Timestamp::from_unix_ms(7), since: keys.iter().map(entry).collect() }
    }

    #[tokio::test]
    async fn of_two_who_replace_one_list_one_is_told() {
        let (volumes, _store) = volumes();
        assert_eq!(volumes.condemned().await.unwrap(), None);
        let lists =
            [list(&[]), list(&[("packs/a", 1), ("versions/b", 2)]), list(&[("pages/c", 3)])];
        volumes.condemn(&lists[0], None).await.unwrap();
        let late = volumes.condemn(&lists[1], None).await;
        assert!(matches!(late, Err(VolumeError::OtherCollector)), "{late:?}");
        let (found, etag) = volumes.condemned().await.unwrap().unwrap();
        assert_eq!(found, lists[0]);
        volumes.condemn(&lists[1], Some(etag.clone())).await.unwrap();
        let late = volumes.condemn(&lists[2], Some(etag)).await;
        assert!(matches!(late, Err(VolumeError::OtherCollector)), "{late:?}");
        assert_eq!(volumes.condemned().await.unwrap().unwrap().0, lists[1]);
    }

    #[test]
    fn a_list_out_of_order_is_refused() {
        for keys in [["packs/b", "packs/a"], ["packs/a", "packs/a"]] {
            let since = Timestamp::from_unix_ms(1);
            let objects = keys.map(|key| Entry { key: key.to_owned(), since }).into();
            let object = envelope::seal(Kind::Condemned, &Document { ran: since, objects });
            assert!(Condemned::open(&object.unwrap()).is_err());
        }
    }
}
