//! From "the process runs" to "it is a writable primary", without a fixed sleep.

use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use tokio::time::{Instant, sleep, timeout_at};

use super::{ComputeError, ServerFacts};
use crate::wire::{Client, WireError};

/// The name of every branch's replica set: transactions, change streams and retryable writes need
/// one, of one member.
pub(super) const REPLICA_SET: &str = "rs0";

/// The server codes that steer the start, from mongod's `error_codes.yml`.
const NOT_YET_INITIALIZED: i32 = 94;
const INVALID_REPLICA_SET_CONFIG: i32 = 93;

/// How long one `hello` may wait inside mongod for its answer to change.
const AWAIT: Duration = Duration::from_secs(1);

/// Between two connects to a socket that does not listen yet; a connect costs microseconds.
const CONNECT_PAUSE: Duration = Duration::from_millis(1);

/// The one member, as it must stand in the replica set's configuration.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) host: String,
    pub(super) volume: Volume,
}

/// Whether a mongod ran on the volume before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// No: the replica set is to be initiated.
    New,
    /// Yes: its configuration is on disk, and mongod may still be reading it.
    Used,
}

/// Waits for the socket, sees to it that the replica set has this one member, and waits until it
/// is a writable primary. Returns what the server says of itself, and when it began to listen.
pub(super) async fn writable_primary(
    socket: &Path,
    member: &Member,
    limit: Duration,
) -> Result<(ServerFacts, Instant), ComputeError> {
    let deadline = Instant::now() + limit;
    timeout_at(deadline, async {
        let mut client = connect(socket).await;
        let listening = Instant::now();
        settle_membership(&mut client, member).await?;
        let build_info = run(&mut client, doc! { "buildInfo": 1 }).await?;
        // A used volume's version is asked for while its mongod is elected; a new one has none yet.
        let known = match member.volume {
            Volume::Used => Some(fcv(&mut client).await?),
            Volume::New => None,
        };
        let hello = await_primary(&mut client).await?;
        let fcv = match known {
            Some(known) => known,
            None => fcv(&mut client).await?,
        };
        Ok((ServerFacts { hello, build_info, fcv }, listening))
    })
    .await
    .unwrap_or(Err(ComputeError::NotReady { socket: socket.to_owned(), limit }))
}

/// The caller bounds the wait, and watches whether the process still lives.
async fn connect(socket: &Path) -> Client {
    loop {
        match Client::connect(socket).await {
            Ok(client) => return client,
            Err(_) => sleep(CONNECT_PAUSE).await,
        }
    }
}

async fn run(client: &mut Client, command: Document) -> Result<Document, ComputeError> {
    let name = command.keys().next().cloned().unwrap_or_default();
    client
        .command("admin", command)
        .await
        .map_err(|source| ComputeError::Setup { command: name, source: Box::new(source) })
}

/// The feature compatibility version of mongod's data.
async fn fcv(client: &mut Client) -> Result<String, ComputeError> {
    let reply = run(client, doc! { "getParameter": 1, "featureCompatibilityVersion": 1 }).await?;
    let fcv = reply.get_document("featureCompatibilityVersion");
    Ok(fcv.and_then(|fcv| fcv.get_str("version")).unwrap_or_default().to_owned())
}

/// A new volume is initiated; one that was made under another address is reconfigured.
async fn settle_membership(client: &mut Client, member: &Member) -> Result<(), ComputeError> {
    let config = |version: i32| {
        doc! { "_id": REPLICA_SET, "version": version,
        "members": [{ "_id": 0, "host": &member.host }] }
    };
    let current = loop {
        let asked = client.command("admin", doc! { "replSetGetConfig": 1 }).await;
        match (asked, member.volume) {
            (Ok(reply), _) => break reply.get_document("config").cloned().unwrap_or_default(),
            (Err(WireError::Command { code: NOT_YET_INITIALIZED, .. }), Volume::New) => {
                run(client, doc! { "replSetInitiate": config(1) }).await?;
                return Ok(());
            }
            (Err(WireError::Command { code: NOT_YET_INITIALIZED, .. }), Volume::Used) => {
                sleep(CONNECT_PAUSE).await;
            }
            // The configuration on disk does not name this process: only a forced one replaces it.
            (Err(WireError::Command { code: INVALID_REPLICA_SET_CONFIG, .. }), _) => {
                break Document::new();
            }
            (Err(source), _) => {
                let command = "replSetGetConfig".to_owned();
                return Err(ComputeError::Setup { command, source: Box::new(source) });
            }
        }
    };
    let members = current.get_array("members").map(Vec::as_slice).unwrap_or_default();
    let host = |member: &bson::Bson| member.as_document()?.get_str("host").ok().map(str::to_owned);
    if members.len() == 1 && host(&members[0]).as_deref() == Some(&member.host) {
        return Ok(());
    }
    let version = current.get_i32("version").unwrap_or(1).saturating_add(1);
    run(client, doc! { "replSetReconfig": config(version), "force": true }).await?;
    Ok(())
}

/// Asks hello until the answer is "writable": mongod holds each question back until its topology
/// changes, so there is no polling interval to wait out.
async fn await_primary(client: &mut Client) -> Result<Document, ComputeError> {
    let mut hello = run(client, doc! { "hello": 1 }).await?;
    while !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        let await_ms = i64::try_from(AWAIT.as_millis()).unwrap_or(i64::MAX);
        let mut question = doc! { "hello": 1 };
        match hello.get_document("topologyVersion") {
            Ok(version) => {
                question.insert("topologyVersion", version.clone());
                question.insert("maxAwaitTimeMS", await_ms);
            }
            // A server that tells no topology version cannot hold a question back.
            Err(_) => sleep(CONNECT_PAUSE).await,
        }
        hello = run(client, question).await?;
    }
    Ok(hello)
}
