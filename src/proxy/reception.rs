//! Those who come in, by whichever way: counted, numbered, served, and let go at the end.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::error::ProxyError;
use super::metered::Metered;
use super::session::{House, Session};
use super::splice::Socket;
use crate::base::gauge::Counted;
use crate::base::limits::DRAIN_WAIT;
use crate::base::metrics::TurnedAway;
use crate::branch::Door;

/// All sessions of a server.
#[derive(Debug)]
pub(super) struct Reception {
    house: Arc<House>,
    sessions: TaskTracker,
    stop: CancellationToken,
    cut_off: CancellationToken,
    numbers: AtomicU64,
    full: AtomicBool,
}

impl Reception {
    pub(super) fn new(house: House, stop: CancellationToken) -> Self {
        Self {
            house: Arc::new(house),
            sessions: TaskTracker::new(),
            stop,
            cut_off: CancellationToken::new(),
            numbers: AtomicU64::new(0),
            full: AtomicBool::new(false),
        }
    }

    /// Serves a client, or turns it away. `door` is the branch's own way that it came by.
    pub(super) fn welcome<S>(&self, stream: S, peer: impl Display, door: Option<&Arc<Door>>)
    where
        S: AsyncRead + AsyncWrite + Socket + Unpin + Send + 'static,
    {
        let Some(counted) = self.admit(&peer) else { return };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        debug!(connection = number, %peer, "a client connected");
        let metrics = self.house.metrics.clone();
        let stream = Metered {
            stream,
            received: metrics.received_bytes.clone(),
            sent: metrics.sent_bytes.clone(),
        };
        let session = Session::new(self.house.clone(), number, stream, self.stop.clone());
        let session = session.through(door.cloned());
        let cut_off = self.cut_off.clone();
        self.sessions.spawn(async move {
            let _counted = counted;
            let outcome = select! {
                outcome = session.run() => outcome,
                () = cut_off.cancelled() => Err(ProxyError::Drained),
            };
            match outcome {
                Ok(()) => debug!(connection = number, "a client left"),
                Err(error) => {
                    match error {
                        ProxyError::Late { .. } => metrics.turned_away(TurnedAway::Late),
                        ProxyError::NoMessage { .. } | ProxyError::Foreign { .. } => {
                            metrics.turned_away(TurnedAway::NoMessage);
                        }
                        _ => {}
                    }
                    let error = &error as &dyn Error;
                    debug!(connection = number, error, "a client's connection ended");
                }
            }
        });
    }

    /// The first that is turned away of a row is a warning, the others would only fill the log.
    fn admit(&self, peer: &impl Display) -> Option<Counted> {
        let max = self.house.limits.connections;
        let counted = self.house.metrics.front.try_enter(max);
        if counted.is_some() {
            self.full.store(false, Ordering::Relaxed);
            return counted;
        }
        self.house.metrics.turned_away(TurnedAway::ServerFull);
        match self.full.swap(true, Ordering::Relaxed) {
            false => warn!(%peer, max, "too many connections: new clients are turned away"),
            true => debug!(%peer, "turned away: too many connections"),
        }
        None
    }

    /// Returns when all sessions have ended: those at rest at once, those with a command at hand
    /// when it is done, for at most [`DRAIN_WAIT`].
    pub(super) async fn drain(&self) {
        self.sessions.close();
        if timeout(DRAIN_WAIT, self.sessions.wait()).await.is_err() {
            let connections = self.sessions.len();
            info!(connections, "commands still run after the drain: cut off");
            self.cut_off.cancel();
            self.sessions.wait().await;
        }
    }
}
