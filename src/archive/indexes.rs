//! The indexes to build once all documents are in, as the prelude and then the oplog have them.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

use super::error::ArchiveError;
use super::metadata::buildable;
use super::prelude::{Entry, Namespace};
use crate::wire::Client;

/// Indexes wait for the end: a dump reads while others write, so that only after its oplog does a
/// unique index have to hold; and one scan then builds all of a collection.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    collections: BTreeMap<Namespace, Collection>,
}

#[derive(Debug, Default)]
struct Collection {
    collated: bool,
    indexes: Vec<Document>,
}

impl Indexes {
    pub(super) fn add_entry(&mut self, entry: &Entry) {
        if let Some(metadata) = &entry.metadata {
            let collated = metadata.options.contains_key("collation");
            let indexes = metadata.secondary_indexes();
            self.collections.insert(entry.namespace.clone(), Collection { collated, indexes });
        }
    }

    /// A collection that the oplog creates.
    pub(super) fn create(&mut self, namespace: &Namespace, create: &Document) {
        let collated = create.contains_key("collation");
        self.collections.entry(namespace.clone()).or_default().collated = collated;
    }

    pub(super) fn add(&mut self, namespace: &Namespace, index: &Document) {
        let collection = self.collections.entry(namespace.clone()).or_default();
        if let Some(index) = buildable(index, collection.collated) {
            collection.indexes.retain(|other| other.get("name") != index.get("name"));
            collection.indexes.push(index);
        }
    }

    /// Drops the index that `which` gives by its name or its keys; `*` is all.
    pub(super) fn remove(&mut self, namespace: &Namespace, which: &Bson) {
        if let Some(collection) = self.collections.get_mut(namespace) {
            collection.indexes.retain(|index| !is_index(index, which));
        }
    }

    /// Changes options of the index that `change` gives by its name or its keys.
    pub(super) fn modify(&mut self, namespace: &Namespace, change: &Document) {
        let Some(which) = change.get("name").or_else(|| change.get("keyPattern")) else { return };
        let Some(collection) = self.collections.get_mut(namespace) else { return };
        for index in collection.indexes.iter_mut().filter(|index| is_index(index, which)) {
            for (option, value) in change {
                if !["name", "keyPattern"].contains(&option.as_str()) {
                    index.insert(option, value.clone());
                }
            }
        }
    }

    pub(super) fn drop_collection(&mut self, namespace: &Namespace) {
        self.collections.remove(namespace);
    }

    pub(super) fn drop_database(&mut self, db: &str) {
        self.collections.retain(|namespace, _| namespace.db != db);
    }

    pub(super) fn rename(&mut self, from: &Namespace, to: &Namespace) {
        if let Some(collection) = self.collections.remove(from) {
            self.collections.insert(to.clone(), collection);
        }
    }

    pub(super) async fn build(&self, client: &mut Client) -> Result<(), ArchiveError> {
        for (namespace, Collection { indexes, .. }) in &self.collections {
            if indexes.is_empty() {
                continue;
            }
            let command = doc! {
                "createIndexes": &namespace.collection,
                "indexes": indexes.clone(),
                // Options of other server versions are left out rather than refused.
                "ignoreUnknownIndexOptions": true,
            };
            let built = client.command(&namespace.db, command).await;
            built.map_err(ArchiveError::command("build the indexes of", namespace))?;
        }
        Ok(())
    }
}

fn is_index(index: &Document, which: &Bson) -> bool {
    match which {
        Bson::String(name) => name == "*" || index.get_str("name").is_ok_and(|own| own == name),
        Bson::Document(keys) => index.get_document("key").is_ok_and(|own| own == keys),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Metadata;
    use super::*;

    fn index(name: &str) -> Document {
        doc! { "v": 2, "key": { name: 1 }, "name": name }
    }

    fn names(indexes: &Indexes, namespace: &Namespace) -> Vec<String> {
        let name = |index: &Document| index.get_str("name").unwrap().to_owned();
        let of = |collection: &Collection| collection.indexes.iter().map(name).collect();
        indexes.collections.get(namespace).map(of).unwrap_or_default()
    }

    #[test]
    fn the_oplog_changes_what_the_prelude_said() {
        let (a, b) = (Namespace::new("d", "a"), Namespace::new("d", "b"));
        let mut indexes = Indexes::default();
        let metadata =
            Metadata { indexes: ["_id_", "x", "y"].map(index).into(), ..Metadata::default() };
        indexes.add_entry(&Entry::new(a.clone(), metadata));
        assert_eq!(names(&indexes, &a), ["x", "y"]);
        indexes.add(&a, &index("z"));
        indexes.add(&a, &index("z"));
        indexes.remove(&a, &Bson::from("x"));
        indexes.remove(&a, &Bson::from(doc! { "y": 1 }));
        assert_eq!(names(&indexes, &a), ["z"]);
        indexes.modify(&a, &doc! { "name": "z", "hidden": true });
        assert_eq!(
            indexes.collections[&a].indexes,
            [doc! { "key": { "z": 1 }, "name": "z", "hidden": true }]
        );
        indexes.rename(&a, &b);
        assert_eq!((names(&indexes, &a), names(&indexes, &b)), (vec![], vec!["z".to_owned()]));
        indexes.remove(&b, &Bson::from("*"));
        assert_eq!(names(&indexes, &b), [""; 0]);
        indexes.create(&a, &doc! { "create": "a", "collation": { "locale": "fr" } });
        indexes.add(&a, &index("x"));
        assert!(indexes.collections[&a].indexes[0].contains_key("collation"));
        indexes.drop_collection(&a);
        indexes.drop_database("d");
        assert!(indexes.collections.is_empty());
    }
}
