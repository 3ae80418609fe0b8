//! The demo scenario: what Argon is for, once through. `cargo demo` shows it, and it is the first
//! of the tests; both run this code.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Branch, BranchState, Version};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use mongodb::{Client, Collection};

use crate::cli::Cli;
use crate::driver::{self, Connections};
use crate::server::Server;
use crate::steps::{Steps, readable};
use crate::wait::eventually_async;

/// How many clients arrive at once in the last step.
pub const CROWD: usize = 50;

const PROJECT: &str = "demo";

/// Runs all of it. What is left behind is the project and the branches of the last steps.
pub async fn run(server: &Server, steps: &mut Steps) -> Result<()> {
    let scene = Scene { cli: server.cli() };
    scene.start(steps).await?;
    let (dev, connections) = scene.first_change(steps).await?;
    let first = scene.suspend(steps, 1).await?;
    scene.second_change(steps, &dev, &connections).await?;
    scene.suspend(steps, 2).await?;
    scene.back_in_time(steps, &dev, &first).await?;
    scene.delete(steps).await?;
    scene.idle(steps).await?;
    scene.crowd(steps).await
}

struct Scene {
    cli: Cli,
}

impl Scene {
    async fn start(&self, steps: &mut Steps) -> Result<()> {
        let project = async {
            self.cli.run(&["project", "create", PROJECT])?;
            Ok(((), format!("`argon project create {PROJECT}` succeeded")))
        };
        let proves = "the admin API works; the sample archive was loaded, once for all branches";
        steps.step("create a project", proves, project).await?;

        let branch = async {
            self.cli.run(&["branch", "create", "dev"])?;
            let dev = self.show("dev")?;
            ensure!(dev.state == BranchState::Suspended, "it is {}", dev.state);
            let seen = format!(
                "dev is suspended at version {}, {} KiB of data",
                dev.head_version,
                dev.size_bytes / 1024
            );
            Ok(((), seen))
        };
        let proves = "a branch starts from the loaded base: nothing is copied, nothing runs";
        steps.step("create branch dev from the base", proves, branch).await
    }

    async fn first_change(&self, steps: &mut Steps) -> Result<(Client, Connections)> {
        let uri = self.cli.run(&["connect", "dev"])?;
        let reading = async {
            let watched = driver::connect_watched(&uri).await?;
            let client = &watched.0;
            let (mut collections, mut documents) = (0, 0);
            for database in driver::databases(client).await? {
                for (collection, kind) in driver::collections(client, &database).await? {
                    if kind == "collection" {
                        collections += 1;
                        documents += driver::count(client, &database, &collection).await?;
                    }
                }
            }
            ensure!(documents > 0, "the base holds no documents");
            let seen = format!("{uri}: {documents} documents in {collections} collections");
            Ok((watched, seen))
        };
        let proves = "the URI finds the branch, and the first command woke it";
        let watched = steps.step("connect a driver, read the base's data", proves, reading).await?;

        let writing = async {
            insert(&watched.0, "first change").await?;
            Ok(((), format!("dev holds {:?}", changes(&watched.0).await?)))
        };
        let proves = "a branch is a writable MongoDB of its own";
        steps.step("insert \"first change\"", proves, writing).await?;
        Ok(watched)
    }

    async fn suspend(&self, steps: &mut Steps, count: usize) -> Result<Version> {
        let work = async {
            self.cli.run(&["branch", "suspend", "--wait", "dev"])?;
            let dev = self.show("dev")?;
            ensure!(dev.state == BranchState::Suspended, "dev is {}", dev.state);
            let versions = self.versions("dev")?;
            // The first one listed is what the branch started from.
            ensure!(versions.len() == 1 + count, "expected {count} more: {versions:?}");
            let version = versions
                .into_iter()
                .find(|version| version.id == dev.head_version)
                .context("the head is none of the branch's versions")?;
            let seen = format!(
                "version {}, of its {} KiB {} KiB stored anew",
                version.id,
                version.size_bytes / 1024,
                version.stored_bytes / 1024
            );
            Ok((version, seen))
        };
        let name = format!("suspend dev: version {count}");
        steps.step(&name, "no process is left; only what changed was stored", work).await
    }

    async fn second_change(
        &self,
        steps: &mut Steps,
        client: &Client,
        connections: &Connections,
    ) -> Result<()> {
        let work = async {
            insert(client, "second change").await?;
            let found = changes(client).await?;
            ensure!(found == ["first change", "second change"], "dev holds {found:?}");
            let (state, closed) = (self.show("dev")?.state, connections.closed());
            ensure!(closed == 0, "{closed} connections were closed under the client");
            Ok(((), format!("dev is {state} and holds {found:?}; no connection was closed")))
        };
        let proves = "the branch woke by itself; its client neither reconnected nor saw an error";
        steps.step("same driver object: insert \"second change\"", proves, work).await
    }

    async fn back_in_time(&self, steps: &mut Steps, dev: &Client, first: &Version) -> Result<()> {
        let listing = async {
            let versions = self.versions("dev")?;
            let causes: Vec<_> = versions.iter().map(|version| version.cause.as_str()).collect();
            ensure!(causes == ["base", "suspend", "suspend"], "expected others: {versions:?}");
            let one = |version: &Version| format!("{} {}", version.cause, version.created_at);
            Ok(((), versions.iter().map(one).collect::<Vec<_>>().join(", ")))
        };
        steps
            .step("list the versions of dev", "every suspend can be gone back to", listing)
            .await?;

        let time = first.created_at.as_str();
        let work = async {
            let arguments = ["branch", "time-travel", "dev-v1", "--from-branch", "dev"];
            self.cli.run(&[&arguments[..], &["--timestamp", time]].concat())?;
            let made = self.show("dev-v1")?;
            ensure!(made.head_version == first.id, "it starts from {}", made.head_version);
            Ok(((), format!("dev-v1 starts from version {}", made.head_version)))
        };
        let proves = "an old version becomes a branch without copying a byte";
        let name = format!("time-travel: dev-v1 from dev at {time}");
        steps.step(&name, proves, work).await?;

        let comparing = async {
            let client = driver::connect(&self.cli.run(&["connect", "dev-v1"])?).await?;
            let then = changes(&client).await?;
            ensure!(then == ["first change"], "dev-v1 holds {then:?}");
            let now = changes(dev).await?;
            ensure!(now == ["first change", "second change"], "dev holds {now:?}");
            Ok(((), format!("dev-v1 holds {then:?}, dev holds {now:?}")))
        };
        let proves = "the old state is back beside the new one, and neither touches the other";
        steps.step("compare dev-v1 with dev", proves, comparing).await
    }

    async fn delete(&self, steps: &mut Steps) -> Result<()> {
        let work = async {
            for name in ["dev", "dev-v1"] {
                self.cli.run(&["branch", "delete", name])?;
            }
            let live: Vec<Branch> = self.cli.json(&["branch", "list"])?;
            ensure!(live.is_empty(), "still there: {live:?}");
            let deleted: Vec<Branch> = self.cli.json(&["branch", "list", "--deleted"])?;
            let names: Vec<_> = deleted.into_iter().map(|branch| branch.name).collect();
            Ok(((), format!("no branch is left; deleted ones: {}", names.join(", "))))
        };
        let proves = "deleting keeps the last state, until it is purged";
        steps.step("delete both branches", proves, work).await
    }

    async fn idle(&self, steps: &mut Steps) -> Result<()> {
        const IDLE: &str = "1s";
        let client = async {
            self.cli.run(&["branch", "create", "nap", "--idle-timeout", IDLE])?;
            let client = driver::connect(&self.cli.run(&["connect", "nap"])?).await?;
            insert(&client, "before the nap").await?;
            let last_work = Instant::now();
            let suspended =
                || async { Ok((self.show("nap")?.state == BranchState::Suspended).then_some(())) };
            eventually_async("the idle branch suspends", suspended).await?;
            let after = last_work.elapsed();
            ensure!(after >= Duration::from_secs(1), "suspended too early, after {after:?}");
            Ok((client, format!("suspended {} after its last command", readable(after))))
        };
        let proves = "an idle branch goes to sleep by itself, heartbeats do not keep it awake";
        let name = format!("branch nap with an idle time-out of {IDLE}: leave it alone");
        let client = steps.step(&name, proves, client).await?;

        let waking = async {
            let found = changes(&client).await?;
            ensure!(found == ["before the nap"], "nap holds {found:?}");
            Ok(((), format!("nap holds {found:?}")))
        };
        let proves = "the next query wakes it, with nothing lost";
        steps.step("same driver object: query nap", proves, waking).await
    }

    async fn crowd(&self, steps: &mut Steps) -> Result<()> {
        let work = async {
            self.cli.run(&["branch", "create", "crowd"])?;
            let before = self.show("crowd")?;
            ensure!(before.state == BranchState::Suspended, "crowd is {}", before.state);
            let uri = self.cli.run(&["connect", "crowd"])?;
            let arrive = |number: usize| {
                let uri = &uri;
                async move {
                    let client = driver::connect(uri).await?;
                    insert(&client, &format!("from client {number}")).await?;
                    anyhow::Ok(client)
                }
            };
            let clients = try_join_all((0..CROWD).map(arrive)).await?;
            let found = changes(&clients[0]).await?.len();
            ensure!(found == CROWD, "{found} of {CROWD} writes are there");
            let after = self.show("crowd")?;
            let starts = after.epoch - before.epoch;
            ensure!(starts == 1, "{CROWD} clients caused {starts} starts");
            Ok(((), format!("{found} writes of {CROWD} clients, {starts} start")))
        };
        let name = format!("branch crowd, suspended: {CROWD} clients insert at once");
        steps
            .step(&name, "whoever arrives while a branch wakes waits for that one start", work)
            .await
    }

    fn show(&self, branch: &str) -> Result<Branch> {
        self.cli.json(&["branch", "show", branch])
    }

    fn versions(&self, branch: &str) -> Result<Vec<Version>> {
        self.cli.json(&["branch", "list-versions", branch])
    }
}

fn collection(client: &Client) -> Collection<Document> {
    client.database(PROJECT).collection("changes")
}

/// Inserts one document with a text.
pub async fn insert(client: &Client, text: &str) -> Result<()> {
    collection(client)
        .insert_one(doc! { "text": text })
        .await
        .with_context(|| format!("insert \"{text}\""))?;
    Ok(())
}

/// The texts that [`insert`] inserted, in their order.
pub async fn changes(client: &Client) -> Result<Vec<String>> {
    let cursor = collection(client).find(doc! {}).sort(doc! { "_id": 1 }).await.context("query")?;
    let documents: Vec<_> = cursor.try_collect().await.context("query")?;
    documents.iter().map(|one| Ok(one.get_str("text")?.to_owned())).collect()
}
