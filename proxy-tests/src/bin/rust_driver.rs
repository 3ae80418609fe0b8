//! The Rust driver's program. See `proxy-tests/drivers/README.md` for the cells and the line
//! protocol.

use std::future::Future;
use std::io::BufRead;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR};
use mongodb::{Client, Collection, Cursor, Database};

const CURSOR_NOT_FOUND: i32 = 43;

/// A client as the URI has it, and one that never retries.
struct Scenario {
    client: Client,
    plain: Client,
}

#[tokio::main]
async fn main() -> Result<()> {
    let uris: Vec<_> = std::env::args().skip(1).collect();
    let [uri, plain] = &uris[..] else { anyhow::bail!("two URIs, please") };
    let client = Client::with_uri_str(uri).await?;
    let scenario = Scenario { client, plain: Client::with_uri_str(plain).await? };
    println!("VERSION {}", version()?);
    cell("connect", scenario.connect()).await;
    cell("crud", scenario.crud()).await;
    cell("retryable-write", scenario.retryable_write()).await;
    cell("bulk-write", scenario.bulk_write()).await;
    cell("batches", scenario.batches()).await;
    // This driver refuses a write concern of 0.
    cell("w0", async { Ok("has none") }).await;
    cell("transaction", scenario.transaction()).await;
    cell("change-stream", scenario.change_stream()).await;
    cell("idle-pool", scenario.idle_pool()).await;
    cell("open-cursor", scenario.open_cursor()).await;
    cell("open-transaction", scenario.open_transaction()).await;
    cell("waiting-stream", scenario.waiting_stream()).await;
    Ok(())
}

impl Scenario {
    fn db(&self) -> Database {
        self.client.database("scenario")
    }

    fn things(&self) -> Collection<Document> {
        self.db().collection("things")
    }

    fn plain(&self, collection: &str) -> Collection<Document> {
        self.plain.database("scenario").collection(collection)
    }

    async fn connect(&self) -> Result<&'static str> {
        self.client.database("admin").run_command(doc! { "ping": 1 }).await?;
        ensure!(self.things().count_documents(doc! {}).await? == 0);
        Ok("ok")
    }

    async fn crud(&self) -> Result<&'static str> {
        let things = self.things();
        let one = || doc! { "_id": 1 };
        things.insert_one(doc! { "_id": 1, "n": 1 }).await?;
        let updated = things.update_one(one(), doc! { "$inc": { "n": 1 } }).await?;
        ensure!(updated.modified_count == 1);
        let found = things.find_one(one()).await?.context("it is gone")?;
        ensure!(found.get_i32("n")? == 2);
        ensure!(things.delete_one(one()).await?.deleted_count == 1);
        Ok("ok")
    }

    async fn retryable_write(&self) -> Result<&'static str> {
        self.things().insert_one(doc! { "_id": 2 }).await?;
        // A server remembers the last retryable write of each session.
        let remembered = self.client.database("config").collection::<Document>("transactions");
        ensure!(remembered.count_documents(doc! {}).await? > 0);
        Ok("ok")
    }

    /// The driver's own bulk write needs a server of version 8, so this is its insert of many.
    async fn bulk_write(&self) -> Result<&'static str> {
        let documents = (0..101).map(|n| doc! { "_id": n });
        let result = self.db().collection("many").insert_many(documents).await?;
        ensure!(result.inserted_ids.len() == 101);
        Ok("ok")
    }

    async fn batches(&self) -> Result<&'static str> {
        let found: Vec<_> = sorted(&self.db().collection("many")).await?.try_collect().await?;
        ensure!(found.iter().map(id).eq(0..101), "{found:?}");
        Ok("ok")
    }

    async fn insert_twice(&self, name: &str, between: fn() -> Result<()>) -> Result<()> {
        let mut session = self.client.start_session().await?;
        session.start_transaction().await?;
        for number in 1..=2 {
            let one = doc! { "_id": format!("{name} {number}") };
            self.things().insert_one(one).session(&mut session).await?;
            if number == 1 {
                between()?;
            }
        }
        Ok(session.commit_transaction().await?)
    }

    async fn transaction(&self) -> Result<&'static str> {
        self.insert_twice("transaction", || Ok(())).await?;
        let both = doc! { "_id": { "$regex": "^transaction" } };
        ensure!(self.things().count_documents(both).await? == 2);
        Ok("ok")
    }

    /// Inserts three events, of which the stream must show each once and in order.
    async fn watched(&self, name: &str, between: fn() -> Result<()>) -> Result<()> {
        let events = self.db().collection::<Document>("events");
        let mut stream = events.watch().await?;
        let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let watcher = tokio::spawn(async move {
            while let Some(event) = stream.next().await {
                let key = event.map(|event| event.document_key.unwrap_or_default());
                if sender.send(key).is_err() {
                    break;
                }
            }
        });
        let wanted: Vec<_> = (0..3).map(|n| doc! { "_id": format!("{name} {n}") }).collect();
        for one in &wanted[..1] {
            events.insert_one(one).await?;
        }
        let mut see = async |one: &Document| {
            let next = tokio::time::timeout(Duration::from_secs(30), seen.recv()).await;
            let next = next.context("the stream says nothing")?.context("the stream ended")??;
            ensure!(next == *one, "{next} instead of {one}");
            Ok(())
        };
        see(&wanted[0]).await?;
        tokio::task::spawn_blocking(between).await??;
        for one in &wanted[1..] {
            events.insert_one(one).await?;
        }
        for one in &wanted[1..] {
            see(one).await?;
        }
        watcher.abort();
        Ok(())
    }

    async fn change_stream(&self) -> Result<&'static str> {
        self.watched("stream", || Ok(())).await?;
        Ok("ok")
    }

    async fn idle_pool(&self) -> Result<&'static str> {
        let many = self.plain("many");
        for found in join_all((0..5).map(|_| many.find_one(doc! {}).into_future())).await {
            found?;
        }
        suspend()?;
        self.plain("things").insert_one(doc! { "_id": "after the nap" }).await?;
        suspend()?;
        ensure!(many.count_documents(doc! {}).await? == 101);
        Ok("ok")
    }

    async fn open_cursor(&self) -> Result<&'static str> {
        let mut cursor = sorted(&self.plain("many")).await?;
        let mut found = vec![id(&cursor.try_next().await?.context("nothing is there")?)];
        suspend()?;
        loop {
            match cursor.try_next().await {
                Ok(Some(next)) => found.push(id(&next)),
                Ok(None) => break,
                Err(e) if code(&e) == Some(CURSOR_NOT_FOUND) => {
                    ensure!(self.plain("many").count_documents(doc! {}).await? == 101);
                    return Ok("CursorNotFound");
                }
                Err(e) => return Err(e.into()),
            }
        }
        ensure!(found.into_iter().eq(0..101));
        Ok("completes")
    }

    async fn open_transaction(&self) -> Result<&'static str> {
        let Err(error) = self.insert_twice("reopened", suspend).await else {
            anyhow::bail!("no error");
        };
        let label = error
            .downcast_ref()
            .is_some_and(|error: &Error| error.contains_label(TRANSIENT_TRANSACTION_ERROR));
        ensure!(label, "{error}");
        self.insert_twice("reopened", || Ok(())).await?;
        Ok("TransientTransactionError")
    }

    async fn waiting_stream(&self) -> Result<&'static str> {
        self.watched("waiting", suspend).await?;
        Ok("resumes")
    }
}

async fn sorted(many: &Collection<Document>) -> Result<Cursor<Document>> {
    Ok(many.find(doc! {}).sort(doc! { "_id": 1 }).batch_size(10).await?)
}

fn id(document: &Document) -> i32 {
    document.get_i32("_id").unwrap_or(-1)
}

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Blocks this thread, on purpose: nothing else is to happen but what the driver does by itself.
fn suspend() -> Result<()> {
    println!("SUSPEND");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    ensure!(answer == "done\n", "the harness is gone");
    Ok(())
}

async fn cell(name: &str, work: impl Future<Output = Result<&'static str>>) {
    let result = match work.await {
        Ok(result) => result.to_owned(),
        Err(e) => format!("failed: {e:#}").split_whitespace().collect::<Vec<_>>().join(" "),
    };
    println!("CELL {name} {result}");
}

/// The driver does not say its version; the lock file does.
fn version() -> Result<&'static str> {
    let lock = include_str!("../../../Cargo.lock");
    let (_, entry) = lock.split_once("name = \"mongodb\"\nversion = \"").context("no driver")?;
    Ok(entry.split('"').next().unwrap_or_default())
}
