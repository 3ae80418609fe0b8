//! `argon operation …`

use clap::Subcommand;

use super::error::CliError;
use super::human;
use super::output::{Answer, pairs, table};
use super::session::Session;
use crate::types::Operation;

#[derive(Subcommand, Clone, Debug)]
pub enum OperationCommand {
    /// List what the server does and did since its start, the newest first
    List,
    /// Show one operation
    Show {
        /// The operation's id
        id: String,
        /// Wait until it has ended; its failure is then this command's
        #[arg(long)]
        wait: bool,
    },
}

impl OperationCommand {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        match self {
            Self::List => {
                let operations = session.client.operations()?;
                Ok(Answer::new(&operations, list(&operations)))
            }
            Self::Show { id, wait } => {
                let mut operation = session.client.operation(id)?;
                if *wait {
                    operation = session.follow(operation)?;
                }
                Ok(Answer::new(&operation, shown(&operation)))
            }
        }
    }
}

fn list(operations: &[Operation]) -> String {
    let row = |operation: &Operation| {
        [
            operation.id.clone(),
            operation.kind.to_string(),
            operation.subject.clone(),
            operation.status.to_string(),
            human::ago(&operation.started_at),
            took(operation).unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let heads = ["ID", "KIND", "SUBJECT", "STATUS", "STARTED", "TOOK"];
    table(heads, operations.iter().map(row).collect())
}

fn shown(operation: &Operation) -> String {
    let error = operation.error.as_ref();
    pairs(&[
        ("id", Some(operation.id.clone())),
        ("kind", Some(operation.kind.to_string())),
        ("subject", Some(operation.subject.clone())),
        ("status", Some(operation.status.to_string())),
        ("progress", operation.progress.clone()),
        ("started", Some(human::ago(&operation.started_at))),
        ("took", took(operation)),
        ("error", error.map(|problem| problem.detail.clone())),
        ("code", error.map(|problem| problem.code.clone())),
        ("hint", error.and_then(|problem| problem.hint.clone())),
    ])
}

fn took(operation: &Operation) -> Option<String> {
    human::between(&operation.started_at, operation.ended_at.as_deref()?)
}
