//! Versions of branches: listing, making and keeping them.

use clap::Args;

use super::Named;
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::{Answer, table};
use crate::cli::session::{Session, took};
use crate::types::{Label, Operation, OperationResult, TakeSnapshot, Version};

#[derive(Args, Clone, Debug)]
pub struct Snapshot {
    #[command(flatten)]
    named: Named,
    /// What to call the version: 1 to 63 of a-z, A-Z, 0-9, `.`, `_` and `-`, a letter first
    #[arg(long)]
    label: Option<Label>,
}

/// A version, by its id.
#[derive(Args, Clone, Debug)]
pub struct ById {
    /// The version: 26 letters and digits, as `argon branch list-versions` has
    version: String,
}

impl Snapshot {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let project = session.project(&self.named.project)?;
        let branch = &self.named.name;
        let request = TakeSnapshot { label: self.label.as_ref().map(Label::to_string) };
        let done = session.follow(session.client.snapshot(&project, branch, &request)?)?;
        answer(session, &done, |version| {
            let label = version.label.as_ref().map(|label| format!(" ({label})"));
            let label = label.unwrap_or_default();
            format!(
                "made version {}{label} of branch {project}/{branch}{}",
                version.id,
                took(&done)
            )
        })
    }
}

impl ById {
    pub(super) fn pin(&self, session: &Session) -> Result<Answer, CliError> {
        let done = session.follow(session.client.pin(&self.version)?)?;
        answer(session, &done, |version| format!("pinned version {}", version.id))
    }

    pub(super) fn unpin(&self, session: &Session) -> Result<Answer, CliError> {
        let done = session.follow(session.client.unpin(&self.version)?)?;
        answer(session, &done, |version| format!("unpinned version {}", version.id))
    }
}

pub(super) fn list(session: &Session, named: &Named) -> Result<Answer, CliError> {
    let project = session.project(&named.project)?;
    let versions = session.client.versions(&project, &named.name)?;
    Ok(Answer::new(&versions, listed(&versions)))
}

/// The times are exact here: `time-travel --timestamp` takes them.
fn listed(versions: &[Version]) -> String {
    let row = |version: &Version| {
        [
            version.id.clone(),
            version.created_at.clone(),
            human::ago(&version.created_at),
            version.cause.clone(),
            human::size(version.size_bytes),
            human::size(version.new_bytes),
            human::size(version.stored_bytes),
            version.parent.clone().unwrap_or_else(|| "-".to_owned()),
            if version.pinned { "pinned" } else { "-" }.to_owned(),
            version.label.clone().unwrap_or_default(),
        ]
    };
    let heads =
        ["VERSION", "CREATED", "AGE", "CAUSE", "SIZE", "NEW", "STORED", "PARENT", "PIN", "LABEL"];
    table(heads, versions.iter().map(row).collect())
}

fn answer(
    session: &Session,
    done: &Operation,
    text: impl FnOnce(&Version) -> String,
) -> Result<Answer, CliError> {
    match &done.result {
        Some(OperationResult::Version(version)) => Ok(Answer::new(version, text(version))),
        _ => Err(session.no_result(done).into()),
    }
}
