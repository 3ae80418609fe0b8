//! Sessions over a branch's lives with scripted mongods: what a life leaves behind, what clients share
//! while it lasts, and what never reaches it.

use std::sync::atomic::Ordering;

use argon_admin::types::Until;
use bson::{RawDocumentBuf, rawdoc};
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::scenes::{code, labels, retryable_write};
use super::scripted::{Scene, Visitor};
use crate::base::limits::{BACKS_AT_REST_MAX, PARKED_BYTES_MAX};
use crate::branch::Use;

#[tokio::test]
async fn what_an_earlier_life_began_is_dead_and_wakes_nothing() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    let get_more = rawdoc! { "getMore": 5_i64, "collection": "c" };
    let next = rawdoc! { "insert": "c", "txnNumber": 1_i64, "autocommit": false };
    let get_more_in_transaction =
        rawdoc! { "getMore": 5_i64, "txnNumber": 1_i64, "autocommit": false };
    let rows = [
        (&get_more, 43, vec![]),
        (&next, 251, vec!["TransientTransactionError"]),
        (&get_more_in_transaction, 251, vec!["TransientTransactionError"]),
    ];
    for _ in 0..2 {
        for (command, expected, labelled) in &rows {
            let dead = client.run((*command).clone()).await;
            assert_eq!((code(&dead), labels(&dead)), (*expected, labelled.clone()), "{dead}");
        }
        // Nor while it wakes: that life will not know them either.
        scene.compute.close_gate();
        let branches = scene.branches.clone();
        let waking = tokio::spawn(async move { branches.resume("shop", "dev").await });
        while scene.starts() == 0 {
            tokio::task::yield_now().await;
        }
        for (command, expected, _) in &rows {
            assert_eq!(code(&client.run((*command).clone()).await), *expected);
        }
        scene.compute.open_gate();
        waking.await.unwrap().unwrap();
        for (command, ..) in &rows {
            let answered = client.run((*command).clone()).await;
            assert_eq!(code(&answered), 0, "a life that runs knows its own: {answered}");
        }
        scene.branches.suspend("shop", "dev", Until::Saved).await.unwrap();
    }
}

#[tokio::test]
async fn a_transactions_first_command_and_its_commit_are_work() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    let transaction = |name: &str| {
        let mut command = RawDocumentBuf::new();
        command.append(<&bson::raw::CStr>::try_from(name).unwrap(), 1);
        command.append(bson::raw::cstr!("txnNumber"), 1_i64);
        command.append(bson::raw::cstr!("autocommit"), false);
        command
    };
    let mut first = transaction("update");
    first.append(bson::raw::cstr!("startTransaction"), true);
    for (starts, command) in [(1, first), (2, transaction("commitTransaction"))] {
        assert_eq!(code(&client.run(command).await), 0);
        assert_eq!(scene.starts(), starts);
        scene.branches.suspend("shop", "dev", Until::Saved).await.unwrap();
    }
}

#[tokio::test]
async fn what_would_break_a_promise_is_refused_with_a_hint() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    for (command, hint) in [
        (rawdoc! { "shutdown": 1 }, "argon branch suspend"),
        (rawdoc! { "replSetStepDown": 1 }, "argon branch create"),
        (rawdoc! { "fsync": 1, "lock": true }, "argon branch dump"),
        (rawdoc! { "setParameter": 1 }, "maxTimeMS"),
        (rawdoc! { "addShard": "x" }, "without being sharded"),
    ] {
        let refused = client.run(command).await;
        assert_eq!((code(&refused), labels(&refused)), (13, vec![]));
        let message = refused.get_str("errmsg").unwrap();
        assert!(message.contains(hint), "{message}");
    }
    assert_eq!(scene.starts(), 0);
    assert_eq!(code(&client.run(rawdoc! { "fsync": 1 }).await), 0);
}

#[tokio::test]
async fn clients_of_one_kind_share_what_they_do_not_use() {
    const CLIENTS: usize = 40;
    let scene = Scene::new().await;
    let accepted = || scene.compute.accepted.load(Ordering::SeqCst);
    let mut clients: Vec<Visitor> = join_all((0..CLIENTS).map(|_| scene.client("argon.dev"))).await;
    for client in &mut clients {
        client.run(rawdoc! { "find": "c" }).await;
    }
    while scene.compute.connections.value() > BACKS_AT_REST_MAX {
        tokio::task::yield_now().await;
    }
    // All of them work again, on what is left.
    let before = accepted();
    for client in &mut clients {
        client.run(rawdoc! { "find": "c" }).await;
        while scene.compute.connections.value() > BACKS_AT_REST_MAX {
            tokio::task::yield_now().await;
        }
    }
    assert!(accepted() - before < CLIENTS, "{} connections anew", accepted() - before);
    scene.branches.suspend("shop", "dev", Until::Saved).await.unwrap();
    while scene.compute.connections.value() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_hands_its_connection_on_unless_it_logged_in() {
    let scene = Scene::new().await;
    let before = scene.compute.accepted.load(Ordering::SeqCst);
    for (command, app_name, accepted) in [
        (rawdoc! { "find": "c" }, "argon.dev", 1),
        (rawdoc! { "find": "c" }, "argon.dev", 1),
        (rawdoc! { "find": "c" }, "argon.shop/dev", 2),
        (rawdoc! { "saslStart": 1 }, "argon.dev", 2),
        (rawdoc! { "find": "c" }, "argon.dev", 3),
    ] {
        let mut client = scene.client(app_name).await;
        client.run(command).await;
        client.leave().await.unwrap();
        assert_eq!(scene.compute.accepted.load(Ordering::SeqCst) - before, accepted);
    }
}

#[tokio::test]
async fn a_server_that_retires_does_not_cost_clients_their_pools() {
    let scene = Scene::new().await;
    let mut client = scene.client("argon.dev").await;
    for (command, labelled) in [
        (rawdoc! { "retire": 1 }, vec![]),
        (rawdoc! { "retire": 1, "txnNumber": 1_i64 }, vec!["RetryableWriteError"]),
    ] {
        let refused = client.run(command).await;
        assert_eq!((code(&refused), labels(&refused)), (6, labelled), "{refused}");
        assert!(refused.get_str("errmsg").unwrap().contains("code 11600: bye"));
    }
    assert_eq!(code(&client.run(rawdoc! { "find": "c" }).await), 0);
}

#[tokio::test]
async fn one_command_too_many_is_told_to_come_back() {
    let scene = Scene::new().await;
    scene.compute.close_gate();
    let mut client = scene.client("argon.dev").await;
    let dev = scene.branches.route(None, &"dev".parse().unwrap()).unwrap();
    let mut crowd = Box::pin(dev.acquire(Use::Work, PARKED_BYTES_MAX));
    assert!((&mut crowd).now_or_never().is_none());
    let refused = client.run(retryable_write()).await;
    assert_eq!(code(&refused), 6, "{refused}");
    assert_eq!(labels(&refused), ["RetryableWriteError", "NoWritesPerformed"]);
    assert!(refused.get_str("errmsg").unwrap().contains("wait for branch `dev` already"));
    drop(crowd);
    scene.compute.open_gate();
    assert_eq!(code(&client.run(retryable_write()).await), 0);
}
