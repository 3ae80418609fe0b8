//! For tests: real branches whose mongods are scripted, so that every way in which a server can
//! fail a client is one command away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use argon_admin::types::{BranchSource, CreateBranch, IdleTimeout};
use async_trait::async_trait;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::ProxyError;
use super::pool::Pools;
use super::session::{House, Session};
use crate::base::clock::SystemClock;
use crate::base::gauge::Gauge;
use crate::base::limits::{ClientLimits, MESSAGE_BYTES_MAX};
use crate::branch::{Branches, Parts, Settings};
use crate::catalog::Catalog;
use crate::compute::{Cell, Compute, ComputeError, Exit, Instance, ServerFacts};
use crate::store::LocalStore;
use crate::wire::{Client, Msg, MsgFlags, encode_msg, read_message};

/// A server with project `shop` and its suspended branch `dev`.
pub(super) struct Scene {
    pub(super) branches: Branches,
    pub(super) compute: Arc<ScriptedCompute>,
    pub(super) drain: CancellationToken,
    pub(super) pools: Arc<Pools>,
    starts_before: usize,
    _dir: tempfile::TempDir,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let compute = Arc::new(ScriptedCompute::default());
        let parts = Parts {
            catalog: Catalog::open(&dir.path().join("catalog.sqlite")).unwrap(),
            store: Arc::new(LocalStore::open(dir.path().join("store")).unwrap()),
            compute: compute.clone(),
            clock: Arc::new(SystemClock::default()),
            metrics: Arc::default(),
        };
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            idle_timeout: IdleTimeout::Never,
            snapshot_every: argon_admin::types::SnapshotEvery::Off,
            keep_warm: argon_admin::types::KeepWarm::Off,
            mounts: Default::default(),
            address: "127.0.0.1:27017".to_owned(),
            base_key: "base/dump.archive".parse().unwrap(),
            sample_base: empty_archive(),
            parked: 0,
            cache_gb: 0.25,
            oplog_mb: 16,
            clients_max: 100,
            garbage: Default::default(),
            writers: crate::branch::Writers::One,
        };
        let branches = Branches::open(parts, settings).await.unwrap();
        branches.create_project("shop", None, &|_| ()).await.unwrap();
        let starts_before = compute.starts.load(Ordering::SeqCst);
        let drain = CancellationToken::new();
        let scene =
            Self { branches, compute, drain, pools: Arc::default(), starts_before, _dir: dir };
        scene.create("dev").await;
        scene
    }

    pub(super) async fn create(&self, name: &str) {
        let request = CreateBranch {
            name: name.to_owned(),
            source: BranchSource::Empty,
            idle_timeout: None,
            snapshot_every: None,
            keep_warm: None,
        };
        self.branches.create("shop", request).await.unwrap();
    }

    /// How often a branch's mongod was started.
    pub(super) fn starts(&self) -> usize {
        self.compute.starts.load(Ordering::SeqCst) - self.starts_before
    }

    /// A client that did not say anything yet.
    pub(super) fn connect(&self) -> (DuplexStream, JoinHandle<Result<(), ProxyError>>) {
        let (far, near) = duplex(1 << 20);
        let clock = Arc::new(SystemClock::default());
        let house = Arc::new(House {
            branches: self.branches.clone(),
            clock,
            metrics: Arc::default(),
            limits: ClientLimits::default(),
            pools: self.pools.clone(),
        });
        let session = Session::new(house, 7, near, self.drain.clone());
        (far, tokio::spawn(session.run()))
    }

    /// A client that said hello with this appName.
    pub(super) async fn client(&self, app_name: &str) -> Visitor {
        let (far, session) = self.connect();
        let mut client = Client::over(far);
        let hello = doc! { "hello": 1, "client": { "application": { "name": app_name } } };
        client.command("admin", hello).await.unwrap();
        Visitor { client, session }
    }
}

/// A client and the session that serves it.
pub(super) struct Visitor {
    pub(super) client: Client<DuplexStream>,
    pub(super) session: JoinHandle<Result<(), ProxyError>>,
}

impl Visitor {
    /// Runs a command and returns its reply, be it an error.
    pub(super) async fn run(&mut self, command: RawDocumentBuf) -> Document {
        let reply = self.client.command_raw("test", &command).await.unwrap();
        Document::try_from(reply).unwrap()
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.client.stream().write_all(bytes).await.unwrap();
    }

    /// Leaves, and tells how the session ended.
    pub(super) async fn leave(self) -> Result<(), ProxyError> {
        drop(self.client);
        self.session.await.unwrap()
    }
}

/// An archive of nothing: magic, header, terminator.
fn empty_archive() -> &'static [u8] {
    let header = rawdoc! {
        "concurrent_collections": 1, "version": "0.1",
        "server_version": "6.0.5", "tool_version": "test",
    };
    let magic = 0x8199_e26d_u32.to_le_bytes();
    Vec::leak([&magic[..], header.as_bytes(), &[0xff; 4]].concat())
}

/// Starts scripted mongods.
#[derive(Debug)]
pub(super) struct ScriptedCompute {
    starts: AtomicUsize,
    /// Starts wait for a permit where there is a gate.
    gate: watch::Sender<bool>,
    /// Starts fail.
    pub(super) broken: AtomicBool,
    /// What `wait` waits for.
    pub(super) go: Arc<Semaphore>,
    /// Connections that are open now.
    pub(super) connections: Gauge,
    /// Connections that there ever were.
    pub(super) accepted: Arc<AtomicUsize>,
}

impl Default for ScriptedCompute {
    fn default() -> Self {
        Self {
            starts: AtomicUsize::new(0),
            gate: watch::Sender::new(true),
            broken: AtomicBool::new(false),
            go: Arc::new(Semaphore::new(0)),
            connections: Gauge::default(),
            accepted: Arc::default(),
        }
    }
}

impl ScriptedCompute {
    /// Lets starts wait until [`Self::open_gate`].
    pub(super) fn close_gate(&self) {
        self.gate.send_replace(false);
    }

    pub(super) fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

#[async_trait]
impl Compute for ScriptedCompute {
    fn describe(&self) -> String {
        "scripted".to_owned()
    }

    fn mongod_version(&self) -> &str {
        "6.0.5"
    }

    async fn start(&self, cell: Cell) -> Result<Arc<dyn Instance>, ComputeError> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        let open = self.gate.subscribe().wait_for(|open| *open).await.map(|_| ());
        open.expect("the gate lives as long as the compute");
        let socket = cell.socket_dir.join("mongod.sock");
        if self.broken.load(Ordering::SeqCst) {
            return Err(ComputeError::NotReady { socket, limit: Duration::ZERO });
        }
        // Stopped cleanly, as far as anybody can tell.
        std::fs::write(cell.dbpath.join("mongod.lock"), b"").unwrap();
        // A life before may have left it, as a killed mongod does.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let hello = doc! { "isWritablePrimary": true, "maxWireVersion": 17, "minWireVersion": 0 };
        let build_info = doc! { "version": "6.0.5", "operationTime": 1, "ok": 1 };
        let facts = ServerFacts { hello, build_info, fcv: "6.0".to_owned() };
        let ended = CancellationToken::new();
        let accepted = self.accepted.clone();
        let script = Script { go: self.go.clone(), written: Arc::default(), ended: ended.clone() };
        tokio::spawn(serve(listener, script, self.connections.clone(), accepted));
        Ok(Arc::new(Scripted { socket, facts, ended }))
    }
}

#[derive(Debug)]
struct Scripted {
    socket: PathBuf,
    facts: ServerFacts,
    ended: CancellationToken,
}

#[async_trait]
impl Instance for Scripted {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    async fn wait(&self) -> Exit {
        self.ended.cancelled().await;
        Exit::unknown()
    }

    async fn stop(&self) -> Exit {
        self.ended.cancel();
        Exit::unknown()
    }

    async fn kill(&self) {
        self.ended.cancel();
    }
}

/// What the connections to one mongod share.
#[derive(Clone)]
struct Script {
    go: Arc<Semaphore>,
    written: Arc<AtomicUsize>,
    ended: CancellationToken,
}

async fn serve(
    listener: UnixListener,
    script: Script,
    connections: Gauge,
    accepted: Arc<AtomicUsize>,
) {
    let ended = script.ended.clone();
    while let Some(Ok((stream, _))) = ended.run_until_cancelled(listener.accept()).await {
        let (ended, script, counted) = (ended.clone(), script.clone(), connections.enter());
        accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let _counted = counted;
            ended.run_until_cancelled(talk(stream, script)).await
        });
    }
}

/// The script: `insert` counts, `find` tells the count, `die` dies without an answer, `tear` dies in
/// the middle of one, `wait` waits for a permit, `many` answers twice, `retire` is answered as by a
/// server that is being stopped; everything else gets back what it sent.
async fn talk(mut stream: UnixStream, script: Script) {
    let Script { go, written, ended } = script;
    while let Ok(Some(message)) = read_message(&mut stream, MESSAGE_BYTES_MAX).await {
        let msg = Msg::parse(&message.body).unwrap();
        let id = message.header.request_id;
        let mut answers = vec![(id, MsgFlags::NONE)];
        let mut reply = rawdoc! { "ok": 1 };
        match msg.first_key().unwrap().unwrap() {
            "insert" => {
                written.fetch_add(1, Ordering::SeqCst);
            }
            "find" => {
                let count = i32::try_from(written.load(Ordering::SeqCst)).unwrap();
                reply.append(bson::raw::cstr!("written"), count);
            }
            "die" => {
                ended.cancel();
                return;
            }
            "tear" => {
                // Too large to be read whole before its beginning is passed on.
                reply.append(bson::raw::cstr!("padding"), "x".repeat(20_000));
                let whole = encode_msg(1, id, MsgFlags::NONE, &reply);
                stream.write_all(&whole[..whole.len() - 1]).await.unwrap();
                ended.cancel();
                return;
            }
            "wait" => go.acquire().await.unwrap().forget(),
            "retire" => reply = rawdoc! { "ok": 0.0, "errmsg": "bye", "code": 11600 },
            "many" => {
                // Each reply has the id that the next one answers.
                answers = vec![(id, MsgFlags::MORE_TO_COME), (1, MsgFlags::NONE)];
            }
            _ => reply.append(bson::raw::cstr!("got"), msg.body),
        }
        if msg.flags.contains(MsgFlags::MORE_TO_COME) {
            continue;
        }
        for (answers, flags) in answers {
            stream.write_all(&encode_msg(1, answers, flags, &reply)).await.unwrap();
        }
    }
}
