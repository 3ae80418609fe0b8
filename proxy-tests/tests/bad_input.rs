//! Wrong bytes, wrong folders, wrong names, a mongod that does not start, a disk that is full.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use argon_admin::types::BranchState;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongodb::Client;
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR};
use proxy_tests::driver;
use proxy_tests::machine;
use proxy_tests::obstacle::{Disk, Gate, LAST_WORDS};
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::PATIENCE;
use tokio::task::block_in_place;

/// A wire message's header.
fn header(length: i32, opcode: i32) -> Vec<u8> {
    [length, 7, 0, opcode].iter().flat_map(|field| field.to_le_bytes()).collect()
}

/// An OP_MSG with one section of kind 0.
fn message(length: Option<i32>, body: &[u8]) -> Vec<u8> {
    let real = i32::try_from(16 + 4 + 1 + body.len()).expect("a test's message is small");
    [&header(length.unwrap_or(real), 2013)[..], &[0; 5], body].concat()
}

/// Sends bytes and nothing more, and reads until the proxy closes the connection.
fn send(address: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The proxy may close before it has read everything: then it has answered by that.
    if stream.write_all(bytes).is_ok() {
        stream.shutdown(Shutdown::Write).ok();
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
        Err(e) => Err(e).context("the proxy neither answers nor closes the connection"),
        Ok(_) => Ok(answer),
    }
}

/// The first bytes of a TLS 1.3 hello, as any HTTPS client sends them.
fn tls_hello() -> Vec<u8> {
    let mut bytes = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    bytes.extend((0..0x1f5_u32).map(|number| number.wrapping_mul(37) as u8));
    bytes
}

/// The same at every run: xorshift from a fixed seed.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_end_their_connection_and_nothing_else() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    let hello = rawdoc! { "hello": 1, "$db": "admin" };
    let hello = hello.as_bytes();
    let huge = 48_000_001;
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", tls_hello()),
        ("noise", noise(100_000)),
        ("length 0", message(Some(0), hello)),
        ("length 15", message(Some(15), hello)),
        ("length -1", message(Some(-1), hello)),
        ("length 2^31-1", message(Some(i32::MAX), hello)),
        ("oversized", message(Some(huge), hello)),
        ("header only, cut", header(100, 2013)[..10].to_vec()),
        ("cut message", message(Some(1000), hello)),
        ("no body", header(16, 2013)),
        ("unknown opcode", header(16, 4711)),
        ("old opcode OP_INSERT", [header(30, 2002), vec![0; 14]].concat()),
        ("a document longer than its message", message(None, &1000_i32.to_le_bytes())),
        ("a document of length -1", message(None, &(-1_i32).to_le_bytes())),
        ("no section at all", [header(20, 2013), vec![0; 4]].concat()),
        (
            "compressed to 2 GB",
            [header(26, 2012), vec![0xdd, 7, 0, 0, 0xff, 0xff, 0xff, 0x7f, 2, 0]].concat(),
        ),
    ];
    for (name, bytes) in rows {
        let answer = block_in_place(|| send(&server.listen, &bytes));
        let answer = answer.with_context(|| name.to_owned())?;
        // An answer, where there is one, is an error in the wire protocol, never an echo.
        ensure!(answer.is_empty() || answer.len() >= 16, "{name}: {answer:?}");
        let other = driver::connect(&server.show("dev")?.uri).await?;
        assert_eq!(changes(&other).await.context(name)?, ["before"]);
    }
    // The client that was there all the time noticed nothing.
    insert(&client, "after").await?;
    assert_eq!(changes(&client).await?, ["before", "after"]);
    Ok(())
}

/// A hundred connections that say nothing, or half a header, take no one else's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_in_nobodys_way() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let mut silent = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(&server.listen)?;
        if number % 2 == 0 {
            stream.write_all(&header(1000, 2013)[..7])?;
        }
        silent.push(stream);
    }
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "through").await?;
    assert_eq!(changes(&client).await?, ["through"]);
    drop(silent);
    Ok(())
}

async fn command_error(client: &Client) -> Result<mongodb::error::CommandError> {
    let started = Instant::now();
    let error = client.database("demo").run_command(doc! { "count": "x" }).await;
    let error = error.expect_err("no branch is there");
    let took = started.elapsed();
    ensure!(took.as_secs() < 10, "it took {took:?}: the driver thinks that nobody is there");
    ensure!(!error.contains_label(RETRYABLE_WRITE_ERROR), "retryable: {error:?}");
    match *error.kind {
        ErrorKind::Command(ref command) => Ok(command.clone()),
        ref other => anyhow::bail!("no error of a command: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_nowhere_is_named_by_the_first_command() -> Result<()> {
    let server = Server::start()?;
    let rows = [
        ("?appName=argon.demo/dev", "demo"),
        ("?appName=argon.shop/none", "none"),
        ("?appName=argon.none/dev", "none"),
        ("?appName=argon.Shop/dev", "Shop"),
        ("?appName=argon.", ""),
        ("?appName=mongosh", "appName"),
        ("", "appName"),
    ];
    for (number, (query, named)) in rows.into_iter().enumerate() {
        if number == 1 {
            server.project("shop")?;
        }
        let client = driver::connect(&format!("mongodb://{}/{query}", server.listen)).await?;
        let error = command_error(&client).await.with_context(|| query.to_owned())?;
        ensure!(error.message.contains(named), "{query}: {}", error.message);
        // A ping is answered where no branch is, as a hello is: it is how tools look around.
        client
            .database("admin")
            .run_command(doc! { "ping": 1 })
            .await
            .with_context(|| query.to_owned())?;
    }
    for arguments in [
        ["branch", "show", "none"],
        ["branch", "suspend", "none"],
        ["branch", "list-versions", "none"],
    ] {
        let failure = server.cli().fail(&arguments)?;
        assert_eq!(failure.code, 3, "{}", failure.stderr);
        assert!(failure.stderr.contains("`none`"), "{}", failure.stderr);
    }
    Ok(())
}

#[test]
fn a_data_folder_that_cannot_be_used_is_a_clear_error() -> Result<()> {
    let setup = Setup::new()?;
    let file = setup.home().join("file");
    fs::write(&file, "")?;
    let (code, said) = Setup::new()?.data_dir(&file.join("data")).fail()?;
    check_refusal(code, &said, &["file/data"]);

    let server = Server::start()?;
    let (code, said) = Setup::new()?.data_dir(server.data_dir()).fail()?;
    check_refusal(code, &said, &["in use", &server.data_dir().to_string_lossy()]);
    // The one that has it is not disturbed.
    server.project("demo")
}

#[test]
fn a_data_folder_of_a_newer_argon_is_left_alone() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    ensure!(server.stop(libc::SIGTERM)?.success(), "{}", server.log());
    let catalog = fs::read_dir(server.data_dir())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")));
    let catalog = catalog.context("no catalog in the data folder")?;
    // `user_version`: https://www.sqlite.org/fileformat.html#user_version_number
    let mut bytes = fs::read(&catalog)?;
    let known = std::mem::replace(&mut bytes[63], 99);
    fs::write(&catalog, &bytes)?;
    let (code, said) = Setup::new()?.data_dir(server.data_dir()).fail()?;
    check_refusal(code, &said, &["version 99", "versions up to"]);
    assert_eq!(fs::read(&catalog)?, bytes);

    bytes[63] = known;
    fs::write(&catalog, &bytes)?;
    server.start_again()?;
    assert!(server.cli().run(&["project", "list"])?.contains("demo"));
    Ok(())
}

#[test]
fn a_data_folder_that_is_not_writable_is_a_clear_error() -> Result<()> {
    let what = "a data folder that is not writable";
    let Some(disk) = Disk::mount(8, what)? else { return Ok(()) };
    disk.make_read_only()?;
    let (code, said) = Setup::new()?.data_dir(&disk.path().join("data")).fail()?;
    check_refusal(code, &said, &["Read-only", &disk.path().to_string_lossy()]);
    Ok(())
}

fn check_refusal(code: Option<i32>, said: &str, words: &[&str]) {
    assert_eq!(code, Some(1), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    for word in words {
        assert!(error.contains(word), "`{word}` in:\n{said}");
    }
    assert!(said.lines().any(|line| line.starts_with("hint: ")), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongod_that_cannot_start_is_quoted_to_whoever_waits() -> Result<()> {
    let gate = Gate::new()?;
    let server = Setup::new()?.variable("ARGON_MONGOD", gate.path()).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let broken = gate.fail()?;
    let error = changes(&client).await.unwrap_err();
    assert!(format!("{error:#}").contains(LAST_WORDS), "{error:#}");
    let failure = server.cli().fail(&["branch", "resume", "dev"])?;
    assert!(failure.stderr.contains(LAST_WORDS), "{}", failure.stderr);
    assert_eq!(server.show("dev")?.state, BranchState::Suspended);
    drop(broken);
    server.cli().run(&["branch", "resume", "dev"])?;
    assert_eq!(changes(&client).await?, ["before"]);
    Ok(())
}

/// The first mongod never starts: no branch can be made, and the server says why and goes on.
#[test]
fn a_server_whose_mongod_never_starts_says_so() -> Result<()> {
    let gate = Gate::new()?;
    let broken = gate.fail()?;
    let setup = Setup::new()?.variable("ARGON_MONGOD", gate.path());
    let said = match setup.start() {
        Err(e) => format!("{e:#}"),
        Ok(server) => {
            server.project("demo").and_then(|()| server.branch("dev", &[])).unwrap_err().to_string()
        }
    };
    assert!(said.contains(LAST_WORDS), "{said}");
    drop(broken);
    Ok(())
}

/// Incompressible, so that its blocks need all the room that they look like needing.
async fn insert_megabytes(client: &Client, count: usize) -> Result<()> {
    let into = client.database("demo").collection::<RawDocumentBuf>("noise");
    for number in 0..count {
        let bytes = bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: noise((1 << 20) + number),
        };
        let number = i64::try_from(number)?;
        into.insert_one(RawDocumentBuf::try_from(&doc! { "_id": number, "bytes": bytes })?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_while_suspending_loses_nothing() -> Result<()> {
    let what = "a full disk while suspending";
    let Some(disk) = Disk::mount(1000, what)? else { return Ok(()) };
    let server = Setup::new()?.data_dir(&disk.path().join("data")).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "acknowledged").await?;
    insert_megabytes(&client, 16).await?;
    // All of it is in mongod's files, so that stopping it needs little room, but saving does.
    client.database("admin").run_command(doc! { "fsync": 1 }).await?;
    let filler = disk.fill(4 << 20)?;
    let failure = server.cli().fail(&["branch", "suspend", "--wait", "dev"])?;
    assert!(failure.stderr.contains("No space left on device"), "{}", failure.stderr);
    assert!(failure.stderr.lines().any(|line| line.starts_with("hint: ")), "{}", failure.stderr);
    let state = server.show("dev")?.state;
    assert!([BranchState::Running, BranchState::Saving].contains(&state), "{state}");
    drop(filler);

    assert_eq!(changes(&client).await?, ["acknowledged"]);
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let noise = client.database("demo").collection::<Document>("noise");
    assert_eq!(noise.count_documents(doc! {}).await?, 16);
    assert_eq!(server.show("dev")?.error, None);
    ensure!(machine::mongods_below(disk.path()).len() == 1, "one mongod serves it again");
    Ok(())
}
