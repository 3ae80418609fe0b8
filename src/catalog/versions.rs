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

    /// Every version, each branch's oldest first.
    pub fn all_versions(&self) -> Result<Vec<VersionRow>, CatalogError> {
        let sql = format!("SELECT {} FROM versions ORDER BY created_ms, id", VersionRow::COLUMNS);
        rows::select(&self.lock(), &sql, &[], VersionRow::read)
            .map_err(CatalogError::failed("list versions"))
    }

    /// Takes versions out that are gone from the store. One that is not there is fine; one that a
    /// branch, a project or a seed names stays.
    pub fn forget_versions(&self, versions: &[VersionId]) -> Result<(), CatalogError> {
        let mut connection = self.lock();
        let failed = CatalogError::failed("forget versions");
        let transaction = connection.transaction().map_err(&failed)?;
        let sql = "DELETE FROM versions WHERE id = ?1 \
            AND NOT EXISTS (SELECT 1 FROM branches WHERE head = ?1 OR origin_version = ?1) \
            AND NOT EXISTS (SELECT 1 FROM projects WHERE base = ?1) \
            AND NOT EXISTS (SELECT 1 FROM seeds WHERE version = ?1)";
        for id in versions {
            transaction.execute(sql, [id.to_string()]).map_err(&failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Notes which versions are kept for good, and that no other is.
    pub fn set_pins(&self, pins: &[VersionId]) -> Result<(), CatalogError> {
        let mut connection = self.lock();
        let failed = CatalogError::failed("note the pins");
        let transaction = connection.transaction().map_err(&failed)?;
        transaction.execute("UPDATE versions SET pinned = 0", []).map_err(&failed)?;
        for id in pins {
            let sql = "UPDATE versions SET pinned = 1 WHERE id = ?";
            transaction.execute(sql, [id.to_string()]).map_err(&failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// The versions that branches start from.
    pub fn seeds(&self) -> Result<Vec<VersionId>, CatalogError> {
        let sql = "SELECT v.* FROM seeds JOIN versions v ON v.id = seeds.version";
        let rows = rows::select(&self.lock(), sql, &[], VersionRow::read);
        let rows = rows.map_err(CatalogError::failed("list the seeds"))?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// The version that was made of what `key` names, for example an archive's digest.
    pub fn seed(&self, key: &str) -> Result<Option<VersionId>, CatalogError> {
        let sql = "SELECT v.* FROM seeds JOIN versions v ON v.id = seeds.version WHERE key = ?";
        let found = self.lock().query_row(sql, [key], VersionRow::read).optional();
        Ok(found.map_err(CatalogError::failed("find a seed"))?.map(|version| version.id))
    }

    /// What a version was made of, by the keys of [`Self::set_seed`].
    pub fn seed_keys(&self, version: VersionId) -> Result<Vec<String>, CatalogError> {
        let sql = "SELECT key FROM seeds WHERE version = ? ORDER BY key";
        let version = version.to_string();
        rows::select(&self.lock(), sql, &[&version], |row| row.get(0))
            .map_err(CatalogError::failed("find the keys of a seed"))
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
    fn only_what_nothing_names_is_forgotten() {
        let bench = Bench::new();
        let project = bench.project("shop");
        let mut branch = bench.branch(&project, "dev");
        let [origin, seed, gone, kept] = [(); 4].map(|()| bench.version(Some(branch.id)).id);
        let catalog = &bench.catalog;
        branch.origin_version = Some(origin);
        catalog.update_branch(&branch).unwrap();
        catalog.set_seed("archive:1", seed).unwrap();
        assert_eq!(catalog.seeds().unwrap(), [seed]);
        catalog.set_pins(&[kept, VersionId::generate(bench.tick())]).unwrap();

        let asked = [origin, seed, gone, branch.head, project.base.unwrap()];
        for _ in 0..2 {
            catalog.forget_versions(&asked).unwrap();
            let mut left: Vec<_> =
                catalog.all_versions().unwrap().iter().map(|row| (row.id, row.pinned)).collect();
            left.sort_unstable();
            let mut expected: Vec<_> = asked.map(|id| (id, false)).to_vec();
            expected.retain(|(id, _)| *id != gone);
            expected.push((kept, true));
            expected.sort_unstable();
            assert_eq!(left, expected);
        }
        catalog.set_pins(&[]).unwrap();
        assert!(catalog.all_versions().unwrap().iter().all(|row| !row.pinned));
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
