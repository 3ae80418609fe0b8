//! Many idle clients of the Rust driver. See `proxy-tests/drivers/README.md` for the line
//! protocol; the number of clients comes in `SOAK_CLIENTS`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use mongodb::Client;
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::ClientOptions;

#[tokio::main]
async fn main() -> Result<()> {
    let number: usize = std::env::var("SOAK_CLIENTS")?.parse()?;
    // The second URI: no error is to be hidden by a retry.
    let uri = std::env::args().nth(2).context("two URIs, please")?;
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for _ in 0..number {
        let (answered, failed) = (answered.clone(), failed.clone());
        let mut options = ClientOptions::parse(&uri).await?;
        options.sdam_event_handler = Some(EventHandler::callback(move |event| match event {
            SdamEvent::ServerHeartbeatSucceeded(_) => drop(answered.fetch_add(1, Ordering::SeqCst)),
            SdamEvent::ServerHeartbeatFailed(_) => drop(failed.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }));
        clients.push(Client::with_options(options)?);
    }
    let things = |client: &Client| client.database("soak").collection::<Document>("things");
    for client in &clients {
        things(client).insert_one(doc! { "before": 1 }).await?;
    }
    let awake = answered.load(Ordering::SeqCst);
    println!("SUSPEND");
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    ensure!(answer.await?? == "done\n", "the harness is gone");
    println!("CELL heartbeats {}", answered.load(Ordering::SeqCst) - awake);
    for client in &clients {
        things(client).insert_one(doc! { "after": 1 }).await?;
        ensure!(things(client).find_one(doc! { "after": 1 }).await?.is_some());
    }
    ensure!(failed.load(Ordering::SeqCst) == 0, "a heartbeat failed");
    println!("CELL soak ok");
    Ok(())
}
