//! Projects in the catalog.

use rusqlite::{Connection, OptionalExtension, params};

use super::Catalog;
use super::error::CatalogError;
use super::rows::{self, ProjectRow, text};
use crate::base::ids::{ProjectId, VersionId};
use crate::base::name::Name;
use crate::base::retention::Retention;

impl Catalog {
    /// Adds a project; [`CatalogError::NameTaken`] where one has its name.
    pub fn insert_project(&self, project: &ProjectRow) -> Result<(), CatalogError> {
        insert(&self.lock(), project)
    }

    /// Sets the rules of a project; one that is not there is fine.
    pub fn set_retention(&self, id: ProjectId, rules: &Retention) -> Result<(), CatalogError> {
        let sql = "UPDATE projects SET keep_last = ?, keep_for_ms = ?, keep_deleted_ms = ?, \
            periodic_all_ms = ?, periodic_minutes_ms = ?, periodic_hours_ms = ? WHERE id = ?";
        let [all, minutes, hours] = rules.periodic.to_ms();
        let values = params![
            rules.keep_last,
            rules.keep_for_ms(),
            rules.keep_deleted_ms(),
            all,
            minutes,
            hours,
            id.to_string()
        ];
        let set = self.lock().execute(sql, values);
        set.map(drop).map_err(CatalogError::failed("set the rules of a project"))
    }

    /// Sets what new branches of a project begin with; one that is not there is fine.
    pub fn set_image(
        &self,
        id: ProjectId,
        image: Option<&str>,
        base: Option<VersionId>,
    ) -> Result<(), CatalogError> {
        let sql = "UPDATE projects SET image = ?, base = ? WHERE id = ?";
        let set = self.lock().execute(sql, params![image, text(base), id.to_string()]);
        set.map(drop).map_err(CatalogError::failed("set the image of a project"))
    }

    /// The project of that name.
    pub fn project_by_name(&self, name: &Name) -> Result<Option<ProjectRow>, CatalogError> {
        let sql = format!("SELECT {} FROM projects WHERE name = ?", ProjectRow::COLUMNS);
        self.lock()
            .query_row(&sql, [name.as_str()], ProjectRow::read)
            .optional()
            .map_err(CatalogError::failed("find a project"))
    }

    /// Every project, by name.
    pub fn projects(&self) -> Result<Vec<ProjectRow>, CatalogError> {
        let sql = format!("SELECT {} FROM projects ORDER BY name", ProjectRow::COLUMNS);
        rows::select(&self.lock(), &sql, &[], ProjectRow::read)
            .map_err(CatalogError::failed("list projects"))
    }

    /// Takes a project out, the rows of its deleted branches with it;
    /// [`CatalogError::NotEmpty`] where it has live ones. A project that is not there is fine.
    pub fn delete_project(&self, id: ProjectId) -> Result<(), CatalogError> {
        let mut connection = self.lock();
        let failed = CatalogError::failed("delete a project");
        let transaction = connection.transaction().map_err(&failed)?;
        let id = id.to_string();
        let live: i64 = transaction
            .query_row(
                "SELECT count(*) FROM branches WHERE project = ? AND deleted_ms IS NULL",
                [&id],
                |row| row.get(0),
            )
            .map_err(&failed)?;
        if live > 0 {
            return Err(CatalogError::NotEmpty);
        }
        for sql in ["DELETE FROM branches WHERE project = ?", "DELETE FROM projects WHERE id = ?"] {
            transaction.execute(sql, [&id]).map_err(&failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

/// Adds a project on an open transaction or alone.
pub(super) fn insert(connection: &Connection, project: &ProjectRow) -> Result<(), CatalogError> {
    let sql = format!(
        "INSERT INTO projects ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ProjectRow::COLUMNS
    );
    let ProjectRow { id, name, created, base, retention, image } = project;
    let [all, minutes, hours] = retention.periodic.to_ms();
    let values = params![
        id.to_string(),
        name.as_str(),
        created.unix_ms(),
        text(*base),
        retention.keep_last,
        retention.keep_for_ms(),
        retention.keep_deleted_ms(),
        all,
        minutes,
        hours,
        image,
    ];
    let inserted = connection.execute(&sql, values);
    inserted.map(drop).map_err(CatalogError::failed_to_name("insert a project", name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::retention::Thinning;
    use crate::catalog::testing::{Bench, name};

    #[test]
    fn the_rules_of_a_project_are_kept() {
        let mut bench = Bench::new();
        let shop = bench.project("shop");
        assert_eq!(bench.catalog.projects().unwrap(), std::slice::from_ref(&shop));
        for rules in [
            Retention::from_ms(None, None, None),
            Retention::from_ms(Some(1), Some(2), Some(u64::MAX)),
            Retention {
                periodic: Thinning::from_ms([0, 5, i64::MAX as u64]),
                ..Retention::from_ms(Some(u32::MAX), Some(0), None)
            },
        ] {
            bench.catalog.set_retention(shop.id, &rules).unwrap();
            bench.restart();
            let kept = bench.catalog.projects().unwrap().remove(0).retention;
            let ms = |ms: Option<u64>| ms.map(|ms| ms.min(i64::MAX as u64));
            assert_eq!(
                (kept.keep_last, kept.keep_for_ms()),
                (rules.keep_last, rules.keep_for_ms())
            );
            assert_eq!(kept.keep_deleted_ms(), ms(rules.keep_deleted_ms()));
            assert_eq!(kept.periodic, rules.periodic);
        }
        bench.catalog.set_retention(ProjectId::generate(bench.tick()), &shop.retention).unwrap();
    }

    #[test]
    fn the_image_of_a_project_is_kept() {
        let mut bench = Bench::new();
        let shop = bench.project("shop");
        assert_eq!(shop.image, None);
        let other = bench.version(None).id;
        for (image, base) in [(Some("mongo:8.0"), Some(other)), (None, shop.base)] {
            bench.catalog.set_image(shop.id, image, base).unwrap();
            bench.restart();
            let kept = bench.catalog.projects().unwrap().remove(0);
            assert_eq!((kept.image.as_deref(), kept.base), (image, base));
        }
        let blog = ProjectRow {
            id: ProjectId::generate(bench.tick()),
            name: name("blog"),
            image: Some("mongo:7".into()),
            ..shop
        };
        bench.catalog.insert_project(&blog).unwrap();
        assert_eq!(bench.catalog.project_by_name(&name("blog")).unwrap(), Some(blog));
    }

    #[test]
    fn projects_are_found_by_name_and_listed_in_order() {
        let bench = Bench::new();
        let (shop, blog) = (bench.project("shop"), bench.project("blog"));
        let catalog = &bench.catalog;
        assert_eq!(catalog.projects().unwrap(), [blog.clone(), shop.clone()]);
        assert_eq!(catalog.project_by_name(&name("shop")).unwrap(), Some(shop));
        assert_eq!(catalog.project_by_name(&name("none")).unwrap(), None);
        let again = ProjectRow { id: ProjectId::generate(bench.tick()), ..blog };
        assert!(matches!(
            catalog.insert_project(&again),
            Err(CatalogError::NameTaken { name }) if name == "blog"
        ));
    }

    #[test]
    fn a_project_goes_with_its_deleted_branches_but_not_with_live_ones() {
        let bench = Bench::new();
        let shop = bench.project("shop");
        let mut dev = bench.branch(&shop, "dev");
        let catalog = &bench.catalog;
        assert!(matches!(catalog.delete_project(shop.id), Err(CatalogError::NotEmpty)));
        assert_eq!(catalog.projects().unwrap().len(), 1);
        dev.deleted = Some(bench.tick());
        catalog.update_branch(&dev).unwrap();
        catalog.delete_project(shop.id).unwrap();
        assert_eq!(catalog.projects().unwrap(), []);
        assert_eq!(catalog.branch(dev.id).unwrap(), None);
        catalog.delete_project(shop.id).unwrap();
    }
}
