//! The schema and how an older one becomes it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::error::CatalogError;

/// `Argn`: tells a catalog from other programs' databases (PRAGMA application_id).
const APPLICATION_ID: i64 = 0x4172_676e;

/// Text N brings a catalog from schema version N to N + 1. Texts that were released never change.
///
/// Ids are text (26 characters), times milliseconds since 1970, sizes bytes. What a version came
/// from is not a foreign key: a version outlives the branch and the parent it had.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE versions (
        id             TEXT PRIMARY KEY,
        branch         TEXT,
        parent         TEXT,
        created_ms     INTEGER NOT NULL,
        cause          TEXT NOT NULL,
        label          TEXT,
        total_bytes    INTEGER NOT NULL,
        new_bytes      INTEGER NOT NULL,
        stored_bytes   INTEGER NOT NULL,
        mongod_version TEXT NOT NULL,
        fcv            TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX versions_of_branch ON versions (branch, created_ms);

    CREATE TABLE projects (
        id         TEXT PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        base       TEXT REFERENCES versions (id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE branches (
        id              TEXT PRIMARY KEY,
        project         TEXT NOT NULL REFERENCES projects (id),
        name            TEXT NOT NULL,
        head            TEXT NOT NULL REFERENCES versions (id),
        epoch           INTEGER NOT NULL,
        idle_timeout_ms INTEGER,  -- NULL: the server's default; 0: never
        created_ms      INTEGER NOT NULL,
        deleted_ms      INTEGER,
        origin_branch   TEXT,
        origin_version  TEXT REFERENCES versions (id),
        local_base      TEXT,     -- NULL: no working directory with writes of its own
        local_saving    TEXT,
        error           TEXT,
        CHECK (local_saving IS NULL OR local_base IS NOT NULL)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX live_branch_names ON branches (project, name) WHERE deleted_ms IS NULL;

    CREATE TABLE seeds (
        key     TEXT PRIMARY KEY,
        version TEXT NOT NULL REFERENCES versions (id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE facts (
        key   TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    -- A branch's own ways in: a port, 0 being none, and whether there is a Unix socket.
    ALTER TABLE branches ADD COLUMN port INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE branches ADD COLUMN socket INTEGER NOT NULL DEFAULT 0;
",
    "
    -- Kept for good; the store has the same in pins/.
    ALTER TABLE versions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
",
    "
    -- How long versions and deleted branches are kept; NULL is all, for ever. Projects that are
    -- there already get what new ones get: 100 versions, 30 days, 7 days.
    ALTER TABLE projects ADD COLUMN keep_last INTEGER DEFAULT 100;
    ALTER TABLE projects ADD COLUMN keep_for_ms INTEGER DEFAULT 2592000000;
    ALTER TABLE projects ADD COLUMN keep_deleted_ms INTEGER DEFAULT 604800000;
",
    "
    -- How often a version is made of a running branch; NULL: the server's default; 0: never.
    ALTER TABLE branches ADD COLUMN snapshot_every_ms INTEGER;
",
    "
    -- Up to which age versions made by the clock all stay, one a minute, one an hour: 1 hour, 1 day,
    -- 30 days for projects that are there already.
    ALTER TABLE projects ADD COLUMN periodic_all_ms INTEGER NOT NULL DEFAULT 3600000;
    ALTER TABLE projects ADD COLUMN periodic_minutes_ms INTEGER NOT NULL DEFAULT 86400000;
    ALTER TABLE projects ADD COLUMN periodic_hours_ms INTEGER NOT NULL DEFAULT 2592000000;
",
    "
    -- Whether the branch was made here and its first head may not be in the store yet.
    ALTER TABLE branches ADD COLUMN head_pending INTEGER NOT NULL DEFAULT 0;
",
    "
    -- How long an idle branch's mongod stands still; NULL: the server's default; 0: not at all.
    ALTER TABLE branches ADD COLUMN keep_warm_ms INTEGER;
",
    "
    -- The image that a project's new branches begin with; NULL: the server's.
    ALTER TABLE projects ADD COLUMN image TEXT;
",
];

/// Refuses a database that is not a catalog before anything in it is changed.
pub(super) fn check_kind(connection: &Connection, path: &Path) -> Result<(), CatalogError> {
    let failed = |source| CatalogError::opening(path, source);
    let id: i64 =
        connection.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) {
        Ok(())
    } else {
        Err(CatalogError::NotACatalog { path: path.to_owned() })
    }
}

/// Brings the schema up to date, all steps in one transaction.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), CatalogError> {
    apply(connection, path, MIGRATIONS)
}

fn apply(connection: &mut Connection, path: &Path, texts: &[&str]) -> Result<(), CatalogError> {
    let failed = |source| CatalogError::opening(path, source);
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(texts.len()).expect("the migrations stand in this file");
    if found > known {
        return Err(CatalogError::TooNew { path: path.to_owned(), found, known });
    }
    // Even where nothing is to be done: it shows now, not later, that the file cannot be written.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    for text in texts.iter().skip(found as usize) {
        transaction.execute_batch(text).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn user_version(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_empty_file_gets_every_table_and_opening_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        for _ in 0..2 {
            let catalog = Catalog::open(&path).unwrap();
            let connection = catalog.lock();
            assert_eq!(user_version(&connection) as usize, MIGRATIONS.len());
            let pragma = |name| -> String {
                let text = |row: &rusqlite::Row<'_>| {
                    row.get::<_, rusqlite::types::Value>(0).map(|value| format!("{value:?}"))
                };
                connection.pragma_query_value(None, name, text).unwrap()
            };
            assert_eq!(pragma("journal_mode"), r#"Text("wal")"#);
            assert_eq!(pragma("synchronous"), "Integer(2)", "2 is FULL");
            assert_eq!(pragma("foreign_keys"), "Integer(1)");
        }
    }

    #[test]
    fn only_the_missing_steps_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let mut connection = Connection::open(&path).unwrap();
        let texts = ["CREATE TABLE a (x)", "CREATE TABLE b (x)", "INSERT INTO b VALUES (1)"];
        for known in [1, 2, 3, 3] {
            apply(&mut connection, &path, &texts[..known]).unwrap();
            assert_eq!(user_version(&connection) as usize, known);
        }
        let rows: i64 = connection.query_row("SELECT count(*) FROM b", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_step_that_fails_leaves_the_catalog_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let mut connection = Connection::open(&path).unwrap();
        let texts = ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"];
        apply(&mut connection, &path, &texts[..1]).unwrap();
        assert!(matches!(apply(&mut connection, &path, &texts), Err(CatalogError::Open { .. })));
        assert_eq!(user_version(&connection), 1);
        assert!(connection.execute("SELECT * FROM b", []).is_err());
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        drop(Catalog::open(&path).unwrap());
        let newer = u32::try_from(MIGRATIONS.len()).unwrap() + 1;
        Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
        let error = Catalog::open(&path).unwrap_err();
        assert!(
            matches!(error, CatalogError::TooNew { found, known, .. }
                if found == newer && known + 1 == newer),
            "{error:?}"
        );
        assert_eq!(user_version(&Connection::open(&path).unwrap()), newer);
    }

    #[test]
    fn other_files_are_refused_by_name_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(
            &text,
            "not a database, and longer than SQLite's header of 100 bytes. ".repeat(9),
        )
        .unwrap();
        let foreign = dir.path().join("foreign");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE notes (x)").unwrap();
        for path in [text, foreign] {
            let before = std::fs::read(&path).unwrap();
            let error = Catalog::open(&path).unwrap_err();
            assert!(matches!(error, CatalogError::NotACatalog { .. }), "{error:?}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn a_catalog_that_is_open_already_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let first = Catalog::open(&path).unwrap();
        let error = Catalog::open(&path).unwrap_err();
        assert!(matches!(error, CatalogError::InUse { .. }), "{error:?}");
        drop(first);
        Catalog::open(&path).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("missing/catalog.sqlite")] {
            let error = Catalog::open(&path).unwrap_err();
            assert!(matches!(error, CatalogError::NotWritable { .. }), "{error:?}");
        }
    }
}
