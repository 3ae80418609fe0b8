//! The sign of life of a server: while it is renewed, nobody takes that server's branches over.
//!
//! One object per server, however many branches it has. Renewals and declarations of death are
//! writes of the same object by compare-and-swap, so each sees the other: a server that renewed was
//! not declared dead before, and one that was finds that out with its next renewal.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::envelope::{self, Kind};
use super::error::VolumeError;
use super::format::FormatError;
use super::{Volumes, keys};
use crate::base::ids::ServerId;
use crate::store::{Condition, ETag, StoreError};

/// What a server says of itself, and what others say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerLease {
    /// The server.
    pub server: ServerId,
    /// This run of it: two processes of one id are told apart by that.
    pub session: ServerId,
    /// Where drivers connect to it, for people.
    pub address: String,
    /// Grows by one whenever it lost the lease.
    pub term: u64,
    /// Grows by one with every renewal.
    pub renewals: u64,
    /// How long others wait, milliseconds, after they first saw this very state.
    pub ttl_ms: u64,
    /// Who declared it dead; taken back by its next renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_by: Option<ServerId>,
}

impl ServerLease {
    /// How long others wait after they first saw this very state.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    pub(super) fn open(server: ServerId, object: &[u8]) -> Result<Self, FormatError> {
        let lease: Self = envelope::open(Kind::Server, object)?;
        if lease.server == server {
            return Ok(lease);
        }
        let [expected, found] = [server, lease.server].map(|id| format!("lease of server {id}"));
        Err(FormatError::Other { expected, found })
    }
}

impl Volumes {
    /// The lease of a server, and the mark by which it can be replaced; `None` where it has none.
    pub async fn server_lease(
        &self,
        server: ServerId,
    ) -> Result<Option<(ServerLease, ETag)>, VolumeError> {
        let key = keys::server(server);
        match self.store.read(&key).await {
            Ok(object) => {
                let lease = ServerLease::open(server, &object.bytes);
                let lease = lease.map_err(VolumeError::damaged(&key, "its document"))?;
                Ok(Some((lease, object.etag)))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(VolumeError::Store { doing: format!("read {key}"), source }),
        }
    }

    /// Replaces a lease that is still the `expected` one, `None` being that there is none.
    ///
    /// # Errors
    /// [`VolumeError::LeaseMoved`] where it is another. A write that took effect and reported a
    /// failure looks like that too: whoever writes reads the lease again to tell.
    pub async fn write_server_lease(
        &self,
        lease: &ServerLease,
        expected: Option<&ETag>,
    ) -> Result<ETag, VolumeError> {
        let key = keys::server(lease.server);
        let bytes = envelope::seal(Kind::Server, lease).map_err(VolumeError::unwritable(&key))?;
        let condition = match expected {
            Some(etag) => Condition::Matches(etag.clone()),
            None => Condition::Absent,
        };
        match self.store.write(&key, bytes, condition).await {
            Err(StoreError::Conflict { .. }) => {
                Err(VolumeError::LeaseMoved { server: lease.server })
            }
            written => written.map_err(VolumeError::store(|| format!("write {key}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::testing::{server_lease, volumes};

    #[tokio::test]
    async fn of_two_who_write_over_the_same_lease_one_is_told() {
        let (volumes, _store) = volumes();
        let first = server_lease();
        assert_eq!(volumes.server_lease(first.server).await.unwrap(), None);
        let etag = volumes.write_server_lease(&first, None).await.unwrap();
        let again = volumes.write_server_lease(&first, None).await;
        assert!(matches!(again, Err(VolumeError::LeaseMoved { .. })), "{again:?}");

        let renewed = ServerLease { renewals: 2, ..first.clone() };
        let dead = ServerLease { fenced_by: Some(first.session), ..first.clone() };
        let new = volumes.write_server_lease(&renewed, Some(&etag)).await.unwrap();
        let late = volumes.write_server_lease(&dead, Some(&etag)).await;
        assert!(matches!(late, Err(VolumeError::LeaseMoved { .. })), "{late:?}");
        assert_eq!(volumes.server_lease(first.server).await.unwrap(), Some((renewed, new)));
    }

    #[test]
    fn the_lease_of_another_server_is_refused() {
        let sealed = envelope::seal(Kind::Server, &server_lease()).unwrap();
        let other = ServerLease::open(ServerId::from_bytes([200; 16]), &sealed);
        assert!(matches!(other, Err(FormatError::Other { .. })));
    }
}
