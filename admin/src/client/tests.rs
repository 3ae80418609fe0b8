//! The client against a socket that answers by the byte.

use std::io::Read;
use std::net::TcpListener;

use super::testing::{answer, answering};
use super::*;
use crate::types::BranchSource;

fn operation(status: &str, error: &str) -> String {
    let body = format!(
        r#"{{"id":"op1","kind":"create_branch","subject":"shop/dev","status":"{status}",
            "started_at":"2026-01-31T12:00:00.000Z"{error}}}"#
    );
    answer("200 OK", "application/json", &body)
}

const PROBLEM: &str = r#"{"type":"urn:argon:problem:no_such_branch","title":"Not Found",
    "status":404,"code":"no_such_branch","detail":"no branch x","hint":"argon branch list"}"#;

#[test]
fn long_work_is_followed_to_its_end() {
    let (client, serving) = answering(vec![
        operation("running", "").replace("200 OK", "202 Accepted"),
        operation("running", ""),
        operation("succeeded", ""),
    ]);
    let request = CreateBranch {
        name: "dev".into(),
        source: BranchSource::Empty,
        idle_timeout: None,
        snapshot_every: None,
        keep_warm: None,
    };
    let begun = client.create_branch("shop", &request).unwrap();
    let ended = client.follow(begun).unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    let requests = serving.join().unwrap();
    let follow = format!("GET /v1/operations/op1?wait_ms={FOLLOW_WAIT_MS} HTTP/1.1\r\n");
    let (line, body) = requests[0].split_once("\r\n").unwrap();
    assert_eq!(line, "POST /v1/projects/shop/branches HTTP/1.1");
    assert_eq!(serde_json::from_str::<CreateBranch>(body).unwrap(), request);
    assert_eq!(requests[1..], [follow.clone(), follow]);
}

#[test]
fn work_that_failed_is_an_error_with_its_problem() {
    let error = format!(r#","error":{PROBLEM}"#);
    let (client, serving) = answering(vec![operation("failed", &error)]);
    let begun = client.operation("op1").unwrap();
    let failed = client.follow(begun).unwrap_err();
    assert_eq!(failed.code(), "no_such_branch");
    serving.join().unwrap();
}

#[test]
fn a_refusal_is_told_from_a_stranger() {
    for (answer, code) in [
        (answer("404 Not Found", "application/problem+json", PROBLEM), "no_such_branch"),
        (answer("404 Not Found", "text/html", "<h1>no</h1>"), "not_an_argon_server"),
        (answer("404 Not Found", "application/problem+json", "{}"), "not_an_argon_server"),
        (answer("200 OK", "application/json", r#"{"items":[]}"#), "not_an_argon_server"),
        (answer("302 Found", "text/plain", ""), "not_an_argon_server"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "not_an_argon_server"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(), "connection_lost"),
        (String::new(), "connection_lost"),
    ] {
        let (client, serving) = answering(vec![answer.clone()]);
        let error = client.branch("shop", "a/b").unwrap_err();
        assert_eq!(error.code(), code, "{answer:?}: {error:?}");
        assert!(error.hint().is_some());
        assert_eq!(serving.join().unwrap(), ["GET /v1/projects/shop/branches/a%2Fb HTTP/1.1\r\n"]);
    }
}

#[test]
fn nobody_there_says_how_to_start_a_server() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(address.to_string().parse().unwrap());
    let error = client.status().unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("argon serve"));
}

#[test]
fn a_dump_that_is_cut_short_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    for (tail, whole) in [("5\r\nhello\r\n0\r\n\r\n", true), ("5\r\nhello\r\n", false)] {
        let (client, serving) = answering(vec![format!("{head}{tail}")]);
        let mut bytes = Vec::new();
        let read = client.dump("shop", "dev").unwrap().read_to_end(&mut bytes);
        assert_eq!(read.is_ok(), whole, "{read:?}");
        assert_eq!(bytes, b"hello");
        serving.join().unwrap();
    }
}
