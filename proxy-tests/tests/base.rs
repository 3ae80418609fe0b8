//! The base: real archives restored exactly, damaged ones refused with nothing left behind.

use std::fs;

use anyhow::{Context, Result};
use argon_admin::types::{Base, Branch};
use bson::{Bson, Document, doc};
use mongodb::Client;
use proxy_tests::archives::{Archive, expected, golden};
use proxy_tests::driver;
use proxy_tests::server::Server;

/// The time-series collection's digest is over other bytes, by the golden archives' own word.
const TIME_SERIES: &str = "shop.metrics";

async fn restored(server: &Server, archive: &str) -> Result<Client> {
    let path = golden(archive);
    let path = path.to_str().context("a path in UTF-8")?;
    let base: Base = server.cli().json(&["base", "set", path])?;
    assert_eq!(server.cli().json::<Base>(&["base", "show"])?.digest, base.digest);
    server.project("demo")?;
    driver::connect(&server.branch("dev", &[])?.uri).await
}

async fn names(client: &Client, command: Document, field: &str, name: &str) -> Result<Vec<String>> {
    let reply = client.database("admin").run_command(command).await?;
    let one = |value: &Bson| {
        let document = value.as_document()?;
        Some(format!("{}.{}", document.get_str("db").ok()?, document.get_str(name).ok()?))
    };
    let mut found: Vec<_> = reply.get_array(field)?.iter().filter_map(one).collect();
    found.sort();
    Ok(found)
}

async fn check(archive: &str, databases: &[&str], users: &[&str], roles: &[&str]) -> Result<()> {
    let server = Server::start()?;
    let client = restored(&server, archive).await?;
    let mut found = driver::databases(&client).await?;
    found.sort();
    assert_eq!(found, databases);
    let mut compared = 0;
    for (namespace, expected) in expected()? {
        let (database, collection) = namespace.split_once('.').context("a namespace has a dot")?;
        if !databases.contains(&database) {
            continue;
        }
        let mut contents = driver::contents(&client, database, collection).await?;
        if namespace == TIME_SERIES {
            assert_eq!(contents.documents, expected.documents, "{archive}: {namespace}");
            contents.digest.clone_from(&expected.digest);
        }
        assert_eq!(contents, expected, "{archive}: {namespace}");
        compared += 1;
    }
    assert!(compared >= 8, "compared only {compared} namespaces");
    check_options(&client).await?;
    let command = doc! { "usersInfo": { "forAllDBs": true } };
    assert_eq!(names(&client, command, "users", "user").await?, users, "{archive}");
    let command = doc! { "rolesInfo": 1, "showBuiltinRoles": false };
    let of_shop = client.database("shop").run_command(command).await?;
    let roles_of_shop: Vec<_> = of_shop
        .get_array("roles")?
        .iter()
        .filter_map(|role| role.as_document()?.get_str("_id").ok())
        .collect();
    assert_eq!(roles_of_shop, roles, "{archive}");
    Ok(())
}

/// What is no data but makes a collection what it is.
async fn check_options(client: &Client) -> Result<()> {
    let kinds = driver::collections(client, "shop").await?;
    let kind = |name: &str| kinds.get(name).map(String::as_str);
    assert_eq!(kind("cheap"), Some("view"));
    assert_eq!(kind("metrics"), Some("timeseries"));
    assert_eq!(kind("orders"), Some("collection"));
    let shop = client.database("shop");
    let options = |name: &'static str| {
        let shop = shop.clone();
        async move {
            let command = doc! { "listCollections": 1, "filter": { "name": name } };
            let reply = shop.run_command(command).await?;
            let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
            let first = batch.first().and_then(Bson::as_document).context("no such collection")?;
            anyhow::Ok(first.get_document("options")?.clone())
        }
    };
    assert!(options("log").await?.get_bool("capped")?);
    assert!(options("clustered").await?.contains_key("clusteredIndex"));
    let orders = options("orders").await?;
    assert_eq!(orders.get_document("collation")?.get_i32("strength")?, 2);
    // The validator is at work, and so is the unique index.
    let refused = shop.collection("orders").insert_one(doc! { "no": "items" }).await;
    let refused = refused.expect_err("the validator wants items");
    assert!(refused.to_string().contains("validation"), "{refused}");
    let products = shop.collection::<Document>("products");
    let one = products.find_one(doc! {}).await?.context("no product")?;
    let twin = doc! { "sku": one.get("sku").cloned() };
    let refused = products.insert_one(twin).await.expect_err("the sku is taken");
    assert!(refused.to_string().contains("E11000"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_everything_is_restored_exactly() -> Result<()> {
    let users = ["admin.appuser", "shop.audit"];
    check("full.archive.gz", &["geo", "shop", "types-db"], &users, &["shop.auditor"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_one_database_with_its_users_is_restored_exactly() -> Result<()> {
    check("shop.archive.gz", &["shop"], &["shop.audit"], &["shop.auditor"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_with_interleaved_namespaces_is_restored_exactly() -> Result<()> {
    check("parallel.archive", &["shop"], &[], &[]).await
}

#[test]
fn a_damaged_archive_is_refused_with_what_and_where() -> Result<()> {
    let server = Server::start()?;
    let before: Base = server.cli().json(&["base", "show"])?;
    let archive = Archive::read("parallel.archive")?;
    let gzip = fs::read(golden("full.archive.gz"))?;
    let mut flipped = gzip.clone();
    flipped[gzip.len() / 2] ^= 0x10;
    let rows: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("cut in a namespace", archive.cut_in("shop.products")?, &["shop.products"]),
        ("cut gzip", gzip[..gzip.len() / 2].to_vec(), &["gzip"]),
        ("one bit of the gzip", flipped, &["damaged at byte"]),
        ("CRC wrong", archive.with_wrong_crc("shop.orders")?, &["shop.orders", "checksum"]),
        ("a namespace missing", archive.without("shop.orders")?, &["shop.orders"]),
        ("no archive", b"PK\x03\x04 something else entirely".to_vec(), &["archive"]),
        ("not even gzip", [&[0x1f, 0x8b][..], &[0x55; 200]].concat(), &["gzip"]),
        ("empty", Vec::new(), &["archive"]),
    ];
    let path = server.home().join("damaged.archive");
    let text = path.to_str().context("a path in UTF-8")?;
    for (name, bytes, words) in rows {
        fs::write(&path, bytes)?;
        let failure = server.cli().fail(&["base", "set", text])?;
        assert_eq!(failure.code, 1, "{name}: {}", failure.stderr);
        for word in words {
            assert!(failure.stderr.contains(word), "{name}: `{word}` in {}", failure.stderr);
        }
        assert_eq!(server.cli().json::<Base>(&["base", "show"])?.digest, before.digest, "{name}");
    }
    assert!(server.mongods().is_empty(), "no mongod is left of it");

    // The base that was there still serves.
    server.project("demo")?;
    let branches: Vec<Branch> = server.cli().json(&["branch", "list"])?;
    assert_eq!(branches, []);
    server.branch("dev", &[])?;
    Ok(())
}
