//! How many there are of everything, for metrics and for people.

use argon_admin::types::{self, BranchState};

use super::{Branches, view};
use crate::base::metrics::Observed;

impl Branches {
    /// What metrics are not told as it happens.
    pub fn observed(&self) -> Observed {
        let parked = self.shared.cells.iter().map(|cell| cell.parked() as u64).sum();
        let counts = view::counts(self.shared.cells.iter().map(|cell| cell.state()));
        let branches = vec![
            (BranchState::Suspended.as_str(), counts.suspended),
            (BranchState::Waking.as_str(), counts.waking),
            (BranchState::Running.as_str(), counts.running),
            (BranchState::Suspending.as_str(), counts.suspending),
            (BranchState::Saving.as_str(), counts.saving),
            (BranchState::Held.as_str(), counts.held),
            (BranchState::Deleted.as_str(), counts.deleted),
        ];
        let pool = self.shared.pool.status();
        let (mongods_parked, mongods_starting) = (pool.parked as u64, pool.starting as u64);
        Observed { parked, branches, mongods_parked, mongods_starting }
    }

    /// How many mongods are started ahead of wakes.
    pub fn parked(&self) -> types::ParkedMongods {
        let pool = self.shared.pool.status();
        types::ParkedMongods {
            wanted: pool.size as u64,
            parked: pool.parked as u64,
            starting: pool.starting as u64,
            error: pool.failure,
        }
    }

    /// How many projects there are, and how many branches in which state.
    pub fn counts(&self) -> (u64, types::BranchCounts) {
        let states = self.shared.cells.iter().map(|cell| cell.state());
        (self.shared.projects().len() as u64, view::counts(states))
    }

    /// In a few words each: how mongods are run, and where versions are kept.
    pub fn describe(&self) -> (String, String) {
        let compute = self.shared.compute.describe();
        let mounting = self.shared.mounting.describe();
        (format!("{compute}; volumes are {mounting}"), self.shared.store.describe())
    }
}
