//! What drivers notice of a branch's lives through the proxy, over a real mongod: cursors,
//! transactions and change streams that a suspend ends, and how few connections mongod has.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use argon_admin::types::BranchState;
use bson::{Document, doc};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt};
use mongodb::error::{Error, ErrorKind};
use mongodb::{Client, Collection};
use proxy_tests::driver;
use proxy_tests::server::Server;
use proxy_tests::wait::eventually_async;

const CURSOR_NOT_FOUND: i32 = 43;
const NO_SUCH_TRANSACTION: i32 = 251;
const UNAUTHORIZED: i32 = 13;
const TRANSIENT: &str = "TransientTransactionError";

struct Scene {
    server: Server,
    uri: String,
}

impl Scene {
    fn new(options: &[&str]) -> Result<Self> {
        let server = Server::start()?;
        server.project("shop")?;
        let uri = server.branch("dev", &[&["--empty"], options].concat())?.uri;
        Ok(Self { server, uri })
    }

    async fn client(&self) -> Result<Client> {
        driver::connect(&self.uri).await
    }

    fn suspend(&self) -> Result<()> {
        self.server.cli().run(&["branch", "suspend", "--wait", "dev"]).map(drop)
    }

    fn is_asleep(&self) -> Result<bool> {
        Ok(self.server.show("dev")?.state == BranchState::Suspended)
    }
}

fn things(client: &Client) -> Collection<Document> {
    client.database("shop").collection("things")
}

fn numbers(count: i32) -> Vec<Document> {
    (0..count).map(|number| doc! { "_id": number }).collect()
}

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_ends_with_its_life_and_wakes_nothing() -> Result<()> {
    let scene = Scene::new(&[])?;
    let client = scene.client().await?;
    things(&client).insert_many(numbers(10)).await?;
    let mut cursor = things(&client).find(doc! {}).batch_size(2).await?;
    cursor.try_next().await?.context("a first document")?;
    scene.suspend()?;
    let error = loop {
        match cursor.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => bail!("the cursor outlived its mongod"),
            Err(error) => break error,
        }
    };
    assert_eq!(code(&error), Some(CURSOR_NOT_FOUND), "{error}");
    assert!(scene.is_asleep()?);
    // The next life knows nothing of it either.
    let old = doc! { "getMore": 5_i64, "collection": "things" };
    assert_eq!(things(&client).count_documents(doc! {}).await?, 10);
    let error = client.database("shop").run_command(old).await.unwrap_err();
    assert_eq!(code(&error), Some(CURSOR_NOT_FOUND), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_ends_with_its_life_and_can_be_done_again() -> Result<()> {
    let scene = Scene::new(&[])?;
    let client = scene.client().await?;
    let things = things(&client);
    things.insert_one(doc! { "_id": "before" }).await?;
    let mut session = client.start_session().await?;
    for next_life_runs in [false, true] {
        session.start_transaction().await?;
        things.insert_one(doc! { "_id": "within" }).session(&mut session).await?;
        scene.suspend()?;
        if next_life_runs {
            things.find_one(doc! {}).await?.context("a document")?;
        }
        let lost = things.insert_one(doc! { "_id": "after" }).session(&mut session).await;
        let error = lost.unwrap_err();
        assert_eq!(code(&error), Some(NO_SUCH_TRANSACTION), "{error}");
        assert!(error.contains_label(TRANSIENT), "{error}");
        session.abort_transaction().await?;
        assert_eq!(scene.is_asleep()?, !next_life_runs);
    }
    session.start_transaction().await?;
    things.insert_one(doc! { "_id": "again" }).session(&mut session).await?;
    session.commit_transaction().await?;
    scene.suspend()?;
    // Whether it was committed is on disk, so a second commit is work, and good.
    session.commit_transaction().await?;
    assert_eq!(things.count_documents(doc! {}).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_stream_goes_on_over_suspends_without_a_gap() -> Result<()> {
    const ROUNDS: i32 = 3;
    let scene = Scene::new(&[])?;
    let client = scene.client().await?;
    things(&client).insert_one(doc! { "_id": -1 }).await?;
    let mut stream = things(&client).watch().max_await_time(Duration::from_millis(200)).await?;
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 2 * ROUNDS as usize {
            let change = stream.next().await.context("the stream ended")??;
            seen.push(change.full_document.context("an insert")?.get_i32("_id")?);
        }
        anyhow::Ok(seen)
    });
    for round in 0..ROUNDS {
        things(&client).insert_one(doc! { "_id": 2 * round }).await?;
        scene.suspend()?;
        things(&client).insert_one(doc! { "_id": 2 * round + 1 }).await?;
    }
    assert_eq!(watching.await??, (0..2 * ROUNDS).collect::<Vec<_>>());
    Ok(())
}

/// All of them at once.
async fn work(clients: &[Client]) -> Result<()> {
    let insert = doc! { "insert": "things", "documents": [{}] };
    let work = async |client: &Client| client.database("shop").run_command(insert.clone()).await;
    try_join_all(clients.iter().map(work)).await?;
    Ok(())
}

/// How many connections the branch's mongod has.
async fn connections(client: &Client) -> Result<i32> {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
    Ok(status.get_document("connections")?.get_i32("current")?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_of_an_awake_branch_leave_mongod_alone() -> Result<()> {
    const CLIENTS: usize = 100;
    const FEW: i32 = 20;
    let scene = Scene::new(&[])?;
    let clients = try_join_all((0..CLIENTS).map(|_| scene.client())).await?;
    work(&clients).await?;
    let few = || async {
        let now = connections(&clients[0]).await?;
        Ok((now <= FEW).then_some(()))
    };
    eventually_async("few connections are left", few).await?;
    work(&clients).await?;
    assert_eq!(things(&clients[0]).count_documents(doc! {}).await?, 2 * CLIENTS as u64);
    Ok(())
}

/// The cursor is opened and read without a session, on whatever connection there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_outlives_the_connection_that_opened_it() -> Result<()> {
    let scene = Scene::new(&[])?;
    let client = scene.client().await?;
    things(&client).insert_many(numbers(10)).await?;
    let database = client.database("shop");
    let find = doc! { "find": "things", "batchSize": 2 };
    let opened = database.run_command(find).await?;
    let id = opened.get_document("cursor")?.get_i64("id")?;
    let opener = || async {
        // Other metadata, so a connection of its own; and mongod lists the clients it has.
        let other = driver::connect(&scene.uri.replace("argon.shop%2Fdev", "argon.dev")).await?;
        let pipeline = [doc! { "$currentOp": { "allUsers": true, "idleConnections": true } }];
        let ops: Vec<Document> =
            other.database("admin").aggregate(pipeline).await?.try_collect().await?;
        let theirs =
            |op: &Document| op.get_str("appName").is_ok_and(|name| name == "argon.shop/dev");
        Ok((!ops.iter().any(theirs)).then_some(()))
    };
    eventually_async("the opener's connection is closed", opener).await?;
    let more = doc! { "getMore": id, "collection": "things" };
    let rest = database.run_command(more).await?;
    assert_eq!(rest.get_document("cursor")?.get_array("nextBatch")?.len(), 8);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_would_break_a_branch_never_reach_it() -> Result<()> {
    let scene = Scene::new(&[])?;
    let client = scene.client().await?;
    let admin = client.database("admin");
    for command in [
        doc! { "shutdown": 1 },
        doc! { "replSetStepDown": 1 },
        doc! { "setFeatureCompatibilityVersion": "5.0" },
        doc! { "fsync": 1, "lock": true },
        doc! { "fsyncUnlock": 1 },
        doc! { "setParameter": 1, "notablescan": true },
        doc! { "logRotate": 1 },
        doc! { "_configsvrAddShard": 1 },
    ] {
        let error = admin.run_command(command.clone()).await.unwrap_err();
        assert_eq!(code(&error), Some(UNAUTHORIZED), "{command}: {error}");
        assert!(error.to_string().contains("instead: "), "{command}: {error}");
    }
    assert!(scene.is_asleep()?);
    for command in [
        doc! { "fsync": 1 },
        doc! { "setDefaultRWConcern": 1, "defaultReadConcern": {
            "level": "majority",
        } },
    ] {
        admin.run_command(command).await?;
    }
    things(&client).insert_one(doc! {}).await?;
    client.database("shop").run_command(doc! { "compact": "things", "force": true }).await?;
    Ok(())
}
