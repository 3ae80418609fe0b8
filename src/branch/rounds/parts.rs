//! What the rounds run on: a clock that is moved, no mongod, and a project to begin with.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon_admin::types;
use async_trait::async_trait;
use bson::doc;

use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::base::ids::{ProjectId, VersionId};
use crate::base::limits::{Garbage, MountKind, Mounts};
use crate::base::retention::Retention;
use crate::branch::reconcile::version_row;
use crate::branch::retention::kept;
use crate::branch::{Branches, Parts, Settings, Writers};
use crate::catalog::{Catalog, ProjectRow};
use crate::compute::{self, Compute, ComputeError, Instance};
use crate::store::faults::Faults;
use crate::volume::{Capture, Cause, MongodVersion, Volumes};

pub const HOUR_MS: u64 = 60 * 60 * 1000;
const MONGOD: &str = "6.0.5";
pub const FILE: &str = "collection.wt";

/// The machine's clock, ahead by as much as the rounds let pass.
#[derive(Debug, Default)]
pub struct Ahead {
    clock: SystemClock,
    pub ms: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        let ahead = self.ms.load(Ordering::Relaxed);
        Timestamp::from_unix_ms(self.clock.now().unix_ms() + ahead)
    }
}

/// Nothing here wakes a branch.
#[derive(Debug)]
struct NoMongod;

#[async_trait]
impl Compute for NoMongod {
    fn describe(&self) -> String {
        "no mongod".to_owned()
    }

    fn mongod_version(&self) -> &str {
        MONGOD
    }

    async fn start(&self, cell: compute::Cell) -> Result<Arc<dyn Instance>, ComputeError> {
        let source = io::ErrorKind::Unsupported.into();
        Err(ComputeError::Io { doing: "start a mongod on", object: cell.dbpath.into(), source })
    }
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    pub fn any<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())].clone())
    }
}

/// Opens what is in the directory; makes it where there is nothing yet.
pub async fn open(directory: &Path, faults: &Arc<Faults>, clock: &Arc<Ahead>) -> Branches {
    let catalog = Catalog::open(&directory.join("catalog.sqlite")).unwrap();
    if catalog.seeds().unwrap().is_empty() {
        furnish(directory, &catalog, faults, clock).await;
    }
    let parts = Parts {
        catalog,
        store: faults.clone(),
        compute: Arc::new(NoMongod),
        clock: clock.clone(),
        metrics: Arc::default(),
    };
    let settings = Settings {
        data_dir: directory.to_owned(),
        idle_timeout: types::IdleTimeout::Never,
        snapshot_every: types::SnapshotEvery::Off,
        keep_warm: types::KeepWarm::Off,
        // Without a mongod there is nothing to write on a lazy mount.
        mounts: Mounts { kind: MountKind::Eager, ..Mounts::default() },
        address: "127.0.0.1:0".into(),
        base_key: "base/dump.archive".parse().unwrap(),
        sample_base: b"",
        parked: 0,
        cache_gb: 0.25,
        oplog_mb: 16,
        clients_max: 1,
        garbage: Garbage { min_age: Duration::from_millis(24 * HOUR_MS), interval: None },
        writers: Writers::One,
    };
    Branches::open(parts, settings).await.unwrap()
}

/// A project, and what a mongod would have been asked at the first start.
async fn furnish(directory: &Path, catalog: &Catalog, faults: &Arc<Faults>, clock: &Arc<Ahead>) {
    let volumes = Volumes::new(faults.clone(), clock.clone());
    volumes.prepare().await.unwrap();
    let empty = directory.join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join(FILE), "empty").unwrap();
    let capture = Capture {
        id: VersionId::generate(clock.now()),
        parent: None,
        branch: None,
        cause: Cause::Empty,
        mongod: MongodVersion { version: MONGOD.into(), fcv: "6.0".into(), image: None },
        label: None,
    };
    let version = volumes.capture(&empty, capture).await.unwrap();
    catalog.insert_version(&version_row(&version)).unwrap();
    catalog.set_seed(&format!("empty/{MONGOD}"), version.id).unwrap();
    let facts = doc! { "hello": {}, "build_info": {}, "fcv": "6.0" }.to_vec().unwrap();
    catalog.set_fact(&format!("facts/{MONGOD}"), &facts).unwrap();
    let created = clock.now();
    let project = ProjectRow {
        id: ProjectId::generate(created),
        name: "demo".parse().unwrap(),
        created,
        base: Some(version.id),
        retention: Retention::default(),
        image: None,
    };
    catalog.insert_project(&project).unwrap();
    volumes.save_project(&kept(&project)).await.unwrap();
}
