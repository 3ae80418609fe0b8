//! What a client may take of the server, each limit set and met.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bson::{RawDocumentBuf, rawdoc};
use proxy_tests::raw::{Raw, header, message};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually;

fn start(arguments: &[&str]) -> Result<Server> {
    let server = Setup::new()?.arguments(arguments).start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    Ok(server)
}

fn ping() -> RawDocumentBuf {
    rawdoc! { "ping": 1, "$db": "admin" }
}

fn find() -> RawDocumentBuf {
    rawdoc! { "find": "things", "$db": "test" }
}

fn metric(server: &Server, series: &str) -> Result<u64> {
    let mut stream = std::net::TcpStream::connect(&server.admin)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let text = std::io::read_to_string(stream)?;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {series} in\n{text}"))?.parse()?)
}

#[test]
fn more_connections_than_the_server_takes_are_closed_at_once() -> Result<()> {
    let server = start(&["--max-connections", "3"])?;
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::connect(&server.listen)?;
        client.hello("argon.dev")?;
        inside.push(client);
    }
    for _ in 0..5 {
        assert_eq!(Raw::connect(&server.listen)?.until_closed()?, b"");
    }
    turned_away(&server, "server_full", 5)?;
    assert_eq!(server.log().matches("too many connections").count(), 1, "one warning");
    for client in &mut inside {
        client.ask(&ping())?;
    }
    inside.pop();
    eventually("a place is free", || {
        Ok(Raw::connect(&server.listen)?.hello("argon.dev").is_ok().then_some(()))
    })
}

#[test]
fn a_full_branch_says_so_to_commands_and_takes_them_when_a_place_is_free() -> Result<()> {
    let server = start(&["--max-branch-connections", "1"])?;
    server.branch("other", &["--empty"])?;
    let mut first = Raw::connect(&server.listen)?;
    first.hello("argon.dev")?;
    let mut second = Raw::connect(&server.listen)?;
    second.hello("argon.dev")?;
    assert_eq!(first.ask(&find())?.get_f64("ok")?, 1.0);
    for _ in 0..2 {
        let refused = second.ask(&find())?;
        assert_eq!(refused.get_i32("code")?, 6, "{refused}");
        let text = refused.get_str("errmsg")?;
        assert!(text.contains("branch `dev` has 1 connections that use it"), "{text}");
        assert!(text.contains("--max-branch-connections"), "{text}");
    }
    // A monitor of it needs no place, and the other branch has its own.
    assert_eq!(second.ask(&ping())?.get_f64("ok")?, 1.0);
    let mut elsewhere = Raw::connect(&server.listen)?;
    elsewhere.hello("argon.other")?;
    assert_eq!(elsewhere.ask(&find())?.get_f64("ok")?, 1.0);
    turned_away(&server, "branch_full", 2)?;
    drop(first);
    eventually("the place is free", || {
        Ok((second.ask(&find())?.get_f64("ok")? == 1.0).then_some(()))
    })
}

/// Who is turned away sees that before it is counted.
fn turned_away(server: &Server, reason: &str, times: u64) -> Result<()> {
    let name = format!("argon_turned_away_total{{reason=\"{reason}\"}}");
    let all = || Ok((metric(server, &name)? >= times).then_some(()));
    eventually("all who were turned away are counted", all)?;
    assert_eq!(metric(server, &name)?, times, "{name}");
    Ok(())
}

#[test]
fn who_does_not_say_hello_in_time_is_let_go() -> Result<()> {
    let wait = Duration::from_millis(500);
    let server = start(&["--first-message-wait", "500ms", "--hello-wait", "500ms"])?;
    let hello = message(&ping());
    type Say<'a> = &'a [&'a [u8]];
    let rows: [(Say<'_>, usize); 4] =
        [(&[], 0), (&[&hello[..3]], 0), (&[&hello[..20]], 0), (&[&hello, &hello], 2)];
    for (says, answers) in rows {
        let mut client = Raw::connect(&server.listen)?;
        let begun = Instant::now();
        for bytes in says {
            client.stream.write_all(bytes)?;
        }
        let got = client.until_closed()?;
        // `{ok: 1.0}` in an OP_MSG is 38 bytes.
        assert_eq!(got.len(), answers * 38, "{got:?}");
        assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    }
    // Nor do pings keep a connection.
    let mut client = Raw::connect(&server.listen)?;
    client.ask(&ping())?;
    eventually("who only pings is let go", || Ok(client.ask(&ping()).is_err().then_some(())))?;
    turned_away(&server, "late", 5)?;
    // Who has said it may be silent.
    let mut client = Raw::connect(&server.listen)?;
    client.hello("argon.dev")?;
    let silent_until = Instant::now() + wait * 2;
    eventually("more than the limits has passed", || {
        Ok((Instant::now() > silent_until).then_some(()))
    })?;
    client.ask(&ping()).map(drop)
}

#[test]
fn large_messages_are_for_those_who_said_hello() -> Result<()> {
    let server = start(&["--first-message-bytes", "2000"])?;
    let large = rawdoc! { "ping": 1, "comment": "x".repeat(3000), "$db": "admin" };
    let mut stranger = Raw::connect(&server.listen)?;
    stranger.stream.write_all(&message(&large))?;
    assert_eq!(stranger.until_closed()?, b"");
    turned_away(&server, "no_message", 1)?;
    let mut client = Raw::connect(&server.listen)?;
    client.hello("argon.dev")?;
    assert_eq!(client.ask(&large)?.get_f64("ok")?, 1.0);
    Ok(())
}

#[test]
fn drivers_are_told_the_largest_message_and_larger_ones_end_the_connection() -> Result<()> {
    let server = start(&["--message-bytes", "17000000"])?;
    let mut client = Raw::connect(&server.listen)?;
    assert_eq!(client.hello("argon.dev")?.get_i32("maxMessageSizeBytes")?, 17_000_000);
    client.stream.write_all(&header(17_000_001))?;
    assert_eq!(client.until_closed()?, b"");
    let default = start(&[])?;
    let hello = Raw::connect(&default.listen)?.hello("argon.dev")?;
    assert_eq!(hello.get_i32("maxMessageSizeBytes")?, 48_000_000);
    Ok(())
}

#[test]
fn as_many_files_as_may_be_are_had_and_too_few_are_warned_of() -> Result<()> {
    let server = start(&["--max-connections", "1000000000"])?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid()))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no line")?;
    let [soft, hard] = line.split_whitespace().skip(3).take(2).collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    assert_eq!(soft, hard);
    let log = server.log();
    let warned = log.lines().filter(|line| line.contains("lower --max-connections"));
    assert_eq!(warned.count(), 1, "{log}");
    Ok(())
}
