//! Clients that mean no good: the server's memory stays bounded, its descriptors come back, and the
//! client beside them gets every command through.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use argon::wire::{Client, Header, Msg, OpCode, read_message};
use bson::{Document, doc, rawdoc};
use futures_util::future::{join_all, try_join_all};
use proxy_tests::fuzz::corpus;
use proxy_tests::fuzz::mutate::{Random, mutate};
use proxy_tests::hostile::{
    Cost, Witness, beginning_of_48_mb, connect, crowd, dribble, greeted, message,
};
use proxy_tests::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;

const MESSAGE_BYTES_MAX: usize = 48_000_000;

/// The next reply; `None` where the proxy closed the connection instead.
async fn reply(stream: &mut TcpStream) -> Result<Option<(i32, Document)>> {
    let Some(message) = read_message(stream, MESSAGE_BYTES_MAX).await? else { return Ok(None) };
    let document = Document::try_from(Msg::parse(&message.body)?.body)?;
    Ok(Some((message.header.response_to, document)))
}

fn is_good(reply: &Document) -> bool {
    reply.get_f64("ok").is_ok_and(|ok| ok == 1.0)
}

/// Everything until the proxy closes the connection; how it closes it is its own affair.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_never_speak_cost_next_to_nothing() -> Result<()> {
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    let before = Cost::of(&server)?;
    let silent = crowd(&server.listen, 1000).await?;
    let mut half = crowd(&server.listen, 500).await?;
    for stream in &mut half {
        stream.write_all(&beginning_of_48_mb(7)).await?;
    }
    let greeted = try_join_all((0..500).map(|_| greeted(&server.listen, "dev"))).await?;
    witness.goes_on().await?;
    // 16 kB each: the buffer of a message is four times as large.
    before.grown_at_most(2000 * 16)?;
    drop((silent, half, greeted));
    before.descriptors_return().await?;
    witness.end(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_served_at_their_pace() -> Result<()> {
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    let slow = |number: i32| {
        let listen = &server.listen;
        async move {
            let mut stream = connect(listen).await?;
            let hello = rawdoc! {
                "hello": 1, "$db": "admin",
                "client": { "application": { "name": "argon.demo/dev" } },
            };
            let insert = rawdoc! { "insert": "slow", "documents": [{ "_id": number }], "$db": "d" };
            for (id, command) in [(1, hello), (2, insert)] {
                dribble(&mut stream, &message(id, &command)).await?;
                let (answers, reply) = reply(&mut stream).await?.context("it was hung up on")?;
                ensure!(answers == id && is_good(&reply), "{reply}");
            }
            anyhow::Ok(())
        }
    };
    try_join_all((0..40).map(slow)).await?;
    witness.goes_on().await?;
    witness.end(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_sockets_are_closed_whole() -> Result<()> {
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    block_in_place(|| server.branch("asleep", &["--empty"]))?;
    let before = Cost::of(&server)?;
    let find = message(5, &rawdoc! { "find": "c", "$db": "d" });
    let rows = [
        ("at once", "dev", &find[..0], true),
        ("inside a header", "dev", &find[..9], true),
        ("inside a message", "dev", &find[..30], true),
        ("after a command", "dev", &find[..], true),
        ("after a command that wakes the branch", "asleep", &find[..], true),
        ("inside 48 MB", "dev", &beginning_of_48_mb(200_000)[..], true),
        ("never", "dev", &find[..], false),
    ];
    for (what, branch, bytes, closes) in rows {
        let half = |_| async {
            let mut stream = greeted(&server.listen, branch).await?;
            stream.write_all(bytes).await?;
            if !closes {
                let (answers, _) = reply(&mut stream).await?.context("no answer")?;
                ensure!(answers == 5);
                return Ok(());
            }
            stream.shutdown().await?;
            // What it gets until then is its own: the socket is closed on the other side too.
            let got = rest(&mut stream).await;
            ensure!(got.is_empty() || got.len() > Header::BYTES, "{} bytes", got.len());
            Ok(())
        };
        try_join_all((0..50).map(half)).await.context(what)?;
    }
    before.descriptors_return().await?;
    witness.goes_on().await?;
    witness.end(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_nobody_reads_are_not_gathered() -> Result<()> {
    const READERS: usize = 25;
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    let mut writer = Client::over(greeted(&server.listen, "dev").await?);
    let text = "x".repeat(1_000_000);
    for number in 0..12 {
        let insert = doc! { "insert": "large", "documents": [{ "_id": number, "text": &text }] };
        writer.command("demo", insert).await?;
    }
    let before = Cost::of(&server)?;
    let find = rawdoc! { "find": "large", "batchSize": 1000, "$db": "demo" };
    // 12 MB each, many times over: 25 MB would be gathered of the first replies alone by two.
    let many: Vec<u8> = (0..100).flat_map(|id| message(id, &find)).collect();
    let lazy = |_| async {
        let mut stream = greeted(&server.listen, "dev").await?;
        stream.write_all(&many).await?;
        // The first bytes of a reply are there, so that the rest is on its way.
        stream.peek(&mut [0]).await?;
        anyhow::Ok(stream)
    };
    let lazy = try_join_all((0..READERS).map(lazy)).await?;
    witness.goes_on().await?;
    before.grown_at_most(READERS as u64 * 512)?;
    drop(lazy);
    before.descriptors_return().await?;
    witness.end(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_megabytes_that_do_not_come_cost_nothing() -> Result<()> {
    const LIARS: usize = 100;
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    let before = Cost::of(&server)?;
    let liar = |number: usize| {
        let listen = &server.listen;
        async move {
            let mut stream = greeted(listen, "dev").await?;
            // Some stop before the proxy passes anything on, some after.
            let sent = if number.is_multiple_of(2) { 10_000 } else { 100_000 };
            stream.write_all(&beginning_of_48_mb(sent)).await?;
            anyhow::Ok(stream)
        }
    };
    let liars = try_join_all((0..LIARS).map(liar)).await?;
    witness.goes_on().await?;
    before.grown_at_most(LIARS as u64 * 256)?;
    drop(liars);
    before.descriptors_return().await?;
    witness.end(&server).await
}

/// A ping with so much padding, compressed with zlib.
fn packed(padding: usize) -> Vec<u8> {
    let ping = rawdoc! { "ping": 1, "padding": "x".repeat(padding), "$db": "admin" };
    let plain = message(6, &ping).split_off(Header::BYTES);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&plain).expect("a vector takes everything");
    let body = [
        &2013_i32.to_le_bytes()[..],
        &i32::try_from(plain.len()).expect("some megabytes").to_le_bytes(),
        &[2],
        &zlib.finish().expect("a vector takes everything"),
    ];
    let body = body.concat();
    let length = u32::try_from(Header::BYTES + body.len()).expect("some kilobytes");
    let header = Header { length, request_id: 6, response_to: 0, opcode: OpCode::Compressed };
    [&header.encode()[..], &body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_the_garbage_is_answered() -> Result<()> {
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    let header = |length: i32, opcode: i32| -> Vec<u8> {
        [length, 7, 0, opcode].iter().flat_map(|field| field.to_le_bytes()).collect()
    };
    let kind_2 = [header(21, 2013), vec![0, 0, 0, 0, 2]].concat();
    let rows: [(&str, Vec<u8>); 9] = [
        ("zeros", vec![0; 100]),
        ("ones", vec![0xff; 100]),
        ("text", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a length of 15", header(15, 2013)),
        ("a length of 48,000,001", header(48_000_001, 2013)),
        ("a reply", header(16, 1)),
        ("an unknown opcode", header(16, 4711)),
        ("a section of kind 2", kind_2),
        ("a kilobyte that unpacks to one megabyte", packed(1_000_000)),
    ];
    for (what, garbage) in rows {
        let mut stream = greeted(&server.listen, "dev").await?;
        let ping = message(3, &rawdoc! { "ping": 1, "$db": "admin" });
        let find = message(4, &rawdoc! { "find": "c", "$db": "d" });
        stream.write_all(&[&ping[..], &find, &ping, &garbage].concat()).await?;
        for expected in [3, 4, 3] {
            let (answers, reply) = reply(&mut stream).await.context(what)?.context(what)?;
            ensure!(answers == expected && is_good(&reply), "{what}: {reply}");
        }
        ensure!(rest(&mut stream).await.is_empty(), "{what}: an answer to garbage");
    }
    witness.end(&server).await
}

/// One visit: a few messages, sound or not, and off, at any moment.
async fn visit(listen: &str, hellos: &[Vec<u8>], messages: &[Vec<u8>], seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut stream = match random.below(3) {
        0 => connect(listen).await?,
        _ => greeted(listen, "prey").await?,
    };
    let mut bytes = Vec::new();
    for _ in 0..random.below(4) {
        let seeds = if random.below(4) == 0 { hellos } else { messages };
        bytes.extend(mutate(seeds, &mut random));
    }
    // The proxy may have closed the connection in the middle of that.
    let sent = stream.write_all(&bytes).await.is_ok();
    if !sent || random.below(2) == 0 {
        return Ok(());
    }
    stream.shutdown().await.ok();
    // Whatever is answered is a message.
    while let Ok(Some(message)) = read_message(&mut stream, MESSAGE_BYTES_MAX).await {
        let opcode = message.header.opcode;
        ensure!(matches!(opcode, OpCode::Msg | OpCode::Reply), "seed {seed}: got {opcode}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_come_and_go_while_branches_wake_and_leave() -> Result<()> {
    const ROUNDS: u64 = 4;
    const VISITS: u64 = 500;
    let server = Server::start()?;
    let witness = Witness::begin(&server).await?;
    block_in_place(|| server.branch("prey", &["--empty"]))?;
    let (hellos, messages) = (corpus("hello")?, corpus("header")?);
    let before = Cost::of(&server)?;
    for round in 0..ROUNDS {
        let cli = server.cli();
        let lives = tokio::task::spawn_blocking(move || -> Result<()> {
            for (verb, branch) in [("resume", "prey"), ("suspend", "dev"), ("suspend", "prey")] {
                cli.run(&["branch", verb, branch])?;
            }
            Ok(())
        });
        // Fifty at a time, so that it is the proxy that works and not this test.
        for batch in 0..VISITS / 50 {
            let first = (round * VISITS) + batch * 50;
            let visits =
                (first..first + 50).map(|seed| visit(&server.listen, &hellos, &messages, seed));
            for outcome in join_all(visits).await {
                outcome?;
            }
        }
        lives.await.context("wake and suspend")??;
        witness.goes_on().await?;
    }
    before.descriptors_return().await?;
    before.grown_at_most(64 * 1024)?;
    witness.end(&server).await
}
