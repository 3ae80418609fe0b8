//! How slow a client may be inside a message: meanwhile it holds a request in flight on its branch,
//! and a byte now and then must not keep that awake for ever.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::ProxyError;
use crate::base::limits::{CLIENT_STALL, RELAY_BYTES};
use crate::wire::WireError;

/// A client's time for the next [`RELAY_BYTES`] of a message: [`CLIENT_STALL`], as for its
/// beginning.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// Waits for some bytes, as long as there is time left.
    pub(super) async fn wait<T>(
        &mut self,
        step: impl Future<Output = Result<T, WireError>>,
    ) -> Result<T, ProxyError> {
        let started = Instant::now();
        let outcome = timeout(CLIENT_STALL.saturating_sub(self.waited), step).await;
        self.waited += started.elapsed();
        outcome
            .map_err(|_| ProxyError::Stalled { waited: CLIENT_STALL })?
            .map_err(ProxyError::client)
    }

    /// So many came.
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= RELAY_BYTES {
            *self = Self::default();
        }
    }
}
