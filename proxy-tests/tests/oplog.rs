//! A load of gigabytes leaves no oplog that every later start reads at dozens of places.

use std::fs;

use anyhow::{Result, ensure};
use bson::{Document, doc};
use mongodb::Client;
use proxy_tests::driver;
use proxy_tests::server::Setup;
use serde_json::Value;

/// Of one document; it compresses to nothing.
const BYTES: usize = 4_000_000;
/// Far more than it takes.
const DOCUMENTS_MAX: i32 = 2_000;

/// Bytes that its entries have, and that they should have.
async fn oplog(client: &Client) -> Result<(i64, i64)> {
    let stats = client.database("local").run_command(doc! { "collStats": "oplog.rs" }).await?;
    let number = |name| match stats.get(name) {
        Some(bson::Bson::Int32(number)) => i64::from(*number),
        Some(bson::Bson::Int64(number)) => *number,
        other => panic!("{name}: {other:?}"),
    };
    Ok((number("size"), number("maxSize")))
}

#[tokio::test]
async fn an_oplog_that_a_load_made_too_long_is_one_section_for_the_next_start() -> Result<()> {
    let server = Setup::new()?.arguments(&["--parked", "0"]).start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty", "--idle-timeout", "never"])?;
    let client = driver::connect(&dev.uri).await?;
    let things = client.database("test").collection::<Document>("things");
    let text = "x".repeat(BYTES);
    let mut documents = 0;
    let loaded = loop {
        things.insert_one(doc! { "_id": documents, "text": &text }).await?;
        documents += 1;
        let (length, should_be) = oplog(&client).await?;
        if length > 2 * should_be + should_be / 10 {
            break length;
        }
        ensure!(documents < DOCUMENTS_MAX, "mongod cuts it by itself, to {length} bytes");
    };
    server.cli().run(&["branch", "suspend", "dev"])?;
    let (length, should_be) = oplog(&client).await?;
    // A change stream can go on from anything that was there.
    assert!(length >= loaded, "{length} of {loaded} bytes");
    assert!(should_be >= length - should_be / 10, "{length} bytes, {should_be} asked for");
    let log = server.data_dir().join("work").join(&dev.id).join("mongod.log");
    let log = fs::read_to_string(log)?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let places: Vec<_> = lines.filter_map(|line| line["attr"]["numSamples"].as_i64()).collect();
    assert!(places.last().is_some_and(|places| *places <= 10), "{places:?}");
    assert_eq!(things.count_documents(doc! {}).await?, documents as u64);
    Ok(())
}
