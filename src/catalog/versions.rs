//! Versions in the catalog, the seeds that new branches start from, and facts of the server.

use rusqlite::{Connection, OptionalExtension, params};

use super::Catalog;
use super::error::CatalogError;
use super::rows::{self, VersionRow, text};
use crate::base::ids::{BranchId, VersionId};

impl Catalog {
    /// Adds a version; one that is there already stays as it is.
    pub fn insert_version(&self, version: &VersionRow) -> Result<(), CatalogError> {
        insert(&self.lock(), version)
    }

    /// The version with this id.
    pub fn version(&self, id: VersionId) -> Result<Option<VersionRow>, CatalogError> {
        let sql = format!("SELECT {} FROM versions WHERE id = ?", VersionRow::COLUMNS);
        self.lock()
            .query_row(&sql, [id.to_string()], VersionRow::read)
            .optional()
            .map_err(CatalogError::failed("find a version"))
    }

    /// A branch's own versions, the oldest first.
    pub fn versions_of(&self, branch: BranchId) -> Result<Vec<VersionRow>, CatalogError> {
        let sql = format!(
            "SELECT {} FROM versions WHERE branch = ? ORDER BY created_ms, id",
            VersionRow::COLUMNS
        );
        rows::select(&self.lock(), &sql, &[&branch.to_string()], VersionRow::read)
            .map_err(CatalogError::failed("list versions"))
    }

    /// Notes that a version is kept for good. One that is not there is fine.
    pub fn pin_version(&self, id: VersionId) -> Result<(), CatalogError> {
        self.mark("UPDATE versions SET pinned = 1 WHERE id = ?", id)
    }

    /// Notes that it is not.
    pub fn unpin_version(&self, id: VersionId) -> Result<(), CatalogError> {
        self.mark("UPDATE versions SET pinned = 0 WHERE id = ?", id)
    }

    fn mark(&self, sql: &str, id: VersionId) -> Result<(), CatalogError> {
        let marked = self.lock().execute(sql, [id.to_string()]);
        marked.map(drop).map_err(CatalogError::failed("mark a version"))
    }

    /// The version that was made of what `key` names, for example an archive's digest.
    pub fn seed(&self, key: &str) -> Result<Option<VersionId>, CatalogError> {
        let sql = "SELECT v.* FROM seeds JOIN versions v ON v.id = seeds.version WHERE key = ?";
        let found = self.lock().query_row(sql, [key], VersionRow::read).optional();
        Ok(found.map_err(CatalogError::failed("find a seed"))?.map(|version| version.id))
    }

    /// Remembers which version was made of what `key` names, in place of what was remembered.
    pub fn set_seed(&self, key: &str, version: VersionId) -> Result<(), CatalogError> {
        let sql = "INSERT INTO seeds (key, version) VALUES (?, ?) \
            ON CONFLICT (key) DO UPDATE SET version = excluded.version";
        self.lock()
            .execute(sql, params![key, version.to_string()])
            .map(drop)
            .map_err(CatalogError::failed("set a seed"))
    }

    /// What the server noted under `key`.
    pub fn fact(&self, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        self.lock()
            .query_row("SELECT value FROM facts WHERE key = ?", [key], |row| row.get(0))
            .optional()
            .map_err(CatalogError::failed("find a fact"))
    }

    /// Notes `value` under `key`, in place of what was noted.
    pub fn set_fact(&self, key: &str, value: &[u8]) -> Result<(), CatalogError> {
        let sql = "INSERT INTO facts (key, value) VALUES (?, ?) \
            ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.lock()
            .execute(sql, params![key, value])
            .map(drop)
            .map_err(CatalogError::failed("set a fact"))
    }
}

/// Adds a version on an open transaction or alone.
pub(super) fn insert(connection: &Connection, version: &VersionRow) -> Result<(), CatalogError> {
    let sql = format!(
        "INSERT INTO versions ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO NOTHING",
        VersionRow::COLUMNS
    );
    connection
        .execute(
            &sql,
            params![
                version.id.to_string(),
                text(version.branch),
                text(version.parent),
                version.created.unix_ms(),
                version.cause,
                version.label,
                version.total_bytes,
                version.new_bytes,
                version.stored_bytes,
                version.mongod_version,
                version.fcv,
                version.pinned,
            ],
        )
        .map(drop)
        .map_err(CatalogError::failed("insert a version"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::Bench;

    #[test]
    fn versions_are_read_back_and_listed_by_time() {
        let bench = Bench::new();
        let branch = BranchId::generate(bench.tick());
        let first = bench.version(Some(branch));
        bench.version(None);
        bench.version(Some(BranchId::generate(bench.tick())));
        let second = VersionRow {
            parent: Some(first.id),
            label: Some("before the migration".into()),
            ..bench.version_row(Some(branch))
        };
        let catalog = &bench.catalog;
        catalog.insert_version(&second).unwrap();
        assert_eq!(catalog.version(second.id).unwrap(), Some(second.clone()));
        assert_eq!(catalog.version(VersionId::generate(bench.tick())).unwrap(), None);
        assert_eq!(catalog.versions_of(branch).unwrap(), [first.clone(), second.clone()]);
        for _ in 0..2 {
            catalog.pin_version(second.id).unwrap();
            let pinned = VersionRow { pinned: true, ..second.clone() };
            assert_eq!(catalog.versions_of(branch).unwrap(), [first.clone(), pinned]);
        }
        catalog.unpin_version(second.id).unwrap();
        assert_eq!(catalog.version(second.id).unwrap(), Some(second));

        let changed = VersionRow { cause: "other".into(), ..first.clone() };
        catalog.insert_version(&changed).unwrap();
        assert_eq!(catalog.version(first.id).unwrap(), Some(first), "a version never changes");
    }

    #[test]
    fn seeds_name_versions_that_exist() {
        let bench = Bench::new();
        let catalog = &bench.catalog;
        assert_eq!(catalog.seed("archive:1").unwrap(), None);
        let missing = VersionId::generate(bench.tick());
        assert!(catalog.set_seed("archive:1", missing).is_err());
        for _ in 0..2 {
            let version = bench.version(None).id;
            catalog.set_seed("archive:1", version).unwrap();
            assert_eq!(catalog.seed("archive:1").unwrap(), Some(version));
        }
        assert_eq!(catalog.seed("archive:2").unwrap(), None);
    }

    #[test]
    fn facts_are_bytes_under_a_key() {
        let mut bench = Bench::new();
        assert_eq!(bench.catalog.fact("hello").unwrap(), None);
        for value in [&b"\x00\xff"[..], b"", b"later"] {
            bench.catalog.set_fact("hello", value).unwrap();
            assert_eq!(bench.catalog.fact("hello").unwrap().as_deref(), Some(value));
        }
        bench.restart();
        assert_eq!(bench.catalog.fact("hello").unwrap().as_deref(), Some(&b"later"[..]));
    }
}
