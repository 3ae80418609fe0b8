//! What the tests of this room share: a catalog in a folder of its own, and rows to put in it.

use tempfile::TempDir;

use super::{BranchRow, Catalog, LocalData, ProjectRow, VersionRow};
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::base::ids::{BranchId, Epoch, ProjectId, VersionId};
use crate::base::name::Name;
use crate::base::own_time::OwnTime;
use crate::base::retention::Retention;

pub(super) struct Bench {
    dir: TempDir,
    clock: SystemClock,
    pub(super) catalog: Catalog,
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.sqlite")).unwrap();
        Self { dir, clock: SystemClock::default(), catalog }
    }

    /// Closes the catalog and opens it again.
    pub(super) fn restart(&mut self) {
        let other = self.dir.path().join("other.sqlite");
        drop(std::mem::replace(&mut self.catalog, Catalog::open(&other).unwrap()));
        self.catalog = Catalog::open(&self.dir.path().join("catalog.sqlite")).unwrap();
    }

    /// A moment later than every one before.
    pub(super) fn tick(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn project(&self, text: &str) -> ProjectRow {
        let base = Some(self.version(None).id);
        let created = self.tick();
        let (id, name) = (ProjectId::generate(created), name(text));
        let retention = Retention::default();
        let row = ProjectRow { id, name, created, base, retention, image: None };
        self.catalog.insert_project(&row).unwrap();
        row
    }

    pub(super) fn branch(&self, project: &ProjectRow, text: &str) -> BranchRow {
        let created = self.tick();
        let row = BranchRow {
            id: BranchId::generate(created),
            project: project.id,
            name: name(text),
            head: self.version(None).id,
            epoch: Epoch::default(),
            idle_timeout: OwnTime::Default,
            snapshot_every: OwnTime::Default,
            keep_warm: OwnTime::Default,
            created,
            deleted: None,
            origin_branch: None,
            origin_version: None,
            local: LocalData::None,
            error: None,
            port: None,
            socket: false,
            head_pending: false,
        };
        self.catalog.insert_branch(&row).unwrap();
        row
    }

    pub(super) fn version(&self, branch: Option<BranchId>) -> VersionRow {
        let row = self.version_row(branch);
        self.catalog.insert_version(&row).unwrap();
        row
    }

    /// A version's row that is not in the catalog yet.
    pub(super) fn version_row(&self, branch: Option<BranchId>) -> VersionRow {
        let created = self.tick();
        VersionRow {
            id: VersionId::generate(created),
            branch,
            parent: None,
            created,
            cause: "suspend".into(),
            label: None,
            total_bytes: 1 << 40,
            new_bytes: 65_536,
            stored_bytes: 1_234,
            mongod_version: "6.0.5".into(),
            fcv: "6.0".into(),
            pinned: false,
        }
    }
}
