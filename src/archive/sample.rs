//! Tests that the sample data is what its description says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bson::{Document, doc, rawdoc};

use super::live::Server;
use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Documents (none for a view) and indexes, by collection.
type Table = BTreeMap<String, (Option<u64>, Vec<String>)>;

/// The table of `SAMPLE.md`.
fn described() -> Table {
    let text = std::fs::read_to_string(data("SAMPLE.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, collection, documents, indexes, ..] = cells[..] else { return None };
        let collection = collection.strip_prefix('`')?.strip_suffix('`')?;
        let indexes = indexes.split_whitespace().map(|name| name.trim_matches('`').to_owned());
        Some((collection.to_owned(), (documents.parse().ok(), indexes.collect())))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn the_sample_archive_holds_what_its_description_says() {
    let path = data("base_dump.archive");
    assert!(path.metadata().unwrap().len() < 500_000);
    let summary = check(&path).unwrap();
    let reader = Reader::open(std::fs::File::open(&path).unwrap()).unwrap();
    let mut held = Table::new();
    for (entry, contents) in reader.prelude().entries.iter().zip(&summary.contents) {
        assert_eq!(entry.namespace, contents.namespace);
        if entry.namespace.db == "admin" {
            assert_eq!(entry.namespace.collection, "system.version");
            continue;
        }
        assert_eq!(entry.namespace.db, "shop");
        let documents = (!entry.is_view()).then_some(contents.documents);
        let indexes = &entry.metadata.as_ref().unwrap().indexes;
        let indexes = indexes.iter().map(|index| index.get_str("name").unwrap().to_owned());
        held.insert(entry.namespace.collection.clone(), (documents, indexes.collect()));
    }
    assert_eq!(held.len(), 7);
    assert_eq!(held, described());
}

#[tokio::test]
async fn what_the_description_tries_works() {
    let mut server = Server::start().await;
    let loaded = load(&data("base_dump.archive"), &mut server.client).await.unwrap();
    assert_eq!((loaded.collections, loaded.views), (5, 2));
    let cheap: bson::Decimal128 = "60".parse().unwrap();
    let near = doc! { "$geometry": { "type": "Point", "coordinates": [4.9, 52.4] } };
    for (collection, find) in [
        ("bestsellers", doc! { "sold": { "$gt": 50 } }),
        ("open_orders", doc! { "customer": { "$type": "string" } }),
        ("products", doc! { "$text": { "$search": "kettle" }, "price": { "$lt": cheap } }),
        ("products", doc! { "attributes.origin": "Ethiopia" }),
        ("customers", doc! { "name": "zoë rossi" }),
        ("stores", doc! { "location": { "$near": near } }),
    ] {
        let filter = bson::RawDocumentBuf::try_from(&find).unwrap();
        let collation = rawdoc! { "locale": "en", "strength": 2 };
        let mut find = rawdoc! { "find": collection, "filter": filter };
        if collection == "customers" {
            find.append(bson::raw::cstr!("collation"), collation);
        }
        let found = server.all("shop", find).await;
        assert!(!found.is_empty(), "{collection}");
    }
    let months = rawdoc! { "aggregate": "orders", "cursor": {}, "pipeline": [
        { "$match": { "placed_at": { "$gte": bson::DateTime::from_millis(1_735_689_600_000) } } },
        { "$group": { "_id": { "$month": "$placed_at" }, "revenue": { "$sum": "$total" } } },
    ] };
    assert_eq!(server.all("shop", months).await.len(), 12);
    let review: Document = doc! { "product_id": 1, "customer_id": 1000, "rating": 6 };
    let refused = server.command("shop", doc! { "insert": "reviews", "documents": [review] }).await;
    let errors = refused.get_array("writeErrors").unwrap();
    assert_eq!(errors[0].as_document().unwrap().get_i32("code").unwrap(), 121);
}
