//! `argon branch set`, `suspend` and `recover`: steps that have a choice.

use std::str::FromStr;

use clap::Args;

use super::{Named, done};
use crate::cli::error::CliError;
use crate::cli::output::Answer;
use crate::cli::session::Session;
use crate::client::Step;
use crate::types::{
    ChangeBranch, IdleTimeout, KeepWarm, RecoverBranch, Recovery, SnapshotEvery, Until,
    UpgradeBranch,
};

#[derive(Args, Clone, Debug)]
pub struct Suspend {
    #[command(flatten)]
    branch: Named,
    /// Wait until its last writes are in the store; without it the command returns as soon as the
    /// branch is asleep and its state is safe on the server's machine
    #[arg(long)]
    wait: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Recover {
    #[command(flatten)]
    branch: Named,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct How {
    /// Put the damaged writes aside, on the server's disk, and go on from the last version
    #[arg(long)]
    last_version: bool,
    /// Take what can be read up to the damage as a new version
    #[arg(long)]
    salvage: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Set {
    #[command(flatten)]
    branch: Named,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
struct Change {
    /// Suspend it after this long without work: 30s, 5m, 1h, never, or default for the server's
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<OrDefault<IdleTimeout>>,
    /// Make a version of it this often while it runs and changes: 5s, 1m, off, or default for the
    /// server's
    #[arg(long, value_name = "TIME")]
    snapshot_every: Option<OrDefault<SnapshotEvery>>,
    /// Once it is idle, let its mongod stand still for this long before it is suspended: 30s, 10m, off,
    /// or default for the server's
    #[arg(long, value_name = "TIME")]
    keep_warm: Option<OrDefault<KeepWarm>>,
}

/// A setting of the branch's own, or none.
#[derive(Clone, Copy, Debug)]
struct OrDefault<T>(Option<T>);

impl<T: FromStr> FromStr for OrDefault<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        match text {
            "default" => Ok(Self(None)),
            own => own.parse().map(|own| Self(Some(own))),
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct Upgrade {
    #[command(flatten)]
    branch: Named,
    /// The image to go on with: of the same release of MongoDB, or of the next major one
    #[arg(long)]
    image: String,
    /// Make the data those of the new release too: its features can be used then, and no older mongod
    /// opens the branch again
    #[arg(long)]
    set_fcv: bool,
}

impl Upgrade {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let to = UpgradeBranch { image: self.image.clone(), set_fcv: self.set_fcv };
        let project = session.project(&self.branch.project)?;
        let begun = session.client.upgrade(&project, &self.branch.name, &to)?;
        Ok(done(&session.follow_branch(begun)?, "upgraded"))
    }
}

impl Set {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let change = ChangeBranch {
            idle_timeout: self.change.idle_timeout.map(|idle| idle.0),
            snapshot_every: self.change.snapshot_every.map(|every| every.0),
            keep_warm: self.change.keep_warm.map(|warm| warm.0),
        };
        let project = session.project(&self.branch.project)?;
        let begun = session.client.change_branch(&project, &self.branch.name, &change)?;
        Ok(done(&session.follow_branch(begun)?, "changed"))
    }
}

impl Suspend {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let until = if self.wait { Until::Saved } else { Until::Asleep };
        let project = session.project(&self.branch.project)?;
        let begun = session.client.step(&project, &self.branch.name, Step::Suspend(until))?;
        Ok(done(&session.follow_branch(begun)?, "suspended"))
    }
}

impl Recover {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        // The parser sees to it that one of the two is said.
        let how = if self.how.salvage { Recovery::Salvage } else { Recovery::LastVersion };
        let project = session.project(&self.branch.project)?;
        let begun = session.client.recover(&project, &self.branch.name, &RecoverBranch { how })?;
        Ok(done(&session.follow_branch(begun)?, "recovered"))
    }
}
