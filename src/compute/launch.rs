//! What a start and a stop have in common, however mongod is run.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::ready::{self, Member, REPLICA_SET, Volume};
use super::{Cell, ComputeError, Exit, ServerFacts, log_tail};

/// The port every mongod believes to have; in its own network namespace nobody else is there.
pub(super) const PORT: u16 = 27017;

/// A mongod that did not become a writable primary by then is given up.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(60);

/// A mongod that did not stop cleanly by then is killed; its journal holds what it acknowledged.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// mongod's command line, without its name. The folders are as mongod sees them.
pub(super) fn arguments(cell: &Cell, port: u16, dbpath: &Path, socket_dir: &Path) -> Vec<String> {
    let words = [
        ("--replSet", REPLICA_SET.to_owned()),
        ("--bind_ip", "127.0.0.1".to_owned()),
        ("--port", port.to_string()),
        ("--oplogSize", cell.oplog_mb.to_string()),
        ("--wiredTigerCacheSizeGB", format!("{:.2}", cell.cache_gb)),
        // Small journal files, not preallocated: every start reads the last two some five times, zeros
        // and all (16 MB each took 90 ms of a wake). And tables sized for this many sessions: both
        // take time and memory off every start. A record that is larger makes its file larger.
        (
            "--wiredTigerEngineConfigString",
            "log=(file_max=2MB,prealloc=false),session_max=1000".to_owned(),
        ),
        // Every start reads the oplog at random, ten times for each of these points. Fewer of them
        // make it up to twice as long as was asked for. All versions since 4.2 know both names.
        ("--setParameter", "minOplogTruncationPoints=1".to_owned()),
        ("--setParameter", "maxOplogTruncationPointsDuringStartup=1".to_owned()),
        // An idle branch must not write: neither no-ops every 10 s nor diagnostics every 1 s.
        ("--setParameter", "writePeriodicNoops=false".to_owned()),
        ("--setParameter", "diagnosticDataCollectionEnabled=false".to_owned()),
        ("--dbpath", dbpath.to_string_lossy().into_owned()),
        ("--unixSocketPrefix", socket_dir.to_string_lossy().into_owned()),
    ];
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// Where mongod's socket will appear on this side; one that a killed mongod left there is removed,
/// for a connect to it must not look like news.
pub(super) fn fresh_socket(cell: &Cell, port: u16) -> Result<PathBuf, ComputeError> {
    let socket = cell.socket_dir.join(format!("mongodb-{port}.sock"));
    match std::fs::remove_file(&socket) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ComputeError::io("remove the old socket", &socket, source))
        }
        _ => Ok(socket),
    }
}

/// The one member that a cell's replica set must have. To be asked before mongod starts.
pub(super) fn member(cell: &Cell, port: u16) -> Member {
    // The first file that WiredTiger makes.
    let volume = match cell.dbpath.join("WiredTiger").exists() {
        true => Volume::Used,
        false => Volume::New,
    };
    Member { host: format!("127.0.0.1:{port}"), volume }
}

/// Waits until mongod is a writable primary, or for its end, but no longer than `limit`.
pub(super) async fn ready(
    socket: &Path,
    member: &Member,
    log: &Path,
    limit: Duration,
    end: impl Future<Output = Exit>,
) -> Result<(ServerFacts, Instant), ComputeError> {
    tokio::select! {
        ready = ready::writable_primary(socket, member, limit) => ready,
        exit = end => Err(ComputeError::Exited { exit, log: log_tail(log) }),
    }
}
