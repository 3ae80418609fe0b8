//! The ways to a branch that are its own: a port, a Unix socket; and load-balanced URIs.

use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};
use argon_admin::types::BranchState;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Client;
use proxy_tests::driver;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};

const NOT_NOW: i32 = 4;

/// `HOST:PORT` of a URI.
fn address(uri: &str) -> &str {
    uri.trim_start_matches("mongodb://").trim_end_matches('/')
}

fn threads(server: &Server) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/task", server.pid()))?.count())
}

fn descriptors(server: &Server) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count())
}

/// As mongodump does: an appName of its own, whatever the URI says.
async fn tool(uri: &str) -> Result<Client> {
    driver::connect(&format!("{uri}?appName=mongodump")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branchs_own_port_needs_no_app_name_and_outlives_everything_but_its_end() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    let named = driver::connect(&dev.uri).await?;
    insert(&named, "by name").await?;

    let uri = server.cli().run(&["branch", "port", "dev"])?;
    assert!(uri.starts_with("mongodb://127.0.0.1:"), "{uri}");
    assert_eq!(server.cli().run(&["branch", "port", "dev"])?, uri, "asked twice");
    assert_eq!(server.cli().run(&["connect", "dev", "--port"])?, uri);
    assert_eq!(server.show("dev")?.port_uri.as_ref(), Some(&uri));
    let client = tool(&uri).await?;
    insert(&client, "by port").await?;
    assert_eq!(changes(&named).await?, ["by name", "by port"]);

    // The listener is there while the branch sleeps, and wakes it by work alone.
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    client.database("admin").run_command(doc! { "ping": 1 }).await?;
    assert_eq!(server.show("dev")?.state, BranchState::Suspended);
    assert_eq!(changes(&client).await?, ["by name", "by port"]);

    drop((client, named));
    server.stop(libc::SIGTERM)?;
    assert!(TcpStream::connect(address(&uri)).is_err());
    server.start_again()?;
    assert_eq!(server.show("dev")?.port_uri.as_ref(), Some(&uri));
    assert_eq!(changes(&tool(&uri).await?).await?, ["by name", "by port"]);

    server.cli().run(&["branch", "delete", "dev"])?;
    assert!(TcpStream::connect(address(&uri)).is_err(), "deleted");
    server.cli().run(&["branch", "undelete", "dev"])?;
    assert_eq!(changes(&tool(&uri).await?).await?, ["by name", "by port"]);

    server.cli().run(&["branch", "port", "dev", "--off"])?;
    assert!(TcpStream::connect(address(&uri)).is_err(), "off");
    assert_eq!(server.show("dev")?.port_uri, None);
    let none = server.cli().fail(&["connect", "dev", "--port"])?;
    assert!(none.stderr.contains("argon branch port dev"), "{}", none.stderr);
    let again = address(&uri).rsplit(':').next().context("no port")?;
    assert_eq!(server.cli().run(&["branch", "port", "dev", "--port", again])?, uri);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_an_error_and_no_obstacle_to_a_start() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    let uri = server.cli().run(&["branch", "port", "dev"])?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let failure = server.cli().fail(&["branch", "port", "dev", "--port", &port])?;
    assert_eq!(failure.code, NOT_NOW, "{}", failure.stderr);
    for part in [&*format!("listen on 127.0.0.1:{port} for branch `dev`"), "in use", "hint: "] {
        assert!(failure.stderr.contains(part), "{part} in {}", failure.stderr);
    }
    assert_eq!(server.cli().run(&["connect", "dev", "--port"])?, uri, "the old one stays");

    server.stop(libc::SIGTERM)?;
    let squatter = TcpListener::bind(address(&uri))?;
    server.start_again()?;
    let dev = server.show("dev")?;
    let error = dev.listen_error.context("it says nothing of its port")?;
    assert!(error.contains(address(&uri)), "{error}");
    insert(&driver::connect(&dev.uri).await?, "by name").await?;
    drop(squatter);
    assert_eq!(server.cli().run(&["branch", "port", "dev"])?, uri, "asking again opens it");
    assert_eq!(server.show("dev")?.listen_error, None);
    assert_eq!(changes(&tool(&uri).await?).await?, ["by name"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branchs_own_socket_works_like_its_port() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    let uri = server.cli().run(&["branch", "socket", "dev"])?;
    assert!(uri.ends_with("demo.dev.sock/"), "{uri}");
    assert_eq!(server.cli().run(&["connect", "dev", "--socket"])?, uri);
    insert(&tool(&uri).await?, "by socket").await?;
    server.stop(libc::SIGTERM)?;
    server.start_again()?;
    assert_eq!(changes(&tool(&uri).await?).await?, ["by socket"]);
    let file = server.data_dir().join("sockets/demo.dev.sock");
    assert!(file.exists());
    server.cli().run(&["branch", "delete", "dev"])?;
    assert!(!file.exists());
    server.cli().run(&["branch", "undelete", "dev"])?;
    assert_eq!(changes(&tool(&uri).await?).await?, ["by socket"]);
    server.cli().run(&["branch", "socket", "dev", "--off"])?;
    assert!(!file.exists());
    assert_eq!(server.show("dev")?.socket_uri, None);
    Ok(())
}

#[test]
fn a_socket_whose_path_is_too_long_is_refused_with_the_way_out() -> Result<()> {
    let setup = Setup::new()?;
    let deep = setup.home().join("d".repeat(90));
    let server = setup.data_dir(&deep).start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    let failure = server.cli().fail(&["branch", "socket", "dev"])?;
    assert_eq!(failure.code, NOT_NOW, "{}", failure.stderr);
    assert!(failure.stderr.contains("is longer than"), "{}", failure.stderr);
    assert!(failure.stderr.contains("hint: use `argon branch port dev`"), "{}", failure.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_name_of_another_branch_is_an_error_that_names_both() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    for branch in ["dev", "other"] {
        server.branch(branch, &["--empty"])?;
    }
    let uri = server.cli().run(&["branch", "port", "dev"])?;
    for app_name in ["argon.dev", "argon.demo/dev", "mongorestore"] {
        let client = driver::connect(&format!("{uri}?appName={app_name}")).await?;
        insert(&client, app_name).await?;
    }
    for (app_name, says) in [
        ("argon.other", &["argon.other", address(&uri), "demo/dev"][..]),
        ("argon.elsewhere/dev", &["argon.elsewhere/dev", address(&uri), "demo/dev"]),
        ("argon.Not a name", &["argon.Not a name"]),
    ] {
        let client = driver::connect(&format!("{uri}?appName={app_name}")).await?;
        let error = format!("{:#}", insert(&client, "x").await.unwrap_err());
        for part in says {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
    assert!(server.log().matches("\"awake\"").count() <= 1);
    Ok(())
}

#[test]
fn a_sleeping_branchs_listeners_cost_a_descriptor_each_and_no_thread() -> Result<()> {
    const BRANCHES: usize = 10;
    let server = Server::start()?;
    server.project("demo")?;
    let names: Vec<_> = (0..BRANCHES).map(|number| format!("b{number}")).collect();
    for name in &names {
        server.branch(name, &["--empty"])?;
    }
    server.cli().run(&["branch", "port", &names[0]])?;
    let (threads_before, before) = (threads(&server)?, descriptors(&server)?);
    for name in &names[1..] {
        server.cli().run(&["branch", "port", name])?;
    }
    assert_eq!(threads(&server)?, threads_before);
    // One or two of the admin API's own may come or go meanwhile.
    let more = descriptors(&server)? - before;
    assert!((BRANCHES - 3..=BRANCHES + 1).contains(&more), "{more} for {}", BRANCHES - 1);
    assert!(server.mongods().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balanced_uri_works() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&format!("{}&loadBalanced=true", dev.uri)).await?;
    let numbers = client.database("demo").collection::<Document>("numbers");
    numbers.insert_many((0..300).map(|number| doc! { "_id": number })).await?;
    let read: Vec<_> = numbers.find(doc! {}).batch_size(50).await?.try_collect().await?;
    assert_eq!(read.len(), 300);
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    numbers.insert_one(doc! { "_id": 300 }).session(&mut session).await?;
    session.commit_transaction().await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    assert_eq!(numbers.count_documents(doc! {}).await?, 301);
    Ok(())
}
