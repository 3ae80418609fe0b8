//! Branches in the catalog.

use std::num::NonZeroU16;

use rusqlite::{Connection, ToSql, params};

use super::Catalog;
use super::error::CatalogError;
use super::rows::{self, BranchRow, VersionRow, text};
use super::versions;
use crate::base::ids::{BranchId, ProjectId};
use crate::base::name::Name;

/// Which branches are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Live ones.
    Without,
    /// Deleted ones.
    Only,
}

impl Catalog {
    /// Adds a branch, whose project and versions must be there; [`CatalogError::NameTaken`] where
    /// a live branch of the project has its name.
    pub fn insert_branch(&self, branch: &BranchRow) -> Result<(), CatalogError> {
        insert(&self.lock(), branch)
    }

    /// Writes every column of a branch; [`CatalogError::NameTaken`] where that would bring back a
    /// name that another live branch has by now.
    pub fn update_branch(&self, branch: &BranchRow) -> Result<(), CatalogError> {
        update(&self.lock(), branch)
    }

    /// Adds a version and moves a branch, both or neither.
    pub fn commit_version(
        &self,
        version: &VersionRow,
        branch: &BranchRow,
    ) -> Result<(), CatalogError> {
        let mut connection = self.lock();
        let failed = CatalogError::failed("commit a version");
        let transaction = connection.transaction().map_err(&failed)?;
        versions::insert(&transaction, version)?;
        update(&transaction, branch)?;
        transaction.commit().map_err(failed)
    }

    /// The branch with this id, live or deleted.
    pub fn branch(&self, id: BranchId) -> Result<Option<BranchRow>, CatalogError> {
        let rows = self.select("WHERE id = ?", &[&id.to_string()])?;
        Ok(rows.into_iter().next())
    }

    /// The live branch of that name.
    pub fn branch_by_name(
        &self,
        project: ProjectId,
        name: &Name,
    ) -> Result<Option<BranchRow>, CatalogError> {
        let tail = "WHERE project = ? AND name = ? AND deleted_ms IS NULL";
        let rows = self.select(tail, &[&project.to_string(), &name.as_str()])?;
        Ok(rows.into_iter().next())
    }

    /// A project's branches: live ones by name, deleted ones by the time of their deletion.
    pub fn branches(
        &self,
        project: ProjectId,
        deleted: Deleted,
    ) -> Result<Vec<BranchRow>, CatalogError> {
        let tail = match deleted {
            Deleted::Without => "WHERE project = ? AND deleted_ms IS NULL ORDER BY name",
            Deleted::Only => "WHERE project = ? AND deleted_ms IS NOT NULL ORDER BY deleted_ms, id",
        };
        self.select(tail, &[&project.to_string()])
    }

    /// Every branch of every project, deleted ones included, by id.
    pub fn all_branches(&self) -> Result<Vec<BranchRow>, CatalogError> {
        self.select("ORDER BY id", &[])
    }

    /// Takes a branch out for good; its versions' rows stay, as other branches may stand on them.
    /// A branch that is not there is fine.
    pub fn purge_branch(&self, id: BranchId) -> Result<(), CatalogError> {
        self.lock()
            .execute("DELETE FROM branches WHERE id = ?", [id.to_string()])
            .map(drop)
            .map_err(CatalogError::failed("purge a branch"))
    }

    fn select(&self, tail: &str, values: &[&dyn ToSql]) -> Result<Vec<BranchRow>, CatalogError> {
        let sql = format!("SELECT {} FROM branches {tail}", BranchRow::COLUMNS);
        rows::select(&self.lock(), &sql, values, BranchRow::read)
            .map_err(CatalogError::failed("read branches"))
    }
}

/// Adds a branch on an open transaction or alone.
pub(super) fn insert(connection: &Connection, branch: &BranchRow) -> Result<(), CatalogError> {
    let sql = format!(
        "INSERT INTO branches ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
         ?14, ?15, ?16, ?17, ?18)",
        BranchRow::COLUMNS
    );
    write(connection, &sql, branch)
        .map(drop)
        .map_err(CatalogError::failed_to_name("insert a branch", &branch.name))
}

fn update(connection: &Connection, branch: &BranchRow) -> Result<(), CatalogError> {
    let sql = "UPDATE branches SET project = ?2, name = ?3, head = ?4, epoch = ?5, \
        idle_timeout_ms = ?6, created_ms = ?7, deleted_ms = ?8, origin_branch = ?9, \
        origin_version = ?10, local_base = ?11, local_saving = ?12, error = ?13, \
        port = ?14, socket = ?15, snapshot_every_ms = ?16, head_pending = ?17, keep_warm_ms = ?18 \
        WHERE id = ?1";
    let rows = write(connection, sql, branch)
        .map_err(CatalogError::failed_to_name("update a branch", &branch.name))?;
    if rows == 0 {
        return Err(CatalogError::NoSuchBranch { branch: branch.id });
    }
    Ok(())
}

/// Runs a statement whose parameters are the columns of [`BranchRow::COLUMNS`] in order.
fn write(connection: &Connection, sql: &str, branch: &BranchRow) -> rusqlite::Result<usize> {
    let (local_base, local_saving) = branch.local.to_columns();
    connection.prepare_cached(sql)?.execute(params![
        branch.id.to_string(),
        branch.project.to_string(),
        branch.name.as_str(),
        branch.head.to_string(),
        branch.epoch.0,
        branch.idle_timeout.to_ms(),
        branch.created.unix_ms(),
        branch.deleted.map(|time| time.unix_ms()),
        text(branch.origin_branch),
        text(branch.origin_version),
        local_base,
        local_saving,
        branch.error,
        branch.port.map_or(0, NonZeroU16::get),
        branch.socket,
        branch.snapshot_every.to_ms(),
        branch.head_pending,
        branch.keep_warm.to_ms(),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::ids::{Epoch, VersionId};
    use crate::base::own_time::OwnTime;
    use crate::catalog::LocalData;
    use crate::catalog::testing::{Bench, name};

    #[test]
    fn every_column_is_read_back_as_it_was_written() {
        let bench = Bench::new();
        let shop = bench.project("shop");
        let mut row = bench.branch(&shop, "dev");
        let origin = bench.version(Some(row.id));
        let catalog = &bench.catalog;
        let saving = Some(VersionId::generate(bench.tick()));
        for (idle_timeout, local, error) in [
            (OwnTime::Default, LocalData::None, None),
            (OwnTime::Off, LocalData::Present { base: row.head, saving: None }, Some("x")),
            (
                OwnTime::Time(Duration::from_millis(1500)),
                LocalData::Present { base: row.head, saving },
                None,
            ),
        ] {
            row = BranchRow {
                name: name("renamed"),
                head: origin.id,
                epoch: Epoch(7),
                idle_timeout,
                snapshot_every: OwnTime::from_ms(idle_timeout.to_ms().map(|ms| ms * 2)),
                keep_warm: OwnTime::from_ms(idle_timeout.to_ms().map(|ms| ms * 3)),
                created: bench.tick(),
                deleted: Some(bench.tick()),
                origin_branch: Some(row.id),
                origin_version: Some(origin.id),
                local,
                error: error.map(str::to_owned),
                port: error.and(NonZeroU16::new(65_535)),
                socket: error.is_some(),
                ..row
            };
            catalog.update_branch(&row).unwrap();
            assert_eq!(catalog.branch(row.id).unwrap().as_ref(), Some(&row));
        }
    }

    #[test]
    fn live_branches_of_a_project_have_different_names() {
        let bench = Bench::new();
        let (shop, blog) = (bench.project("shop"), bench.project("blog"));
        let mut first = bench.branch(&shop, "dev");
        bench.branch(&blog, "dev");
        let catalog = &bench.catalog;
        let second = BranchRow { id: BranchId::generate(bench.tick()), ..first.clone() };
        let taken =
            |result| matches!(result, Err(CatalogError::NameTaken { name }) if name == "dev");
        assert!(taken(catalog.insert_branch(&second)));

        first.deleted = Some(bench.tick());
        catalog.update_branch(&first).unwrap();
        catalog.insert_branch(&second).unwrap();
        assert_eq!(catalog.branch_by_name(shop.id, &name("dev")).unwrap(), Some(second.clone()));

        let restored = BranchRow { deleted: None, ..first.clone() };
        assert!(taken(catalog.update_branch(&restored)));
        assert_eq!(catalog.branch(first.id).unwrap(), Some(first));
    }

    #[test]
    fn lists_tell_live_from_deleted() {
        let bench = Bench::new();
        let (shop, blog) = (bench.project("shop"), bench.project("blog"));
        let [b, a, c] = ["b", "a", "c"].map(|name| bench.branch(&shop, name));
        let other = bench.branch(&blog, "a");
        let gone = [c, b].map(|branch| {
            let gone = BranchRow { deleted: Some(bench.tick()), ..branch };
            bench.catalog.update_branch(&gone).unwrap();
            gone
        });
        let catalog = &bench.catalog;
        let live = catalog.branches(shop.id, Deleted::Without).unwrap();
        assert_eq!(live, std::slice::from_ref(&a));
        assert_eq!(catalog.branches(shop.id, Deleted::Only).unwrap(), gone);
        assert_eq!(catalog.branch_by_name(shop.id, &name("b")).unwrap(), None);
        let mut all = vec![a, other, gone[0].clone(), gone[1].clone()];
        all.sort_by_key(|branch| branch.id);
        assert_eq!(catalog.all_branches().unwrap(), all);
    }

    #[test]
    fn a_purged_branch_is_gone_and_its_versions_stay() {
        let bench = Bench::new();
        let shop = bench.project("shop");
        let dev = bench.branch(&shop, "dev");
        let version = bench.version(Some(dev.id));
        let catalog = &bench.catalog;
        for _ in 0..2 {
            catalog.purge_branch(dev.id).unwrap();
            assert_eq!(catalog.branch(dev.id).unwrap(), None);
        }
        assert_eq!(catalog.version(version.id).unwrap(), Some(version));
        let gone = catalog.update_branch(&dev);
        assert!(matches!(gone, Err(CatalogError::NoSuchBranch { branch }) if branch == dev.id));
    }

    #[test]
    fn a_version_and_its_branch_are_committed_together_or_not_at_all() {
        let bench = Bench::new();
        let shop = bench.project("shop");
        let dev = bench.branch(&shop, "dev");
        let catalog = &bench.catalog;
        let version = bench.version_row(Some(dev.id));
        let moved = BranchRow { head: version.id, epoch: dev.epoch.next(), ..dev.clone() };

        let stranger = BranchRow { id: BranchId::generate(bench.tick()), ..moved.clone() };
        assert!(catalog.commit_version(&version, &stranger).is_err());
        assert_eq!(catalog.version(version.id).unwrap(), None);
        assert_eq!(catalog.branch(dev.id).unwrap(), Some(dev.clone()));

        for _ in 0..2 {
            catalog.commit_version(&version, &moved).unwrap();
            assert_eq!(catalog.version(version.id).unwrap().as_ref(), Some(&version));
            assert_eq!(catalog.branch(dev.id).unwrap().as_ref(), Some(&moved));
        }
    }

    #[test]
    fn a_branch_needs_its_project_and_its_head() {
        let bench = Bench::new();
        let shop = bench.project("shop");
        let dev = bench.branch(&shop, "dev");
        let new = BranchRow { id: BranchId::generate(bench.tick()), name: name("new"), ..dev };
        for wrong in [
            BranchRow { project: ProjectId::generate(bench.tick()), ..new.clone() },
            BranchRow { head: VersionId::generate(bench.tick()), ..new.clone() },
        ] {
            let error = bench.catalog.insert_branch(&wrong).unwrap_err();
            assert!(matches!(error, CatalogError::Failed { .. }), "{error:?}");
        }
        bench.catalog.insert_branch(&new).unwrap();
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let mut bench = Bench::new();
        let shop = bench.project("shop");
        let dev = bench.branch(&shop, "dev");
        bench.restart();
        assert_eq!(bench.catalog.projects().unwrap(), [shop]);
        assert_eq!(bench.catalog.all_branches().unwrap(), [dev]);
    }

    #[test]
    fn a_damaged_row_is_an_error_that_names_it() {
        let bench = Bench::new();
        let shop = bench.project("shop");
        bench.branch(&shop, "dev");
        bench.catalog.lock().execute("UPDATE branches SET name = 'UPPER'", []).unwrap();
        let error = bench.catalog.all_branches().unwrap_err();
        assert!(matches!(error, CatalogError::Damaged { .. }), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("UPPER"), "{cause}");
    }
}
