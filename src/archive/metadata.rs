//! A collection's options and indexes, as the JSON text in an archive's prelude.

use bson::{Bson, Document, doc};

/// What the prelude says of one collection: canonical Extended JSON v2,
/// `{"options":{…},"indexes":[…],"uuid":"<hex>","collectionName":"…","type":"…"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// As `listCollections` gives them; a view's hold `viewOn` and `pipeline`.
    pub options: Document,
    /// As `listIndexes` gives them, the one on `_id` among them.
    pub indexes: Vec<Document>,
    /// 32 hexadecimal digits; views and time-series collections have none.
    pub uuid: Option<String>,
    /// The collection's name again.
    pub collection_name: String,
    /// "collection", "view" or "timeseries"; archives of old tools have none.
    pub kind: Option<String>,
}

impl Metadata {
    /// Reads the JSON text, relaxed or canonical, in any order of keys; the error is a reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let bson = Bson::try_from(value).map_err(|error| error.to_string())?;
        let Bson::Document(mut fields) = bson else {
            return Err("it is no JSON object".to_owned());
        };
        let options = match fields.remove("options") {
            Some(Bson::Document(options)) => options,
            None | Some(Bson::Null) => Document::new(),
            Some(_) => return Err("`options` is no object".to_owned()),
        };
        Ok(Self {
            options,
            indexes: indexes(fields.remove("indexes"))?,
            uuid: text_field(&mut fields, "uuid")?.filter(|uuid| !uuid.is_empty()),
            collection_name: text_field(&mut fields, "collectionName")?.unwrap_or_default(),
            kind: text_field(&mut fields, "type")?.filter(|kind| !kind.is_empty()),
        })
    }

    /// The JSON text as mongodump writes it: fields in its order, empty ones left out.
    pub fn to_json(&self) -> String {
        let mut fields = Document::new();
        if !self.options.is_empty() {
            fields.insert("options", self.options.clone());
        }
        fields.insert("indexes", self.indexes.clone());
        if let Some(uuid) = &self.uuid {
            fields.insert("uuid", uuid);
        }
        fields.insert("collectionName", &self.collection_name);
        if let Some(kind) = &self.kind {
            fields.insert("type", kind);
        }
        Bson::Document(fields).into_canonical_extjson().to_string()
    }

    /// True for a view: no documents of its own.
    pub fn is_view(&self) -> bool {
        self.options.contains_key("viewOn")
    }

    /// True for a time-series collection: its documents are buckets.
    pub fn is_time_series(&self) -> bool {
        self.kind.as_deref() == Some("timeseries") || self.options.contains_key("timeseries")
    }

    /// The indexes to build after the documents are in: all but the one on `_id`, which `create`
    /// makes, in the form that `createIndexes` takes on any server.
    pub fn secondary_indexes(&self) -> Vec<Document> {
        let collated = self.options.contains_key("collation");
        self.indexes.iter().filter_map(|index| buildable(index, collated)).collect()
    }
}

/// `index` as `createIndexes` takes it, in a collection that has a collation or not; none for the
/// index on `_id`.
pub(super) fn buildable(index: &Document, collated: bool) -> Option<Document> {
    // The server keeps this name for the index on `_id`, and only that index may have it.
    if index.get_str("name").is_ok_and(|name| name == "_id_") {
        return None;
    }
    let mut index = index.clone();
    // Without `v` the server builds its newest format; `ns` is from servers before 4.4.
    index.remove("v");
    index.remove("ns");
    if collated && !index.contains_key("collation") {
        // Left out, the index would take the collection's collation, which it did not have.
        index.insert("collation", doc! { "locale": "simple" });
    }
    Some(index)
}

fn indexes(field: Option<Bson>) -> Result<Vec<Document>, String> {
    let list = match field {
        Some(Bson::Array(list)) => list,
        None | Some(Bson::Null) => Vec::new(),
        Some(_) => return Err("`indexes` is no list".to_owned()),
    };
    let index = |entry| match entry {
        Bson::Document(index) if index.get_document("key").is_ok() => Ok(index),
        _ => Err("an index has no `key`".to_owned()),
    };
    list.into_iter().map(index).collect()
}

fn text_field(fields: &mut Document, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        Some(Bson::String(text)) => Ok(Some(text)),
        None | Some(Bson::Null) => Ok(None),
        Some(_) => Err(format!("`{name}` is no text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_written_back_as_it_was_read() {
        for text in [
            r#"{"indexes":[],"collectionName":"x","type":"view"}"#,
            r#"{"options":{"z":{"$numberInt":"1"},"a":{"$numberLong":"5"}},"indexes":[{"v":{"$numberInt":"2"},"key":{"b":{"$numberDouble":"1.0"},"a":"text"},"name":"n"}],"uuid":"00","collectionName":"é\"","type":"collection"}"#,
        ] {
            assert_eq!(Metadata::parse(text).unwrap().to_json(), text);
        }
    }

    #[test]
    fn texts_of_old_tools_are_read() {
        let text = r#"{"options":null,"indexes":[{"v":1,"key":{"_id":1},"name":"_id_","ns":"a.b"},
            {"v":1,"key":{"_id":"hashed"},"name":"_id_hashed","ns":"a.b"}]}"#;
        let metadata = Metadata::parse(text).unwrap();
        assert_eq!(metadata.indexes.len(), 2);
        assert_eq!(
            metadata.secondary_indexes(),
            [doc! { "key": { "_id": "hashed" }, "name": "_id_hashed" }]
        );
    }

    #[test]
    fn an_index_without_a_collation_keeps_none() {
        let text = r#"{"options":{"collation":{"locale":"fr"}},"indexes":[
            {"v":2,"key":{"a":1},"name":"a"},
            {"v":2,"key":{"b":1},"name":"b","collation":{"locale":"en"}}]}"#;
        let built = Metadata::parse(text).unwrap().secondary_indexes();
        let locale = |index: &Document| {
            index.get_document("collation").unwrap().get_str("locale").unwrap().to_owned()
        };
        assert_eq!(built.iter().map(locale).collect::<Vec<_>>(), ["simple", "en"]);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"options":[]}"#,
            r#"{"indexes":{}}"#,
            r#"{"indexes":[1]}"#,
            r#"{"indexes":[{"name":"a"}]}"#,
            r#"{"options":{"a":{"$numberInt":"x"}}}"#,
            r#"{"uuid":1}"#,
            &"[".repeat(100_000),
        ] {
            assert!(Metadata::parse(text).is_err(), "{text:.40}");
        }
    }
}
