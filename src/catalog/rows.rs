//! The rows, and how they are read from and written to SQLite.

use std::num::NonZeroU16;
use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{Connection, Row, ToSql};

use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, Epoch, ProjectId, VersionId};
use crate::base::name::Name;
use crate::base::own_time::OwnTime;
use crate::base::retention::{Retention, Thinning};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRow {
    /// Its id.
    pub id: ProjectId,
    /// Its name; no other project has it.
    pub name: Name,
    /// When it was created.
    pub created: Timestamp,
    /// What its branches start from.
    pub base: Option<VersionId>,
    /// How long its versions and deleted branches are kept.
    pub retention: Retention,
    /// The image that its new branches begin with; none is the server's.
    pub image: Option<String>,
}

/// A branch, live or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRow {
    /// Its id.
    pub id: BranchId,
    /// Its project.
    pub project: ProjectId,
    /// Its name; no other live branch of the project has it.
    pub name: Name,
    /// Its newest version.
    pub head: VersionId,
    /// Its life.
    pub epoch: Epoch,
    /// When it is suspended.
    pub idle_timeout: OwnTime,
    /// How often a version is made of it while it runs.
    pub snapshot_every: OwnTime,
    /// How long its idle mongod stands still before it is suspended.
    pub keep_warm: OwnTime,
    /// When it was created.
    pub created: Timestamp,
    /// When it was deleted.
    pub deleted: Option<Timestamp>,
    /// The branch it was made from.
    pub origin_branch: Option<BranchId>,
    /// The version it was made from.
    pub origin_version: Option<VersionId>,
    /// Writes that are on this server's disk alone.
    pub local: LocalData,
    /// The last failure that is not yet repaired, for people to read.
    pub error: Option<String>,
    /// A port of its own.
    pub port: Option<NonZeroU16>,
    /// Whether it has a Unix socket of its own.
    pub socket: bool,
    /// Whether it was made here, and its first head may not be in the store yet.
    pub head_pending: bool,
}

/// Whether a working directory holds writes that no version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalData {
    /// No: the head has everything.
    None,
    /// It may.
    Present {
        /// The version that the working directory was restored from.
        base: VersionId,
        /// The version that is being made of it.
        saving: Option<VersionId>,
    },
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRow {
    /// Its id.
    pub id: VersionId,
    /// The branch it was made of, which may be purged; `None` for bases and the like.
    pub branch: Option<BranchId>,
    /// The version it was made on top of.
    pub parent: Option<VersionId>,
    /// When it was made.
    pub created: Timestamp,
    /// What made it.
    pub cause: String,
    /// What somebody called it.
    pub label: Option<String>,
    /// Sum of its file sizes, bytes.
    pub total_bytes: u64,
    /// Raw bytes of the blocks that it stored new.
    pub new_bytes: u64,
    /// The same after compression.
    pub stored_bytes: u64,
    /// Version of the mongod that wrote it.
    pub mongod_version: String,
    /// Its featureCompatibilityVersion.
    pub fcv: String,
    /// Whether it is kept for good.
    pub pinned: bool,
}

impl ProjectRow {
    pub(super) const COLUMNS: &str = "id, name, created_ms, base, keep_last, keep_for_ms, \
        keep_deleted_ms, periodic_all_ms, periodic_minutes_ms, periodic_hours_ms, image";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            name: parsed(row, "name")?,
            created: Timestamp::from_unix_ms(row.get("created_ms")?),
            base: parsed_or_null(row, "base")?,
            retention: Retention {
                periodic: Thinning::from_ms([
                    row.get("periodic_all_ms")?,
                    row.get("periodic_minutes_ms")?,
                    row.get("periodic_hours_ms")?,
                ]),
                ..Retention::from_ms(
                    row.get("keep_last")?,
                    row.get("keep_for_ms")?,
                    row.get("keep_deleted_ms")?,
                )
            },
            image: row.get("image")?,
        })
    }
}

impl BranchRow {
    pub(super) const COLUMNS: &str = "id, project, name, head, epoch, idle_timeout_ms, created_ms, \
        deleted_ms, origin_branch, origin_version, local_base, local_saving, error, port, socket, \
        snapshot_every_ms, head_pending, keep_warm_ms";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let saving = parsed_or_null(row, "local_saving")?;
        Ok(Self {
            id: parsed(row, "id")?,
            project: parsed(row, "project")?,
            name: parsed(row, "name")?,
            head: parsed(row, "head")?,
            epoch: Epoch(row.get("epoch")?),
            idle_timeout: OwnTime::from_ms(row.get("idle_timeout_ms")?),
            snapshot_every: OwnTime::from_ms(row.get("snapshot_every_ms")?),
            keep_warm: OwnTime::from_ms(row.get("keep_warm_ms")?),
            created: Timestamp::from_unix_ms(row.get("created_ms")?),
            deleted: row.get::<_, Option<u64>>("deleted_ms")?.map(Timestamp::from_unix_ms),
            origin_branch: parsed_or_null(row, "origin_branch")?,
            origin_version: parsed_or_null(row, "origin_version")?,
            local: match parsed_or_null(row, "local_base")? {
                Some(base) => LocalData::Present { base, saving },
                None => LocalData::None,
            },
            error: row.get("error")?,
            port: NonZeroU16::new(row.get("port")?),
            socket: row.get("socket")?,
            head_pending: row.get("head_pending")?,
        })
    }
}

impl VersionRow {
    pub(super) const COLUMNS: &str = "id, branch, parent, created_ms, cause, label, total_bytes, \
        new_bytes, stored_bytes, mongod_version, fcv, pinned";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            branch: parsed_or_null(row, "branch")?,
            parent: parsed_or_null(row, "parent")?,
            created: Timestamp::from_unix_ms(row.get("created_ms")?),
            cause: row.get("cause")?,
            label: row.get("label")?,
            total_bytes: row.get("total_bytes")?,
            new_bytes: row.get("new_bytes")?,
            stored_bytes: row.get("stored_bytes")?,
            mongod_version: row.get("mongod_version")?,
            fcv: row.get("fcv")?,
            pinned: row.get("pinned")?,
        })
    }
}

impl LocalData {
    /// The columns `local_base` and `local_saving`.
    pub(super) fn to_columns(self) -> (Option<String>, Option<String>) {
        match self {
            Self::None => (None, None),
            Self::Present { base, saving } => (Some(base.to_string()), text(saving)),
        }
    }
}

/// Every row that a query finds.
pub(super) fn select<T>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(values, read)?.collect()
}

/// An id for a column that may be NULL.
pub(super) fn text(id: Option<impl ToString>) -> Option<String> {
    id.map(|id| id.to_string())
}

fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    parse(row, column, &row.get::<_, String>(column)?)
}

fn parsed_or_null<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, Option<String>>(column)?.map(|text| parse(row, column, &text)).transpose()
}

fn parse<T>(row: &Row<'_>, column: &str, text: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|error| {
        let index = row.as_ref().column_index(column).unwrap_or_default();
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
    })
}
