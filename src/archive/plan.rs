//! What becomes of each namespace of an archive when it is loaded. Pure.

use bson::{Document, doc};

use super::metadata::Metadata;
use super::prelude::{Entry, Namespace};

/// Collections of `config` that mongodump writes and a restore may touch.
pub(super) const CONFIG_COLLECTIONS: [&str; 7] =
    ["chunks", "collections", "databases", "settings", "shards", "tags", "version"];

/// What a namespace of the prelude stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Role {
    /// Created as `create` says, then filled.
    Collection { create: Document, fill: Namespace },
    /// Created as `create` says, after all collections.
    View { create: Document },
    /// Users or roles: of one database, or of all where `db` is empty.
    Accounts { accounts: Accounts, db: String },
    /// The version of the form that users and roles are stored in.
    AccountsVersion,
    /// What was written while the dump went on.
    Oplog,
    /// What a server keeps for itself.
    Skipped,
}

/// The two kinds of accounts that have a collection of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Accounts {
    Users,
    Roles,
}

impl Role {
    pub(super) fn of(entry: &Entry) -> Self {
        let Namespace { db, collection } = &entry.namespace;
        let accounts = |accounts, db: &str| Self::Accounts { accounts, db: db.to_owned() };
        match (db.as_str(), collection.as_str()) {
            ("", "oplog") => return Self::Oplog,
            ("admin", "system.users") => return accounts(Accounts::Users, ""),
            ("admin", "system.roles") => return accounts(Accounts::Roles, ""),
            ("admin", "system.version") | (_, "$admin.system.version") => {
                return Self::AccountsVersion;
            }
            (db, "$admin.system.users") => return accounts(Accounts::Users, db),
            (db, "$admin.system.roles") => return accounts(Accounts::Roles, db),
            _ if !is_dumped(db, collection) => return Self::Skipped,
            _ => {}
        }
        let none = Metadata::default();
        let metadata = entry.metadata.as_ref().unwrap_or(&none);
        let create = create(collection, metadata);
        if metadata.is_view() {
            return Self::View { create };
        }
        let fill = entry.buckets().unwrap_or_else(|| entry.namespace.clone());
        Self::Collection { create, fill }
    }
}

/// Whether a collection is data: not one that the server keeps for itself.
pub(super) fn is_dumped(db: &str, collection: &str) -> bool {
    match db {
        "" | "local" => false,
        "config" => CONFIG_COLLECTIONS.contains(&collection),
        _ if collection.contains('$') => false,
        _ => collection == "system.js" || !collection.starts_with("system."),
    }
}

fn create(collection: &str, metadata: &Metadata) -> Document {
    let mut create = doc! { "create": collection };
    for (option, value) in &metadata.options {
        // Old tools wrote `create` among the options. The next two are no options of a restored
        // collection: the server alone decides. A `temp` collection would vanish at a restart.
        if !["create", "autoIndexId", "recordIdsReplicated", "temp"].contains(&option.as_str()) {
            create.insert(option, value.clone());
        }
    }
    create
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_keeps_for_itself_is_left_out() {
        for (db, collection, dumped) in [
            ("shop", "orders", true),
            ("shop", "system.js", true),
            ("shop", "system.views", false),
            ("shop", "system.profile", false),
            ("shop", "system.buckets.metrics", false),
            ("shop", "a$b", false),
            ("shop", "systematic", true),
            ("local", "oplog.rs", false),
            ("config", "settings", true),
            ("config", "transactions", false),
            ("config", "image_collection", false),
            ("admin", "notes", true),
            ("admin", "system.keys", false),
            ("", "other", false),
        ] {
            assert_eq!(is_dumped(db, collection), dumped, "{db}.{collection}");
        }
    }

    #[test]
    fn each_namespace_has_its_role() {
        let role = |db: &str, collection: &str, options: Document| {
            let metadata = Metadata { options, ..Metadata::default() };
            Role::of(&Entry::new(Namespace::new(db, collection), metadata))
        };
        let none = Document::new;
        assert_eq!(role("", "oplog", none()), Role::Oplog);
        assert_eq!(
            role("admin", "system.users", none()),
            Role::Accounts { accounts: Accounts::Users, db: String::new() }
        );
        assert_eq!(
            role("shop", "$admin.system.roles", none()),
            Role::Accounts { accounts: Accounts::Roles, db: "shop".to_owned() }
        );
        assert_eq!(role("shop", "$admin.system.version", none()), Role::AccountsVersion);
        assert_eq!(role("local", "x", none()), Role::Skipped);
        assert_eq!(
            role("shop", "v", doc! { "viewOn": "x", "pipeline": [] }),
            Role::View { create: doc! { "create": "v", "viewOn": "x", "pipeline": [] } }
        );
        assert_eq!(
            role("shop", "t", doc! { "timeseries": { "timeField": "t" } }),
            Role::Collection {
                create: doc! { "create": "t", "timeseries": { "timeField": "t" } },
                fill: Namespace::new("shop", "system.buckets.t"),
            }
        );
        assert_eq!(
            role("shop", "c", doc! { "create": "old", "autoIndexId": false, "capped": true }),
            Role::Collection {
                create: doc! { "create": "c", "capped": true },
                fill: Namespace::new("shop", "c"),
            }
        );
    }
}
