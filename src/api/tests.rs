//! The whole surface over a socket, with a real mongod below.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use argon_admin::client::{Client, ClientError, Step};
use argon_admin::types::{
    At, BranchSource, BranchState, ChangeBranch, CreateBranch, CreateProject, Deleted, Operation,
    OperationResult, OperationStatus, RecoverBranch, Recovery, Until,
};
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;
use crate::base::clock::SystemClock;
use crate::branch::Parts;
use crate::catalog::Catalog;
use crate::compute::ProcessCompute;
use crate::compute::mongod::Search;
use crate::store::LocalStore;

/// Larger than the sample, smaller than what a test sends to be refused.
const LIMIT: u64 = 1024 * 1024;

struct Server {
    address: SocketAddr,
    branches: Branches,
    closing: CancellationToken,
    serving: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let search = || Search::of_this_process(None).unwrap().find_or_fetch(&mut |_| {}).unwrap();
        let mongod = spawn_blocking(search).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let parts = Parts {
            catalog: Catalog::open(&dir.path().join("catalog.sqlite")).unwrap(),
            store: Arc::new(LocalStore::open(dir.path().join("store")).unwrap()),
            compute: Arc::new(ProcessCompute::new(mongod).await.unwrap()),
            clock: Arc::clone(&clock),
            metrics: Arc::default(),
        };
        let settings = crate::branch::Settings {
            data_dir: dir.path().to_owned(),
            idle_timeout: "5m".parse().unwrap(),
            snapshot_every: argon_admin::types::SnapshotEvery::Off,
            keep_warm: None,
            mounts: Default::default(),
            address: "127.0.0.1:27017".to_owned(),
            base_key: "base/dump.archive".parse().unwrap(),
            sample_base: include_bytes!("../../proxy-tests/golden/shop.archive.gz"),
            parked: 0,
            cache_gb: 0.25,
            oplog_mb: 64,
            clients_max: 100,
            garbage: Default::default(),
            writers: crate::branch::Writers::One,
        };
        let branches = Branches::open(parts, settings).await.unwrap();
        let settings = Settings {
            listen: "127.0.0.1:27017".parse().unwrap(),
            data_dir: dir.path().to_owned(),
            mongod: Mongod { path: "/x/mongod".into(), version: "6.0.5".into() },
            clock,
            connections: Box::new(|| 7),
            archive_bytes_max: LIMIT,
            metrics: Arc::default(),
        };
        let api = Api::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, closing) = (api.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(api.serve(branches.clone(), settings, closing.clone()));
        Self { address, branches, closing, serving, dir }
    }

    /// Calls the API as the command line does.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(Client) -> T + Send + 'static) -> T {
        let client = Client::new(self.address.to_string().parse().unwrap());
        spawn_blocking(move || call(client)).await.unwrap()
    }

    async fn end(self) {
        self.closing.cancel();
        assert!(self.branches.close().await.is_empty());
        self.serving.await.unwrap();
        assert_eq!(std::fs::read_dir(self.dir.path().join("tmp")).unwrap().count(), 0);
    }
}

fn done(client: &Client, begun: Result<Operation, ClientError>) -> Operation {
    let operation = client.follow(begun.unwrap()).unwrap();
    assert_eq!(operation.status, OperationStatus::Succeeded);
    assert!(operation.ended_at >= Some(operation.started_at.clone()));
    operation
}

fn branch(operation: Operation) -> argon_admin::types::Branch {
    match operation.result {
        Some(OperationResult::Branch(branch)) => *branch,
        other => panic!("{other:?}"),
    }
}

fn refused(client: &Client, begun: Result<Operation, ClientError>) -> String {
    begun.and_then(|operation| client.follow(operation)).unwrap_err().code().to_owned()
}

fn new_branch(name: &str, source: BranchSource) -> CreateBranch {
    CreateBranch {
        name: name.into(),
        source,
        idle_timeout: Some("1h".parse().unwrap()),
        snapshot_every: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_and_its_branches_live_and_end_over_http() {
    let server = Server::start().await;
    server.call(life_of_a_project).await;
    server.end().await;
}

fn life_of_a_project(client: Client) {
    let shop = CreateProject { name: "shop".into(), image: None };
    assert_eq!(
        refused(&client, client.create_project(&CreateProject { name: "S".into(), image: None })),
        "invalid_name"
    );
    let created = done(&client, client.create_project(&shop));
    let project = client.projects().unwrap().remove(0);
    assert_eq!(created.result, Some(OperationResult::Project(project.clone())));
    assert!(project.base_version.is_some());
    assert_eq!(refused(&client, client.create_project(&shop)), "project_exists");

    let dev = new_branch("dev", BranchSource::Base);
    let created = branch(done(&client, client.create_branch("shop", &dev)));
    assert_eq!(created.state, BranchState::Suspended);
    assert_eq!(created.uri, "mongodb://127.0.0.1:27017/?appName=argon.shop%2Fdev");
    assert_eq!(client.branch("shop", "dev").unwrap(), created);
    assert_eq!(refused(&client, client.create_branch("shop", &dev)), "branch_exists");
    assert_eq!(
        refused(&client, client.step("shop", "none", Step::Suspend(Until::Saved))),
        "unknown_branch"
    );

    let changed = |change: &ChangeBranch| {
        let now = branch(done(&client, client.change_branch("shop", "dev", change)));
        (now.idle_timeout.to_string(), now.snapshot_every.to_string())
    };
    let every = |text: &str| Some(Some(text.parse().unwrap()));
    let change = ChangeBranch { snapshot_every: every("5s"), ..ChangeBranch::default() };
    assert_eq!(changed(&change), ("1h".into(), "5s".into()));
    let resumed = branch(done(&client, client.step("shop", "dev", Step::Resume)));
    assert_eq!(resumed.state, BranchState::Running);
    let status = client.status().unwrap();
    assert_eq!((status.projects, status.branches.running, status.connections), (1, 1, 7));
    // The claim on a branch that runs goes along, or its suspend would fail below.
    let change = ChangeBranch { idle_timeout: Some(None), snapshot_every: every("1m") };
    assert_eq!(changed(&change), ("5m".into(), "1m".into()));
    assert_eq!(changed(&ChangeBranch::default()), ("5m".into(), "1m".into()));
    let salvage = RecoverBranch { how: Recovery::Salvage };
    assert_eq!(refused(&client, client.recover("shop", "dev", &salvage)), "branch_not_held");
    assert_eq!(refused(&client, client.recover("shop", "none", &salvage)), "unknown_branch");
    let mut archive = Vec::new();
    client.dump("shop", "dev").unwrap().read_to_end(&mut archive).unwrap();
    assert!(archive.starts_with(&[0x1f, 0x8b]), "a gzip'ed archive");
    let suspended = branch(done(&client, client.step("shop", "dev", Step::Suspend(Until::Saved))));
    assert_eq!(suspended.state, BranchState::Suspended);
    let reset = ChangeBranch { snapshot_every: Some(None), ..ChangeBranch::default() };
    assert_eq!(changed(&reset), ("5m".into(), "off".into()));

    let versions = client.versions("shop", "dev").unwrap();
    let last = versions.last().unwrap();
    assert_eq!((&last.id, last.cause.as_str()), (&suspended.head_version, "suspend"));
    let at = Some(At::Version(versions[0].id.clone()));
    let source = BranchSource::Branch { branch: "dev".into(), at };
    let old = branch(done(&client, client.create_branch("shop", &new_branch("old", source))));
    assert_eq!(old.origin.unwrap().branch, "dev");

    let base = done(&client, client.set_base(&*archive, archive.len() as u64));
    assert_eq!(base.result, Some(OperationResult::Base(client.base().unwrap())));
    let base = |bytes: &[u8]| refused(&client, client.set_base(bytes, bytes.len() as u64));
    assert_eq!(base(b"no archive"), "invalid_archive");
    assert_eq!(base(&vec![0; LIMIT as usize + 1]), "archive_too_large");

    done(&client, client.delete_branch("shop", "old"));
    done(&client, client.delete_branch("shop", "dev"));
    let names = |deleted| -> Vec<_> {
        client.branches("shop", deleted).unwrap().into_iter().map(|branch| branch.name).collect()
    };
    assert_eq!(
        (names(Deleted::Without), names(Deleted::Only)),
        (vec![], vec!["old".into(), "dev".into()])
    );
    done(&client, client.step("shop", "dev", Step::Undelete));
    assert_eq!(refused(&client, client.delete_project("shop")), "project_not_empty");
    assert_eq!(refused(&client, client.step("shop", "dev", Step::Purge)), "branch_not_deleted");
    done(&client, client.step("shop", "old", Step::Purge));
    done(&client, client.delete_branch("shop", "dev"));
    done(&client, client.delete_project("shop"));
    assert_eq!(client.projects().unwrap(), []);

    let operations = client.operations().unwrap();
    assert!(operations.is_sorted_by(|newer, older| newer.started_at > older.started_at));
    assert_eq!(client.operation(&operations[0].id).unwrap(), operations[0]);
}

/// An answer as it came.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends text as it is; `{own}` stands for the server's address.
fn raw(address: SocketAddr, request: &str) -> Answer {
    let mut socket = TcpStream::connect(address).unwrap();
    let request = request.replace("{own}", &address.to_string());
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn request(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let host = if headers.contains("host:") { "" } else { "host: {own}\r\n" };
    format!(
        "{line} HTTP/1.1\r\n{host}connection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_document() {
    const JSON: &str = "content-type: application/json\r\n";
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(100_000));
    let none = "GET /v1/projects/none/branches";
    let server = Server::start().await;
    let address = server.address;
    for (line, headers, body, status, code) in [
        ("GET /", "", "", 404, "unknown_route"),
        ("GET /v2/projects", "", "", 404, "unknown_route"),
        ("PATCH /v1/projects", "", "", 405, "method_not_allowed"),
        ("POST /v1/projects", JSON, "{", 400, "malformed_request"),
        ("POST /v1/projects", JSON, r#"{"name":"a","x":1}"#, 422, "invalid_request"),
        ("POST /v1/projects", JSON, "{}", 422, "invalid_request"),
        ("POST /v1/projects", "", r#"{"name":"a"}"#, 415, "not_json"),
        ("POST /v1/projects", JSON, &large, 413, "request_too_large"),
        (none, "", "", 404, "unknown_project"),
        (&format!("{none}?deleted=maybe"), "", "", 400, "malformed_request"),
        (&format!("{none}?delete=only"), "", "", 400, "malformed_request"),
        ("GET /v1/projects/%FF/branches", "", "", 400, "malformed_request"),
        ("GET /v1/projects/No/branches", "", "", 422, "invalid_name"),
        (&format!("{none}/dev/dump"), "", "", 404, "unknown_project"),
        ("GET /v1/operations/x", "", "", 404, "unknown_operation"),
        ("GET /v1/operations/x?wait_ms=soon", "", "", 400, "malformed_request"),
        ("GET /v1/status", "host: evil.example\r\n", "", 403, "foreign_host"),
        ("POST /v1/projects", "origin: http://evil.example\r\n", "", 403, "foreign_origin"),
        (
            "PUT /v1/base",
            "expect: 100-continue\r\n",
            &"x".repeat(LIMIT as usize + 1),
            413,
            "archive_too_large",
        ),
    ] {
        let text = request(line, headers, body);
        let text = if code == "archive_too_large" {
            // Refused by its announced length alone: the body is never sent.
            text.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n\r\n"
        } else {
            text
        };
        let answer = spawn_blocking(move || raw(address, &text)).await.unwrap();
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/problem+json"), "{line}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&code.into(), &status.into()),
            "{line}"
        );
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{line}");
        assert_eq!(status == 405, answer.head.contains("allow: "), "{line}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_over_routes_is_served_too() {
    let server = Server::start().await;
    let address = server.address;
    let answers = spawn_blocking(move || {
        [
            raw(address, &request("GET /healthz", "host: anything\r\n", "")),
            raw(address, &request("GET /v1/openapi.json", "", "")),
            raw(
                address,
                &request(
                    "POST /v1/projects",
                    "origin: http://{own}\r\ncontent-type: application/json\r\n",
                    r#"{"name":"shop"}"#,
                ),
            ),
        ]
    });
    let [health, document, accepted] = answers.await.unwrap();
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));

    assert!(document.head.contains("content-type: application/json"));
    let document: Value = serde_json::from_str(&document.body).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!((paths.len(), methods), (27, 35));
    let branch = &document["components"]["schemas"]["CreateBranch"];
    assert_eq!(branch["additionalProperties"], false);
    assert_eq!(branch["required"], serde_json::json!(["name"]));

    assert_eq!(accepted.status, 202);
    let operation: Operation = serde_json::from_str(&accepted.body).unwrap();
    assert!(accepted.head.contains(&format!("location: /v1/operations/{}", operation.id)));
    // Its client is gone; the work is not.
    server.call(move |client| client.follow(operation).unwrap()).await;
    assert_eq!(server.branches.projects().len(), 1);
    server.end().await;
}
