//! A whole catalog at once, for one that was lost.

use super::error::CatalogError;
use super::{BranchRow, Catalog, ProjectRow, VersionRow, branches, projects, versions};

/// Everything that a catalog has of what users see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Versions.
    pub versions: Vec<VersionRow>,
    /// Projects.
    pub projects: Vec<ProjectRow>,
    /// Branches, live and deleted.
    pub branches: Vec<BranchRow>,
}

impl Catalog {
    /// How many projects and branches there are, deleted ones too.
    pub fn counts(&self) -> Result<(u64, u64), CatalogError> {
        let sql = "SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM branches)";
        self.lock()
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(CatalogError::failed("count what there is"))
    }

    /// Adds all of it or nothing. Versions that are there already stay as they are.
    pub fn fill(&self, contents: &Contents) -> Result<(), CatalogError> {
        let mut connection = self.lock();
        let failed = CatalogError::failed("fill it");
        let transaction = connection.transaction().map_err(&failed)?;
        for version in &contents.versions {
            versions::insert(&transaction, version)?;
        }
        for project in &contents.projects {
            projects::insert(&transaction, project)?;
        }
        for branch in &contents.branches {
            branches::insert(&transaction, branch)?;
        }
        transaction.commit().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::Bench;

    #[test]
    fn a_catalog_is_filled_whole_or_not_at_all() {
        let source = Bench::new();
        let shop = source.project("shop");
        source.branch(&shop, "dev");
        let contents = Contents {
            versions: source.catalog.all_versions().unwrap(),
            projects: source.catalog.projects().unwrap(),
            branches: source.catalog.all_branches().unwrap(),
        };
        let bench = Bench::new();
        let twice = [contents.branches.clone(), contents.branches.clone()].concat();
        bench.catalog.fill(&Contents { branches: twice, ..contents.clone() }).unwrap_err();
        assert_eq!(bench.catalog.counts().unwrap(), (0, 0));
        assert_eq!(bench.catalog.all_versions().unwrap(), []);

        bench.catalog.fill(&contents).unwrap();
        assert_eq!(bench.catalog.counts().unwrap(), (1, 1));
        let filled = Contents {
            versions: bench.catalog.all_versions().unwrap(),
            projects: bench.catalog.projects().unwrap(),
            branches: bench.catalog.all_branches().unwrap(),
        };
        assert_eq!(filled, contents);
    }
}
