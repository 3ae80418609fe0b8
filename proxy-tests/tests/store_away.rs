//! A store that cannot be reached for a while: what runs goes on, what is to be saved waits.
//!
//! `ARGON_OUTAGE=full` makes the outages of S3 servers five minutes long; else they are of seconds.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use argon_admin::types::{Branch, BranchState};
use futures_util::future::try_join_all;
use mongodb::Client;
use proxy_tests::buckets::{ACCESS_KEY, BUCKET, Buckets, SECRET_KEY};
use proxy_tests::driver;
use proxy_tests::machine::signal;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;
use tokio::task::{JoinHandle, spawn_blocking};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_branches_go_on_and_suspends_wait() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("store-").tempdir()?;
    let (store, away) = (folder.path().join("store"), folder.path().join("away"));
    let server = Setup::new()?.arguments(&["--store-dir", &store.to_string_lossy()]).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    let sleeping = driver::connect(&server.branch("asleep", &["--empty"])?.uri).await?;

    fs::rename(&store, &away)?;
    insert(&client, "while it is away").await?;
    let failure = server.cli().fail(&["branch", "suspend", "--wait", "dev"])?;
    ensure!(failure.stderr.contains("its writes are kept in"), "{}", failure.stderr);
    ensure!(failure.stderr.contains("tried again by itself"), "{}", failure.stderr);
    let waiting = server.show("dev")?;
    assert_eq!(waiting.state, BranchState::Saving);
    ensure!(waiting.saving_since.is_some() && waiting.error.is_some(), "{waiting:?}");
    let listed = server.cli().run(&["branch", "list"])?;
    ensure!(listed.contains("saving since"), "{listed}");
    // What is needed of the store is told, and nothing is taken for gone.
    let error = insert(&sleeping, "no").await.expect_err("its data is in the store");
    ensure!(!format!("{error:#}").contains("does not exist"), "{error:#}");

    let new = server.branch("made-meanwhile", &["--empty"])?;
    // Its writes are here, so it wakes from them.
    insert(&client, "woken from the disk").await?;
    let running = server.show("dev")?;
    assert_eq!((running.state, running.saving_since), (BranchState::Running, None));
    server.cli().fail(&["branch", "suspend", "--wait", "dev"])?;

    fs::rename(&away, &store)?;
    let saved = |branch: &Branch| branch.state == BranchState::Suspended;
    let dev = server.until("dev", saved).await?;
    assert_eq!((dev.error, dev.saving_since), (None, None));
    assert_eq!(changes(&client).await?, ["before", "while it is away", "woken from the disk"]);
    insert(&sleeping, "it was only away").await?;
    insert(&driver::connect(&new.uri).await?, "its head has followed").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_longer_than_the_lease_silences_its_branches() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("store-").tempdir()?;
    let (store, away) = (folder.path().join("store"), folder.path().join("away"));
    let store_dir = store.to_string_lossy();
    let arguments = ["--store-dir", &store_dir, "--lease-ttl", "1s"];
    let server = Setup::new()?.arguments(&arguments).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    fs::rename(&store, &away)?;
    let silent = || async {
        let refused = insert(&client, "after the lease, or not").await.err();
        Ok(refused.filter(|error| format!("{error:#}").contains("lease")))
    };
    eventually_async("the lease ends", silent).await?;
    // It is not stopped for that: nobody else can have taken it over.
    assert_eq!(server.show("dev")?.state, BranchState::Running);
    fs::rename(&away, &store)?;
    let heard = || async { Ok(insert(&client, "it is back").await.ok()) };
    eventually_async("it is answered for again", heard).await?;
    let found = changes(&client).await?;
    assert_eq!((found.first(), found.last()), (Some(&"before".into()), Some(&"it is back".into())));
    assert_eq!(server.show("dev")?.epoch, 1, "it is the same life");
    Ok(())
}

/// How long an S3 server is away.
fn outage() -> Duration {
    match std::env::var("ARGON_OUTAGE").as_deref() {
        Ok("full") => Duration::from_secs(300),
        _ => Duration::from_secs(3),
    }
}

fn with_bucket(buckets: &Buckets, arguments: &[&str]) -> Result<Server> {
    let setup = Setup::new()?.arguments(&["--s3-endpoint", &buckets.endpoint()]);
    setup
        .arguments(arguments)
        .variable("S3_BUCKET", BUCKET)
        .variable("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .start()
}

/// It takes connections and answers nothing; the server has a lease, which outlasts that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_s3_server_stands_still_branches_go_on_and_suspends_wait() -> Result<()> {
    let Some(moto) = Buckets::moto("an S3 server that stands still")? else { return Ok(()) };
    let server = with_bucket(&moto, &[])?;
    let scene = Scene::begin(&server).await?;
    signal(moto.pid(), libc::SIGSTOP)?;
    let endured = scene.endure(&server).await;
    signal(moto.pid(), libc::SIGCONT)?;
    endured?;
    scene.end(&server).await
}

/// Its process is gone, and comes back with what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_s3_server_is_gone_branches_go_on_and_suspends_wait() -> Result<()> {
    let Some(mut s3s) = Buckets::s3s_fs("an S3 server that is gone")? else { return Ok(()) };
    let server = with_bucket(&s3s, &["--single-writer"])?;
    let scene = Scene::begin(&server).await?;
    s3s.kill()?;
    scene.endure(&server).await?;
    s3s.start_again()?;
    scene.end(&server).await
}

/// Two branches under load, and two that are to be suspended while the store is away: one that
/// nobody uses then, and one under load.
struct Scene {
    load: Vec<(&'static str, Load)>,
    quiet: Client,
}

const QUIET: &str = "quiet";

impl Scene {
    async fn begin(server: &Server) -> Result<Self> {
        server.project("demo")?;
        let mut load = Vec::new();
        for name in ["busy", "torn"] {
            let client = driver::connect(&server.branch(name, &["--empty"])?.uri).await?;
            insert(&client, "at first").await?;
            load.push((name, Load::begin(client)));
        }
        let quiet = driver::connect(&server.branch(QUIET, &["--empty"])?.uri).await?;
        insert(&quiet, "before").await?;
        Ok(Self { load, quiet })
    }

    /// As long as the outage lasts, everything is as promised.
    async fn endure(&self, server: &Server) -> Result<()> {
        let begun = Instant::now();
        let before = self.acknowledged();
        insert(&self.quiet, "while it is away").await?;
        // At once: each fails when requests to the store are given up, which takes the longest of all here.
        let suspends = [QUIET, "torn"].map(|name| {
            let cli = server.cli();
            spawn_blocking(move || cli.fail(&["branch", "suspend", "--wait", name]))
        });
        for failure in try_join_all(suspends).await? {
            let failure = failure?;
            ensure!(failure.stderr.contains("tried again by itself"), "{}", failure.stderr);
        }
        let waiting = server.until(QUIET, |now| now.state == BranchState::Saving).await?;
        let since = waiting.saving_since.clone().context("it says since when")?;
        ensure!(waiting.error.is_some(), "it does not say why: {waiting:?}");
        loop {
            let (earlier, at) = (self.acknowledged(), begun.elapsed());
            let more = || async {
                for (name, load) in &self.load {
                    if let Some(failure) = load.failure.get() {
                        bail!("a write to {name} failed after {at:?}: {failure}");
                    }
                }
                let now = self.acknowledged();
                Ok(now.iter().zip(&earlier).all(|(now, earlier)| now > earlier).then_some(()))
            };
            eventually_async("both branches take writes", more).await?;
            let now = server.show(QUIET)?;
            let waits = [BranchState::Saving, BranchState::Suspending].contains(&now.state);
            ensure!(waits, "it is {} after {at:?}", now.state);
            if now.state == BranchState::Saving {
                assert_eq!(
                    now.saving_since.as_ref(),
                    Some(&since),
                    "its age counts from the start"
                );
                let listed = server.cli().run(&["branch", "list"])?;
                ensure!(listed.contains("saving since"), "{listed}");
            }
            if begun.elapsed() > outage() {
                let taken = self.acknowledged();
                println!("away for {:?}: from {before:?} writes to {taken:?}", begun.elapsed());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The store is back: what waits is saved by itself, and nothing is missing anywhere.
    async fn end(self, server: &Server) -> Result<()> {
        let back = Instant::now();
        // A try waits for at most a minute.
        let saved = || async {
            let now = server.show(QUIET)?;
            Ok((now.state == BranchState::Suspended).then_some(now))
        };
        let mut quiet = eventually_async("it is saved by itself", saved).await;
        if quiet.is_err() {
            quiet = eventually_async("it is saved by itself", saved).await;
        }
        let quiet = quiet?;
        println!("saved {:?} after the store was back", back.elapsed());
        assert_eq!((quiet.error, quiet.saving_since), (None, None));
        for (name, load) in self.load {
            let (client, acknowledged) = load.end().await?;
            server.cli().run(&["branch", "suspend", "--wait", name])?;
            let found = changes(&client).await?;
            assert_eq!(found[0], "at first");
            let expected: Vec<_> = (0..acknowledged).map(|number| number.to_string()).collect();
            assert!(found[1..] == expected, "{name}: {} of {acknowledged}", found.len() - 1);
        }
        assert_eq!(changes(&self.quiet).await?, ["before", "while it is away"]);
        server.cli().run(&["scrub"]).map(drop)
    }

    fn acknowledged(&self) -> Vec<usize> {
        self.load.iter().map(|(_, load)| load.acknowledged.load(Ordering::SeqCst)).collect()
    }
}

/// A client that writes numbers all the time. No write may fail.
struct Load {
    client: Client,
    acknowledged: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    failure: Arc<OnceLock<String>>,
    writing: JoinHandle<Result<()>>,
}

impl Load {
    fn begin(client: Client) -> Self {
        let (acknowledged, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let failure = Arc::<OnceLock<String>>::default();
        let failed = failure.clone();
        let (writer, count, over) = (client.clone(), acknowledged.clone(), ended.clone());
        let writing = tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                if let Err(error) = insert(&writer, &number.to_string()).await {
                    failed.set(format!("{error:#}")).ok();
                    return Err(error);
                }
                count.store(number + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        Self { client, acknowledged, ended, failure, writing }
    }

    /// Gives how many writes were acknowledged.
    async fn end(self) -> Result<(Client, usize)> {
        self.ended.store(true, Ordering::SeqCst);
        self.writing.await.context("the writer")??;
        Ok((self.client, self.acknowledged.load(Ordering::SeqCst)))
    }
}
