//! The end of a server, and its replacement by another, as clients see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc, rawdoc};
use proxy_tests::driver;
use proxy_tests::machine::signal;
use proxy_tests::raw::Raw;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_under_way_is_answered_before_the_end() -> Result<()> {
    let mut server = Server::start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "one").await?;
    let mut other = Raw::connect(&server.listen)?;
    other.hello("argon.dev")?;
    let find = rawdoc! { "find": "changes", "$db": "demo" };
    other.ask(&find)?;

    let long = tokio::spawn(async move {
        let slow = doc! { "$where": "sleep(1500) || true" };
        let found = client.database("demo").collection::<Document>("changes").find_one(slow).await;
        (found, client)
    });
    eventually_async("the command is under way", || async {
        Ok((server.show("dev")?.in_flight > 0).then_some(()))
    })
    .await?;
    signal(server.pid(), libc::SIGTERM)?;
    // Who rests is let go at once, between two messages.
    assert_eq!(tokio::task::block_in_place(|| other.until_closed())?, b"");
    let (found, client) = long.await?;
    assert!(found.context("the command under way")?.is_some());
    // It was told already; this only waits for its end.
    let status = server.stop(libc::SIGCONT)?;
    ensure!(status.success(), "it ended with {status}:\n{}", server.log());
    drop(client);
    server.start_again()?;
    let client = driver::connect(&server.show("dev")?.uri).await?;
    assert_eq!(changes(&client).await?, ["one"]);
    Ok(())
}

/// New connections, one after the other: each is accepted, and says hello.
struct Callers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Result<Calls>>>,
}

#[derive(Debug, Default)]
struct Calls {
    answered: usize,
    /// Accepted by the old server in its last moment, and closed without a word.
    closed: usize,
    longest: Duration,
}

impl Callers {
    fn start(address: &str, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let call = |_| {
            let (address, stop) = (address.to_owned(), stop.clone());
            std::thread::spawn(move || {
                let mut calls = Calls::default();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let mut caller = Raw::connect(&address).context("a client was refused")?;
                    match caller.hello("argon.dev") {
                        Ok(_) => calls.answered += 1,
                        Err(_) => calls.closed += 1,
                    }
                    calls.longest = calls.longest.max(begun.elapsed());
                }
                Ok(calls)
            })
        };
        let threads = (0..count).map(call).collect();
        Self { stop, threads }
    }

    fn finish(self) -> Result<Calls> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Calls::default();
        for thread in self.threads {
            let one = thread.join().expect("it does not panic")?;
            all.answered += one.answered;
            all.closed += one.closed;
            all.longest = all.longest.max(one.longest);
        }
        Ok(all)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_refuses_nobody_and_loses_nothing() -> Result<()> {
    const CALLERS: usize = 4;
    /// What a driver waits for a hello (connectTimeoutMS).
    const PATIENCE_OF_DRIVERS: Duration = Duration::from_secs(10);
    let mut server = Server::start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&dev.uri).await?;
    let callers = Callers::start(&server.listen, CALLERS);
    for upgrade in 1..=2 {
        insert(&client, &format!("before upgrade {upgrade}")).await?;
        let old = server.pid();
        let status = tokio::task::block_in_place(|| server.replace())?;
        ensure!(status.success(), "the old server ended with {status}:\n{}", server.log());
        assert_ne!(server.pid(), old);
        // The same client, by the same address.
        insert(&client, &format!("after upgrade {upgrade}")).await?;
    }
    let calls = tokio::task::block_in_place(|| callers.finish())?;
    assert!(calls.answered > 2 * CALLERS, "{calls:?}");
    assert!(calls.closed <= 2 * CALLERS, "{calls:?}");
    assert!(calls.longest < PATIENCE_OF_DRIVERS, "{calls:?}");
    let expected =
        (1..=2).flat_map(|n| [format!("before upgrade {n}"), format!("after upgrade {n}")]);
    assert_eq!(changes(&client).await?, expected.collect::<Vec<_>>());
    Ok(())
}

#[test]
fn nobody_shares_an_address_unasked() -> Result<()> {
    let server = Server::start()?;
    let (code, log) = Setup::new()?.fail_at(&server.listen)?;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&server.listen) && log.contains("in use"), "{log}");
    Ok(())
}

#[test]
fn taking_over_from_nobody_is_a_start() -> Result<()> {
    let server = Setup::new()?.arguments(&["--take-over"]).start()?;
    server.project("demo")
}
