//! `argon connect` and `argon status`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::{Answer, pairs};
use super::session::Session;
use super::{ProjectArg, human};
use crate::types::{BranchCounts, BranchState, ParkedMongods};

#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The branch
    branch: String,
    /// The URI of the branch's own port (`argon branch port`)
    #[arg(long, conflicts_with = "socket")]
    port: bool,
    /// The URI of the branch's own Unix socket (`argon branch socket`)
    #[arg(long)]
    socket: bool,
    #[command(flatten)]
    project: ProjectArg,
}

impl Connect {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let project = session.project(&self.project)?;
        let branch = session.client.branch(&project, &self.branch)?;
        let missing = |door| CliError::NoDoor { branch: self.branch.clone(), door };
        let uri = match (self.port, self.socket) {
            (true, _) => branch.port_uri.ok_or_else(|| missing("port"))?,
            (_, true) => branch.socket_uri.ok_or_else(|| missing("socket"))?,
            (false, false) => branch.uri,
        };
        Ok(Answer::new(&json!({ "uri": uri }), uri))
    }
}

pub(super) fn status(session: &Session) -> Result<Answer, CliError> {
    let status = session.client.status()?;
    let text = pairs(&[
        ("argon", Some(status.version.clone())),
        ("up for", Some(human::span(Duration::from_millis(status.uptime_ms)))),
        ("admin", Some(session.client.server().to_string())),
        ("drivers", Some(format!("mongodb://{}", status.listen))),
        ("mongod", Some(format!("{} at {}", status.mongod.version, status.mongod.path))),
        ("parked", Some(parked(&status.parked))),
        ("compute", Some(status.compute.clone())),
        ("store", Some(status.store.clone())),
        ("data", Some(status.data_dir.clone())),
        ("projects", Some(status.projects.to_string())),
        ("branches", Some(counts(&status.branches))),
        ("clients", Some(status.connections.to_string())),
    ]);
    Ok(Answer::new(&status, text))
}

/// `1 of 2, 1 starting`
fn parked(parked: &ParkedMongods) -> String {
    if parked.wanted == 0 {
        return "none".to_owned();
    }
    let starting = (parked.starting > 0).then(|| format!(", {} starting", parked.starting));
    let error = parked.error.as_ref().map(|error| format!("; the last one was lost: {error}"));
    let (starting, error) = (starting.unwrap_or_default(), error.unwrap_or_default());
    format!("{} of {}{starting}{error}", parked.parked, parked.wanted)
}

/// The numbers that are not zero: `2 running, 1 suspended`.
fn counts(counts: &BranchCounts) -> String {
    let told: Vec<_> = [
        (counts.running, BranchState::Running),
        (counts.waking, BranchState::Waking),
        (counts.suspending, BranchState::Suspending),
        (counts.suspended, BranchState::Suspended),
        (counts.saving, BranchState::Saving),
        (counts.held, BranchState::Held),
        (counts.deleted, BranchState::Deleted),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, state)| format!("{count} {state}"))
    .collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_mongods_are_counted_and_a_loss_is_told() {
        let mut some = ParkedMongods::default();
        assert_eq!(parked(&some), "none");
        some = ParkedMongods { wanted: 2, parked: 2, ..some };
        assert_eq!(parked(&some), "2 of 2");
        some = ParkedMongods { parked: 0, starting: 1, error: Some("it ended".into()), ..some };
        assert_eq!(parked(&some), "0 of 2, 1 starting; the last one was lost: it ended");
    }

    #[test]
    fn only_states_that_occur_are_counted() {
        assert_eq!(counts(&BranchCounts::default()), "none");
        let some = BranchCounts { running: 2, deleted: 1, ..BranchCounts::default() };
        assert_eq!(counts(&some), "2 running, 1 deleted");
    }
}
