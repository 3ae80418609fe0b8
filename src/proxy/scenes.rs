//! Sessions over real branches with scripted mongods: what clients see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use argon_admin::types::Until;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::error::ProxyError;
use super::scripted::{Scene, Visitor};
use super::{Binding, Proxy};
use crate::base::clock::SystemClock;
use crate::base::gauge::Gauge;
use crate::base::limits::ClientLimits;
use crate::wire::{Client, Header, Msg, MsgFlags, OpCode, encode_msg, read_message};

pub(super) fn code(reply: &Document) -> i32 {
    reply.get_i32("code").unwrap_or(0)
}

pub(super) fn labels(reply: &Document) -> Vec<&str> {
    let labels = reply.get_array("errorLabels").map(Vec::as_slice).unwrap_or_default();
    labels.iter().map(|label| label.as_str().unwrap()).collect()
}

pub(super) fn retryable_write() -> RawDocumentBuf {
    rawdoc! { "insert": "c", "txnNumber": 1_i64 }
}

#[tokio::test]
async fn what_is_no_work_wakes_nothing() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.shop/dev").await;
    let hello = client.run(rawdoc! { "hello": 1 }).await;
    assert_eq!(hello.get_str("msg").unwrap(), "isdbgrid");
    assert_eq!(hello.get_i32("maxWireVersion").unwrap(), 17);
    assert_eq!(client.run(rawdoc! { "ping": 1 }).await, doc! { "ok": 1.0 });
    let info = client.run(rawdoc! { "buildInfo": 1 }).await;
    assert_eq!(info, doc! { "version": "6.0.5", "ok": 1 });
    assert_eq!(client.run(rawdoc! { "endSessions": [] }).await, doc! { "ok": 1.0 });
    assert_eq!(code(&client.run(rawdoc! { "abortTransaction": 1 }).await), 251);
    let killed = client.run(rawdoc! { "killCursors": "c", "cursors": [5_i64] }).await;
    assert_eq!(killed.get_array("cursorsNotFound").unwrap().len(), 1);
    let refused = client.run(rawdoc! { "shutdown": 1 }).await;
    assert_eq!((code(&refused), labels(&refused)), (13, vec![]));
    client.leave().await.unwrap();
    assert_eq!(scene.starts(), 0);
}

#[tokio::test]
async fn on_a_running_branch_tidying_up_is_forwarded() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    client.run(rawdoc! { "find": "c" }).await;
    let reply = client.run(rawdoc! { "endSessions": [] }).await;
    assert!(reply.contains_key("got"), "{reply}");
}

#[tokio::test]
async fn a_wrong_address_is_told_with_the_first_command_and_no_sooner() {
    let scene = Scene::new().await;
    for (app_name, text) in [
        ("argon.shop/nope", "there is no branch `nope` in project `shop`"),
        ("argon.nope/dev", "there is no project `nope`"),
        ("MongoDB Shell", "its appName is `MongoDB Shell`"),
        ("argon.Dev", "names no branch"),
    ] {
        let mut client = scene.client(app_name).await;
        assert_eq!(client.run(rawdoc! { "ping": 1 }).await, doc! { "ok": 1.0 });
        for _ in 0..2 {
            let refused = client.run(retryable_write()).await;
            assert_eq!((code(&refused), labels(&refused)), (72, vec![]));
            let message = refused.get_str("errmsg").unwrap();
            assert!(message.contains(text) && message.contains("appName=argon."), "{message}");
        }
        client.leave().await.unwrap();
    }
}

#[tokio::test]
async fn a_branch_that_is_made_later_is_found_without_reconnecting() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.shop/later").await;
    assert_eq!(code(&client.run(rawdoc! { "find": "c" }).await), 72);
    scene.create("later").await;
    assert_eq!(code(&client.run(rawdoc! { "find": "c" }).await), 0);
    // Another branch takes the name.
    scene.branches.delete("shop", "later").await.unwrap();
    assert_eq!(code(&client.run(rawdoc! { "find": "c" }).await), 72);
    scene.create("later").await;
    assert_eq!(code(&client.run(rawdoc! { "find": "c" }).await), 0);
}

#[tokio::test]
async fn many_clients_on_a_sleeping_branch_cause_one_start() {
    let scene = Scene::new().await;
    scene.compute.close_gate();
    let mut clients: Vec<Visitor> = join_all((0..50).map(|_| scene.client("argon.dev"))).await;
    let mut waiting =
        Box::pin(join_all(clients.iter_mut().map(|client| client.run(rawdoc! { "insert": "c" }))));
    assert!((&mut waiting).now_or_never().is_none());
    scene.compute.open_gate();
    let replies = waiting.await;
    assert!(replies.iter().all(|reply| code(reply) == 0));
    assert_eq!(scene.starts(), 1);
    let found = clients[0].run(rawdoc! { "find": "c" }).await;
    assert_eq!(found.get_i32("written").unwrap(), 50);
}

#[tokio::test]
async fn a_client_outlives_its_branchs_sleep() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    for life in 1..=3 {
        assert_eq!(code(&client.run(rawdoc! { "insert": "c" }).await), 0);
        assert_eq!(scene.starts(), life);
        scene.branches.suspend("shop", "dev", Until::Saved).await.unwrap();
    }
    assert_eq!(client.run(rawdoc! { "ping": 1 }).await, doc! { "ok": 1.0 });
    assert_eq!(scene.starts(), 3);
}

#[tokio::test]
async fn a_command_arrives_as_it_was_sent() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    let reply = client.run(rawdoc! { "echo": 1, "x": [1, 2] }).await;
    let got = reply.get_document("got").unwrap();
    assert_eq!(got, &doc! { "echo": 1, "x": [1, 2], "$db": "test" });
}

#[tokio::test]
async fn who_hangs_up_while_parked_is_not_waited_for() {
    let scene = Scene::new().await;
    scene.compute.close_gate();
    let mut client = scene.client("argon.dev").await;
    client.send(&encode_msg(1, 0, MsgFlags::NONE, &rawdoc! { "find": "c", "$db": "d" })).await;
    let ended = client.leave().await;
    assert!(matches!(ended, Err(ProxyError::HungUp)), "{ended:?}");
}

#[tokio::test]
async fn an_unacknowledged_write_is_done_although_its_client_left() {
    let scene = Scene::new().await;
    scene.compute.close_gate();
    let mut client = scene.client("argon.dev").await;
    let write = rawdoc! { "insert": "c", "$db": "d" };
    for _ in 0..3 {
        client.send(&encode_msg(1, 0, MsgFlags::MORE_TO_COME, &write)).await;
    }
    let leaving = tokio::spawn(client.leave());
    scene.compute.open_gate();
    leaving.await.unwrap().unwrap();
    // Nobody waits for it, so it has to be asked for.
    let mut other = scene.client("argon.dev").await;
    while other.run(rawdoc! { "find": "c" }).await.get_i32("written").unwrap() < 3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unacknowledged_writes_get_no_reply_not_even_an_error() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    for command in ["insert", "shutdown", "ping", "die", "insert"] {
        let mut document = RawDocumentBuf::new();
        document.append(<&bson::raw::CStr>::try_from(command).unwrap(), 1);
        document.append(bson::raw::cstr!("$db"), "d");
        client.send(&encode_msg(1, 0, MsgFlags::MORE_TO_COME, &document)).await;
    }
    // The next reply is the next question's: the client checks the ids.
    assert_eq!(client.run(rawdoc! { "ping": 1 }).await, doc! { "ok": 1.0 });
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    let commands = [
        rawdoc! { "insert": "c", "$db": "d" },
        rawdoc! { "ping": 1, "$db": "d" },
        rawdoc! { "many": 1, "$db": "d" },
        rawdoc! { "find": "c", "$db": "d" },
    ];
    for (id, command) in (100..).zip(&commands) {
        client.send(&encode_msg(id, 0, MsgFlags::NONE, command)).await;
    }
    let mut answered = Vec::new();
    for _ in 0..5 {
        let stream = client.client.stream();
        let message = read_message(stream, 1000).await.unwrap().unwrap();
        answered.push(message.header.response_to);
    }
    assert_eq!(answered, [100, 101, 102, 1, 103]);
}

#[tokio::test]
async fn a_server_that_dies_is_an_error_that_can_be_retried() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    for (command, expected) in [
        (rawdoc! { "die": 1 }, vec![]),
        (rawdoc! { "die": 1, "txnNumber": 1_i64 }, vec!["RetryableWriteError"]),
        (
            rawdoc! { "die": 1, "txnNumber": 1_i64, "autocommit": false },
            vec!["TransientTransactionError"],
        ),
    ] {
        let refused = client.run(command).await;
        assert_eq!((code(&refused), labels(&refused)), (6, expected));
        // The branch recovers, and the client's connection with it.
        while code(&client.run(rawdoc! { "find": "c" }).await) != 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn half_a_reply_ends_the_connection() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    assert!(client.client.command_raw("d", &rawdoc! { "tear": 1 }).await.is_err());
    let ended = client.leave().await;
    assert!(matches!(ended, Err(ProxyError::Torn { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_failed_wake_is_a_reply_and_the_connection_lives() {
    let scene = Scene::new().await;
    scene.compute.broken.store(true, Ordering::SeqCst);
    let mut client = scene.client("argon.dev").await;
    let transaction = rawdoc! {
        "insert": "c", "txnNumber": 1_i64, "autocommit": false, "startTransaction": true,
    };
    let large = rawdoc! { "insert": "c", "x": "x".repeat(500_000), "txnNumber": 1_i64 };
    for (command, expected) in [
        (rawdoc! { "find": "c" }, vec![]),
        (retryable_write(), vec!["RetryableWriteError", "NoWritesPerformed"]),
        (large, vec!["RetryableWriteError", "NoWritesPerformed"]),
        (transaction, vec!["TransientTransactionError"]),
    ] {
        let refused = client.run(command).await;
        assert_eq!((code(&refused), labels(&refused)), (6, expected), "{refused}");
    }
    scene.compute.broken.store(false, Ordering::SeqCst);
    scene.branches.resume("shop", "dev").await.unwrap();
    assert_eq!(code(&client.run(retryable_write()).await), 0);
}

#[tokio::test]
async fn compressed_commands_are_taken_though_never_offered() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    for (id, command) in (100..).zip([rawdoc! { "ping": 1 }, rawdoc! { "find": "c", "$db": "d" }]) {
        let plain = encode_msg(id, 0, MsgFlags::NONE, &command);
        let body = &plain[Header::BYTES..];
        let packed = snap::raw::Encoder::new().compress_vec(body).unwrap();
        let length = (Header::BYTES + 9 + packed.len()) as u32;
        let header = Header { length, request_id: id, response_to: 0, opcode: OpCode::Compressed };
        let head = [2013_i32.to_le_bytes(), (body.len() as i32).to_le_bytes()].concat();
        client.send(&[&header.encode()[..], &head, &[1], &packed].concat()).await;
        let reply = read_message(client.client.stream(), 1000).await.unwrap().unwrap();
        assert_eq!((reply.header.response_to, reply.header.opcode), (id, OpCode::Msg));
        assert!(Msg::parse(&reply.body).unwrap().body.get("ok").unwrap().is_some());
    }
}

#[tokio::test]
async fn old_drivers_open_by_query_and_do_nothing_else_by_it() {
    let scene = Scene::new().await;
    let (mut far, session) = scene.connect();
    let client = rawdoc! { "application": { "name": "argon.dev" } };
    let hello = rawdoc! { "isMaster": 1, "helloOk": true, "client": client };
    for (collection, document, flags, key) in [
        ("admin.$cmd", &hello, 8, "ismaster"),
        // The Java driver 3.6 asks so before it takes a connection into its pool.
        ("admin.$cmd", &rawdoc! { "buildInfo": 1 }, 8, "version"),
        ("admin.$cmd", &rawdoc! { "listDatabases": 1 }, 10, "$err"),
        ("shop.orders", &rawdoc! { "isMaster": 1 }, 10, "$err"),
    ] {
        let numbers = [0_i32.to_le_bytes(), (-1_i32).to_le_bytes()].concat();
        let name = [collection.as_bytes(), b"\0"].concat();
        let body = [&[0; 4][..], &name, &numbers, document.as_bytes()].concat();
        let length = (Header::BYTES + body.len()) as u32;
        let header = Header { length, request_id: 3, response_to: 0, opcode: OpCode::Query };
        far.write_all(&[&header.encode()[..], &body].concat()).await.unwrap();
        let reply = read_message(&mut far, 10_000).await.unwrap().unwrap();
        assert_eq!((reply.header.opcode, reply.header.response_to), (OpCode::Reply, 3));
        assert_eq!(reply.body[0], flags);
        let document = bson::RawDocument::from_bytes(&reply.body[20..]).unwrap();
        assert!(document.get(key).unwrap().is_some(), "{document:?}");
    }
    // What the query said of the client counts for the commands that follow.
    let find = encode_msg(4, 0, MsgFlags::NONE, &rawdoc! { "find": "c", "$db": "d" });
    far.write_all(&find).await.unwrap();
    let reply = read_message(&mut far, 10_000).await.unwrap().unwrap();
    assert!(Msg::parse(&reply.body).unwrap().body.get_i32("written").is_ok());
    drop(far);
    session.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_load_balanced_client_always_gets_a_service_id() {
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for name in ["argon.shop/dev", "argon.dev", "argon.nope", "other"] {
        let (far, _session) = scene.connect();
        let mut client = Client::over(far);
        for _ in 0..2 {
            let client_document = doc! { "application": { "name": name } };
            let hello = doc! { "hello": 1, "loadBalanced": true, "client": client_document };
            let reply = client.command("admin", hello).await.unwrap();
            ids.push(reply.get_object_id("serviceId").unwrap());
        }
    }
    assert!(ids[..4].iter().all(|id| *id == ids[0]));
    assert_ne!(ids[0], ids[4]);
}

#[tokio::test]
async fn other_protocols_and_wrong_bytes_end_their_connection_only() {
    let scene = Scene::new().await;
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""),
        (&[0xff; 40], ""),
        (&[0; 16], ""),
        (&encode_msg(1, 0, MsgFlags(1 << 9), &rawdoc! { "hello": 1 }), ""),
        (
            &Header { length: 16, request_id: 1, response_to: 0, opcode: OpCode::Other(2001) }
                .encode(),
            "",
        ),
    ] {
        let (mut far, session) = scene.connect();
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with(answer) && got.is_empty() == answer.is_empty(), "{got}");
        assert!(session.await.unwrap().is_err());
    }
    scene.client("argon.dev").await.leave().await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_the_command_at_hand_finish_and_sends_the_rest_away() {
    let scene = Scene::new().await;
    let idle = scene.client("argon.dev").await;
    let mut working = scene.client("argon.dev").await;
    let mut parked = scene.client("argon.parked").await;
    scene.create("parked").await;
    working.run(rawdoc! { "find": "c" }).await;
    {
        let mut wait = Box::pin(working.run(rawdoc! { "wait": 1 }));
        assert!((&mut wait).now_or_never().is_none());
        scene.compute.close_gate();
        let mut waking = Box::pin(parked.run(retryable_write()));
        assert!((&mut waking).now_or_never().is_none());
        // All three are where they should be once the branch knows of its request.
        while scene.branches.show("shop", "dev").unwrap().in_flight == 0 || scene.starts() < 2 {
            tokio::task::yield_now().await;
        }
        scene.drain.cancel();
        let refused = waking.await;
        assert_eq!(code(&refused), 91);
        assert_eq!(labels(&refused), ["RetryableWriteError", "NoWritesPerformed"]);
        scene.compute.go.add_permits(1);
        assert_eq!(code(&wait.await), 0);
    }
    for client in [idle, working, parked] {
        // The connections end although the clients hold them.
        let Visitor { client, session } = client;
        session.await.unwrap().unwrap();
        drop(client);
    }
}

/// A proxy on a port of its own, and the task that serves.
async fn serving(scene: &Scene) -> (SocketAddr, Gauge, JoinHandle<()>) {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let clock = Arc::new(SystemClock::default());
    let limits = ClientLimits::default();
    let bound = Proxy::bind(any_port, Binding::Alone, clock, limits, Arc::default()).await;
    let proxy = bound.unwrap();
    let (address, connections) = (proxy.local_addr(), proxy.connections());
    let serving = tokio::spawn(proxy.serve(scene.branches.clone(), scene.drain.clone()));
    (address, connections, serving)
}

#[tokio::test]
async fn a_port_outlives_its_worst_clients_and_counts_the_others() {
    let scene = Scene::new().await;
    let (address, connections, serving) = serving(&scene).await;
    for (bytes, answer) in
        [(&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 400"), (&[0xff; 64], ""), (b"\x30", "")]
    {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        // A reset is an end too.
        let _ = client.read_to_string(&mut got).await;
        assert!(got.starts_with(answer), "{got}");
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = Client::over(stream);
    let metadata = doc! { "application": { "name": "argon.dev" } };
    client.command("admin", doc! { "hello": 1, "client": metadata }).await.unwrap();
    client.command("test", doc! { "find": "c" }).await.unwrap();
    while connections.value() != 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.branches.show("shop", "dev").unwrap().clients, 1);
    scene.drain.cancel();
    serving.await.unwrap();
    assert_eq!(connections.value(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_command_that_never_ends_does_not_hold_up_the_end() {
    let scene = Scene::new().await;
    let (address, connections, serving) = serving(&scene).await;
    let mut client = Client::over(TcpStream::connect(address).await.unwrap());
    let metadata = doc! { "application": { "name": "argon.dev" } };
    client.command("admin", doc! { "hello": 1, "client": metadata }).await.unwrap();
    client.command("test", doc! { "find": "c" }).await.unwrap();
    let waiting = tokio::spawn(async move { client.command("test", doc! { "wait": 1 }).await });
    while scene.branches.show("shop", "dev").unwrap().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    scene.drain.cancel();
    serving.await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(connections.value(), 0);
    assert_eq!(scene.branches.show("shop", "dev").unwrap().in_flight, 0);
}

#[tokio::test]
async fn a_request_in_flight_holds_its_branch_awake() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    client.run(rawdoc! { "find": "c" }).await;
    let in_flight = || scene.branches.show("shop", "dev").unwrap().in_flight;
    assert_eq!(in_flight(), 0);
    let mut wait = Box::pin(client.run(rawdoc! { "wait": 1 }));
    tokio::select! {
        reply = &mut wait => panic!("{reply}"),
        () = async { while in_flight() == 0 { tokio::task::yield_now().await } } => {}
    }
    scene.compute.go.add_permits(1);
    wait.await;
    while in_flight() != 0 {
        tokio::task::yield_now().await;
    }
}
