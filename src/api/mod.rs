//! The admin API: HTTP and JSON over room `branch`.
//!
//! Job: routes, problem documents, operations that can be followed, and the rules that keep web
//! pages out ([`guard`]). Not its job: what is allowed when; room `branch` decides that.
//! Invariant: whatever fails in a handler leaves as `application/problem+json` with a stable code,
//! and work that was begun does not end with the client that asked for it.
//!
//! `docs/api.md` is the manual; the OpenAPI document is made from the types.

mod base;
mod branches;
mod error;
mod garbage;
mod guard;
mod operations;
mod problems;
mod projects;
mod routes;
mod server;
mod state;
mod stream;
mod upload;
mod versions;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use argon_admin::types::Mongod;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::branch::Branches;
use guard::Reach;
use operations::Operations;
use state::App;

pub use error::ApiError;

/// The largest archive that is taken as a base, bytes, where nothing else is set.
pub const ARCHIVE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// How long connections may go on after the server was told to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the API says of the server, and its limits.
pub struct Settings {
    /// Where drivers connect.
    pub listen: SocketAddr,
    /// The server's own files.
    pub data_dir: PathBuf,
    /// The mongod that branches run on.
    pub mongod: Mongod,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How many clients the proxy has.
    pub connections: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The largest archive that is taken as a base, bytes.
    pub archive_bytes_max: u64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A bound address, not yet served.
#[derive(Debug)]
pub struct Api {
    listener: TcpListener,
    address: SocketAddr,
}

impl Api {
    /// Takes the address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, ApiError> {
        let failed = |source| ApiError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `closing` is cancelled; then returns when the operations that run have ended.
    /// Those who follow one are told its outcome, if it comes within [`DRAIN_MAX`].
    pub async fn serve(self, branches: Branches, settings: Settings, closing: CancellationToken) {
        let operations = Operations::new(Arc::clone(&settings.clock));
        let app = App::new(branches, settings, operations.clone(), closing.clone());
        let router = routes::router(app, Reach::of(self.address.ip()));
        let listener = self.listener.tap_io(|socket| {
            // Answers are small and somebody waits for each; failing to say so only costs time.
            let _ = socket.set_nodelay(true);
        });
        let serving =
            axum::serve(listener, router).with_graceful_shutdown(closing.clone().cancelled_owned());
        let late = async {
            closing.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            ended = serving.into_future() => {
                if let Err(error) = ended {
                    tracing::error!("serve the admin API: {error}");
                }
            }
            () = late => tracing::info!("leave connections of the admin API that do not end"),
        }
        operations.drain().await;
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
