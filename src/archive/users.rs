//! Users and roles: they cannot be inserted, only merged from collections of another name.

use std::collections::BTreeSet;

use bson::{Bson, RawDocumentBuf, doc};

use super::error::ArchiveError;
use super::plan::Accounts;
use super::prelude::Namespace;
use crate::wire::{Client, InsertOptions, WireError};

/// The forms in which this server takes users: 5 has SCRAM only; 3, of servers before 4.0, may.
const VERSIONS: [i64; 2] = [3, 5];

const NAMESPACE_NOT_FOUND: i32 = 26;

/// Users and roles on their way in.
#[derive(Debug, Default)]
pub(super) struct Merge {
    /// The kinds that are in their temporary collections.
    filled: BTreeSet<Accounts>,
    /// The databases whose accounts are wanted; the empty name is all.
    dbs: BTreeSet<String>,
}

impl Merge {
    /// Puts accounts of `db` into their temporary collection.
    pub(super) async fn add(
        &mut self,
        client: &mut Client,
        accounts: Accounts,
        db: &str,
        documents: &[RawDocumentBuf],
    ) -> Result<(), ArchiveError> {
        let temporary = temporary(accounts);
        if self.filled.insert(accounts) {
            // One that an interrupted restore left behind.
            drop_collection(client, temporary).await?;
        }
        self.dbs.insert(db.to_owned());
        let inserted = client.insert("admin", temporary, documents, InsertOptions::default()).await;
        inserted.map_err(ArchiveError::command("insert into", &admin(temporary)))
    }

    /// Merges what was put in, and leaves no temporary collection behind.
    pub(super) async fn finish(self, client: &mut Client) -> Result<(), ArchiveError> {
        let mut result = Ok(());
        for db in &self.dbs {
            result = result.and(self.merge(client, db).await);
        }
        result.and(self.abandon(client).await)
    }

    /// Leaves no temporary collection behind, and merges nothing.
    pub(super) async fn abandon(self, client: &mut Client) -> Result<(), ArchiveError> {
        let mut result = Ok(());
        for accounts in &self.filled {
            result = result.and(drop_collection(client, temporary(*accounts)).await);
        }
        result
    }

    async fn merge(&self, client: &mut Client, db: &str) -> Result<(), ArchiveError> {
        let mut command = doc! { "_mergeAuthzCollections": 1, "db": db, "drop": false };
        for accounts in &self.filled {
            let argument = match accounts {
                Accounts::Users => "tempUsersCollection",
                Accounts::Roles => "tempRolesCollection",
            };
            command.insert(argument, admin(temporary(*accounts)).to_string());
        }
        command.insert("writeConcern", doc! { "w": "majority" });
        let merged = client.command("admin", command).await;
        merged
            .map(drop)
            .map_err(ArchiveError::command("merge users and roles into", &admin("system.users")))
    }
}

/// Refuses users and roles in a form that this server does not take.
pub(super) fn check_version(
    namespace: &Namespace,
    documents: &[RawDocumentBuf],
) -> Result<(), ArchiveError> {
    for document in documents {
        let is_version = document.get_str("_id").is_ok_and(|id| id == "authSchema");
        let version = document.get("currentVersion").ok().flatten();
        let version = version.and_then(|version| match Bson::try_from(version) {
            Ok(Bson::Int32(version)) => Some(i64::from(version)),
            Ok(Bson::Int64(version)) => Some(version),
            #[expect(clippy::cast_possible_truncation, reason = "versions are small")]
            Ok(Bson::Double(version)) => Some(version as i64),
            _ => None,
        });
        if is_version && !version.is_some_and(|version| VERSIONS.contains(&version)) {
            let reason =
                format!("users and roles of version {version:?} are not known, only 3 and 5");
            return Err(ArchiveError::Unsupported { namespace: namespace.clone(), reason });
        }
    }
    Ok(())
}

async fn drop_collection(client: &mut Client, collection: &str) -> Result<(), ArchiveError> {
    match client.command("admin", doc! { "drop": collection }).await {
        Ok(_) | Err(WireError::Command { code: NAMESPACE_NOT_FOUND, .. }) => Ok(()),
        Err(source) => Err(ArchiveError::command("drop", &admin(collection))(source)),
    }
}

/// The names that mongorestore uses.
fn temporary(accounts: Accounts) -> &'static str {
    match accounts {
        Accounts::Users => "tempusers",
        Accounts::Roles => "temproles",
    }
}

fn admin(collection: &str) -> Namespace {
    Namespace::new("admin", collection)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn users_of_an_unknown_form_are_refused() {
        let namespace = Namespace::new("admin", "system.version");
        for (documents, good) in [
            (vec![], true),
            (vec![rawdoc! { "_id": "featureCompatibilityVersion", "version": "6.0" }], true),
            (vec![rawdoc! { "_id": "authSchema", "currentVersion": 5 }], true),
            (vec![rawdoc! { "_id": "authSchema", "currentVersion": 3.0 }], true),
            (vec![rawdoc! { "_id": "authSchema", "currentVersion": 1_i64 }], false),
            (vec![rawdoc! { "_id": "authSchema" }], false),
        ] {
            assert_eq!(check_version(&namespace, &documents).is_ok(), good, "{documents:?}");
        }
    }
}
