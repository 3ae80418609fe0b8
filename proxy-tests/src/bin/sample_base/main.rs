//! Makes `data/base_dump.archive`, the sample data that new projects start from; `data/SAMPLE.md`
//! says what is in it.
//!
//! Starts a mongod of its own, fills it through the Rust driver and dumps it with Argon's writer.
//! The documents are the same at every run; only the collections' UUIDs differ.

mod random;
mod shop;
mod words;

use std::fs::{File, create_dir_all, rename};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use argon::archive::{self, Compression};
use argon::compute::mongod::Search;
use argon::compute::{Cell, Choice, Compute, Instance, ProcessCompute};
use argon::wire;
use bson::{Document, doc};
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{Client, Database};

const DATABASE: &str = "shop";

#[tokio::main]
async fn main() -> Result<()> {
    let into = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/base_dump.archive"),
    };
    let search = Search::of_this_process(None)?;
    let find = move || search.find_or_fetch(&mut |progress| eprintln!("{progress:?}"));
    let compute = ProcessCompute::new(tokio::task::spawn_blocking(find).await??).await?;
    let dir = tempfile::tempdir().context("make a folder for the mongod")?;
    let mongod = start(&compute, dir.path()).await?;

    fill(mongod.socket()).await?;
    dump(mongod.socket(), &into).await?;
    mongod.stop().await;

    let summary = archive::check(&into)?;
    for contents in &summary.contents {
        println!(
            "{:30} {:6} documents {:8} bytes",
            contents.namespace, contents.documents, contents.bytes
        );
    }
    println!("{} ({} bytes)", into.display(), into.metadata()?.len());
    Ok(())
}

async fn start(compute: &ProcessCompute, dir: &Path) -> Result<Arc<dyn Instance>> {
    let (dbpath, socket_dir) = (dir.join("db"), dir.join("run"));
    create_dir_all(&dbpath)?;
    create_dir_all(&socket_dir)?;
    let log = dir.join("mongod.log");
    let (owner, mongod) = (Default::default(), Choice::Server);
    Ok(compute
        .start(Cell { dbpath, socket_dir, log, cache_gb: 0.25, oplog_mb: 64, owner, mongod })
        .await?)
}

async fn fill(socket: &Path) -> Result<()> {
    let address = ServerAddress::Unix { path: socket.to_owned() };
    let options = ClientOptions::builder().hosts(vec![address]).direct_connection(true).build();
    let client = Client::with_options(options)?;
    let db = client.database(DATABASE);
    let shop = shop::shop();
    create(&db).await?;
    for (name, documents) in [
        ("products", shop.products),
        ("customers", shop.customers),
        ("orders", shop.orders),
        ("reviews", shop.reviews),
        ("stores", shop.stores),
    ] {
        let inserted = db.collection::<Document>(name).insert_many(documents).await;
        inserted.with_context(|| format!("insert into {name}"))?;
    }
    client.shutdown().await;
    Ok(())
}

/// Collections, indexes and views, as commands: they are what SAMPLE.md describes.
async fn create(db: &Database) -> Result<()> {
    let categories: Vec<&str> = words::CATEGORIES.iter().map(|category| category.name).collect();
    let product = doc! { "bsonType": "object", "required": ["slug", "name", "category", "price", "stock"], "properties": {
        "category": { "enum": categories },
        "price": { "bsonType": "decimal", "minimum": 0 },
        "stock": { "bsonType": "int", "minimum": 0 },
    } };
    let review = doc! { "bsonType": "object", "required": ["product_id", "customer_id", "rating"], "properties": {
        "rating": { "bsonType": "int", "minimum": 1, "maximum": 5 },
    } };
    let ignore_case = doc! { "locale": "en", "strength": 2 };
    let sold = doc! { "$group": {
        "_id": "$items.product_id",
        "name": { "$first": "$items.name" },
        "sold": { "$sum": "$items.quantity" },
        "revenue": { "$sum": { "$multiply": ["$items.price", "$items.quantity"] } },
    } };
    for command in [
        doc! { "create": "products", "validator": { "$jsonSchema": product } },
        doc! { "createIndexes": "products", "indexes": [
            { "key": { "slug": 1 }, "name": "slug_1", "unique": true },
            { "key": { "category": 1, "price": 1 }, "name": "category_1_price_1" },
            { "key": { "name": "text", "description": "text" }, "name": "search", "weights": { "name": 5 } },
            { "key": { "attributes.$**": 1 }, "name": "attributes.$**_1" },
        ] },
        doc! { "create": "customers" },
        doc! { "createIndexes": "customers", "indexes": [
            { "key": { "email": 1 }, "name": "email_1", "unique": true },
            { "key": { "name": 1 }, "name": "name_1_any_case", "collation": ignore_case },
            { "key": { "address.location": "2dsphere" }, "name": "address.location_2dsphere" },
        ] },
        doc! { "create": "orders" },
        doc! { "createIndexes": "orders", "indexes": [
            { "key": { "customer_id": 1, "placed_at": -1 }, "name": "customer_id_1_placed_at_-1" },
            { "key": { "items.product_id": 1 }, "name": "items.product_id_1" },
            { "key": { "placed_at": 1 }, "name": "placed_at_1_open",
              "partialFilterExpression": { "status": { "$in": ["placed", "paid", "shipped"] } } },
        ] },
        doc! { "create": "reviews", "validator": { "$jsonSchema": review } },
        doc! { "createIndexes": "reviews", "indexes": [
            { "key": { "product_id": 1, "customer_id": 1 }, "name": "product_id_1_customer_id_1", "unique": true },
            { "key": { "rating": 1 }, "name": "rating_1" },
        ] },
        doc! { "create": "stores" },
        doc! { "createIndexes": "stores", "indexes": [
            { "key": { "location": "2dsphere" }, "name": "location_2dsphere" },
        ] },
        doc! { "create": "bestsellers", "viewOn": "orders", "pipeline": [
            { "$match": { "status": { "$ne": "cancelled" } } },
            { "$unwind": "$items" },
            sold,
            { "$sort": { "sold": -1, "_id": 1 } },
        ] },
        doc! { "create": "open_orders", "viewOn": "orders", "pipeline": [
            { "$match": { "status": { "$in": ["placed", "paid", "shipped"] } } },
            { "$lookup": { "from": "customers", "localField": "customer_id", "foreignField": "_id", "as": "customer" } },
            { "$project": { "status": 1, "placed_at": 1, "total": 1, "customer": { "$first": "$customer.name" } } },
        ] },
    ] {
        let shown = command.to_string();
        db.run_command(command).await.with_context(|| shown)?;
    }
    Ok(())
}

async fn dump(socket: &Path, into: &Path) -> Result<()> {
    let part = into.with_extension("part");
    let file = File::create(&part).with_context(|| format!("create {}", part.display()))?;
    let mut client = wire::Client::connect(socket).await?;
    archive::dump(&mut client, file, Compression::Gzip).await?;
    rename(&part, into).with_context(|| format!("put {} in its place", into.display()))
}
