//! Accepting clients: nothing that one of them does, and no shortage of the machine, ends it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::error::ProxyError;
use super::session::{House, Session};
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::gauge::Gauge;
use crate::base::limits::{CONNECTIONS_MAX, DRAIN_WAIT};
use crate::branch::Branches;

/// Between two tries to accept while the machine has no descriptor or memory left for it.
const ACCEPT_PAUSE: Backoff =
    Backoff { first: Duration::from_millis(10), cap: Duration::from_secs(1) };

/// A client's host that vanished without closing is noticed after two minutes: silent for one,
/// then four probes unanswered.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A port on which clients are served.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
    connections: Gauge,
}

impl Proxy {
    /// Listens on an address; port 0 picks one.
    pub async fn bind(address: SocketAddr, clock: Arc<dyn Clock>) -> Result<Self, ProxyError> {
        let failed = |source| ProxyError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, clock, connections: Gauge::default() })
    }

    /// The address, with the port that was picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How many clients are connected; stays good when the proxy serves.
    pub fn connections(&self) -> Gauge {
        self.connections.clone()
    }

    /// Serves clients until `stop` is cancelled. Then nobody is accepted any more, commands at hand
    /// are finished (for at most [`DRAIN_WAIT`]), and all connections are closed.
    pub async fn serve(self, branches: Branches, stop: CancellationToken) {
        let house = Arc::new(House { branches, clock: self.clock, pools: Arc::default() });
        let sessions = TaskTracker::new();
        let cut_off = CancellationToken::new();
        let mut number = 0;
        let mut admission = Admission::new(self.connections, CONNECTIONS_MAX);
        loop {
            let (stream, peer) = select! {
                biased;
                () = stop.cancelled() => break,
                accepted = next_client(&self.listener) => accepted,
            };
            let Some(counted) = admission.admit(peer) else { continue };
            number += 1;
            prepare(&stream);
            debug!(connection = number, %peer, "a client connected");
            let session = Session::new(house.clone(), number, stream, stop.clone());
            let cut_off = cut_off.clone();
            sessions.spawn(async move {
                let _counted = counted;
                let outcome = select! {
                    outcome = session.run() => outcome,
                    () = cut_off.cancelled() => Err(ProxyError::Drained),
                };
                match outcome {
                    Ok(()) => debug!(connection = number, %peer, "a client left"),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        debug!(connection = number, %peer, error, "a client's connection ended");
                    }
                }
            });
        }
        drop(self.listener);
        sessions.close();
        if timeout(DRAIN_WAIT, sessions.wait()).await.is_err() {
            info!(connections = sessions.len(), "commands still run after the drain: cut off");
            cut_off.cancel();
            sessions.wait().await;
        }
    }
}

/// Who may come in. The first refused of a row is a warning, the others would only fill the log.
struct Admission {
    connections: Gauge,
    max: usize,
    full: bool,
}

impl Admission {
    fn new(connections: Gauge, max: usize) -> Self {
        Self { connections, max, full: false }
    }

    fn admit(&mut self, peer: SocketAddr) -> Option<crate::base::gauge::Counted> {
        let counted = self.connections.try_enter(self.max);
        match counted {
            Some(_) => self.full = false,
            None if !self.full => {
                self.full = true;
                warn!(%peer, max = self.max, "too many connections: new clients are turned away");
            }
            None => debug!(%peer, "turned away: too many connections"),
        }
        counted
    }
}

/// The next client, whatever goes wrong until one comes. Cancel safe.
async fn next_client(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok(client) => return client,
            Err(error) => match pause_after(&error, &mut failures) {
                None => debug!(%error, "a client left unaccepted"),
                Some(pause) => {
                    warn!(%error, ?pause, "clients cannot be accepted");
                    sleep(pause).await;
                }
            },
        }
    }
}

/// How long to wait after a failed accept. A client that was gone before it was accepted says
/// nothing of the next; a shortage of the machine lasts.
fn pause_after(error: &io::Error, failures: &mut u32) -> Option<Duration> {
    if is_one_clients(error) {
        return None;
    }
    *failures += 1;
    Some(ACCEPT_PAUSE.wait(*failures, 1.0))
}

fn is_one_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Commands are small and waited for: they must not be held back to be sent together.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let set =
        stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        // Both are a matter of comfort; the socket is most likely gone already.
        debug!(%error, "socket options were not taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_waited_out_and_a_vanished_client_is_not() {
        let shortage = || io::Error::from_raw_os_error(libc::EMFILE);
        let vanished = || io::Error::from_raw_os_error(libc::ECONNABORTED);
        let mut failures = 0;
        for (error, pause_ms) in [
            (vanished(), None),
            (shortage(), Some(10)),
            (vanished(), None),
            (shortage(), Some(20)),
            (shortage(), Some(40)),
        ] {
            let pause = pause_after(&error, &mut failures);
            assert_eq!(pause, pause_ms.map(Duration::from_millis), "{error}");
        }
        failures = 1000;
        assert_eq!(pause_after(&shortage(), &mut failures), Some(ACCEPT_PAUSE.cap));
    }

    #[test]
    fn no_more_than_the_cap_come_in() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let gauge = Gauge::default();
        let mut admission = Admission::new(gauge.clone(), 2);
        let first = admission.admit(peer);
        let second = admission.admit(peer);
        assert!(first.is_some() && second.is_some() && admission.admit(peer).is_none());
        drop(first);
        assert!(admission.admit(peer).is_some());
        assert_eq!(gauge.value(), 1);
    }
}
