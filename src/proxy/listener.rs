//! Accepting clients: nothing that one of them does, and no shortage of the machine, ends it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::select;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::binding::{self, Binding};
use super::error::ProxyError;
use super::reception::Reception;
use super::session::House;
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::gauge::Gauge;
use crate::base::limits::ClientLimits;
use crate::base::metrics::Metrics;
use crate::branch::{Branches, Door, DoorListener};

/// Between two tries to accept while the machine has no descriptor or memory left for it.
const ACCEPT_PAUSE: Backoff =
    Backoff { first: Duration::from_millis(10), cap: Duration::from_secs(1) };

/// A client's host that vanished without closing is noticed after two minutes: silent for one,
/// then four probes unanswered.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// A port on which clients are served.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
    limits: ClientLimits,
    metrics: Arc<Metrics>,
}

impl Proxy {
    /// Listens on an address; port 0 picks one.
    pub async fn bind(
        address: SocketAddr,
        binding: Binding,
        clock: Arc<dyn Clock>,
        limits: ClientLimits,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ProxyError> {
        let failed = |source| ProxyError::Bind { address, source };
        let listener = binding::listen(address, binding).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, clock, limits, metrics })
    }

    /// The address, with the port that was picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How many clients are connected; stays good when the proxy serves.
    pub fn connections(&self) -> Gauge {
        self.metrics.front.clone()
    }

    /// Serves clients, those who come by branches' own doors too, until `stop` is cancelled. Then
    /// nobody is accepted any more, commands at hand are finished (for a limited time), and all
    /// connections are closed.
    pub async fn serve(self, branches: Branches, stop: CancellationToken) {
        let mut doors = branches.doors();
        let Self { listener, clock, limits, metrics, .. } = self;
        let house = House { branches, clock, metrics, limits, pools: Arc::default() };
        let reception = Arc::new(Reception::new(house, stop.clone()));
        let served = TaskTracker::new();
        loop {
            select! {
                biased;
                () = stop.cancelled() => break,
                (stream, peer) = next(|| listener.accept()) => {
                    prepare(&stream);
                    reception.welcome(stream, peer, None);
                }
                Some((door, listener)) = doors.recv() => {
                    served.spawn(serve_door(door, listener, reception.clone(), stop.clone()));
                }
            }
        }
        drop((listener, doors));
        served.close();
        served.wait().await;
        reception.drain().await;
    }
}

/// Accepts at a door until it is closed.
async fn serve_door(
    door: Door,
    listener: DoorListener,
    reception: Arc<Reception>,
    stop: CancellationToken,
) {
    let door = Arc::new(door);
    let closed = || async {
        select! {
            () = stop.cancelled() => {}
            () = door.closing.cancelled() => {}
        }
    };
    let unfit = |error: io::Error| warn!(door = door.at, %error, "a listener cannot be served");
    match listener {
        DoorListener::Port(listener) => match TcpListener::from_std(listener) {
            Err(error) => unfit(error),
            Ok(listener) => loop {
                select! {
                    biased;
                    () = closed() => return,
                    (stream, peer) = next(|| listener.accept()) => {
                        prepare(&stream);
                        reception.welcome(stream, peer, Some(&door));
                    }
                }
            },
        },
        DoorListener::Socket(listener) => match UnixListener::from_std(listener) {
            Err(error) => unfit(error),
            Ok(listener) => loop {
                select! {
                    biased;
                    () = closed() => return,
                    // The peer of a Unix socket has no address.
                    (stream, _) = next(|| listener.accept()) => {
                        reception.welcome(stream, &door.at, Some(&door));
                    }
                }
            },
        },
    }
}

/// The next client, whatever goes wrong until one comes. Cancel safe.
async fn next<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F) -> T {
    let mut failures = 0;
    loop {
        match accept().await {
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

/// Commands are small and waited for: they must not be held back to be sent together. (The other
/// side, mongod's Unix socket, holds nothing back and knows when its peer is gone.)
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
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

    #[tokio::test]
    async fn an_accepted_socket_sends_at_once_and_notices_a_vanished_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream);
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
    }
}
