//! `argon branch suspend` and `recover`: steps that have a choice.

use clap::Args;

use super::{Named, done};
use crate::cli::error::CliError;
use crate::cli::output::Answer;
use crate::cli::session::Session;
use crate::client::Step;
use crate::types::{RecoverBranch, Recovery, Until};

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
