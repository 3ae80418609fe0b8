//! What every subcommand needs: the client, the project that is meant, and following work.

use super::error::CliError;
use super::interrupt;
use super::progress::Spinner;
use super::{ProjectArg, human};
use crate::client::{Client, ClientError, Server};
use crate::types::{Branch, Operation, OperationResult};

pub(super) struct Session {
    pub(super) client: Client,
}

impl Session {
    pub(super) fn new(server: Server) -> Self {
        Self { client: Client::new(server) }
    }

    #[cfg(test)]
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// The project that was named, else the only one.
    pub(super) fn project(&self, named: &ProjectArg) -> Result<String, CliError> {
        if let Some(name) = named.project.as_deref().filter(|name| !name.is_empty()) {
            return Ok(name.to_owned());
        }
        let mut names: Vec<_> =
            self.client.projects()?.into_iter().map(|project| project.name).collect();
        match names.len() {
            0 => Err(CliError::NoProject),
            1 => Ok(names.remove(0)),
            _ => Err(CliError::WhichProject { choices: names }),
        }
    }

    /// Waits for the end of an operation that the server just took on.
    pub(super) fn follow(&self, operation: Operation) -> Result<Operation, CliError> {
        let command =
            format!("argon operation show {} --server {}", operation.id, self.client.server());
        let _interrupt = interrupt::while_following(command);
        let _spinner = Spinner::new(format!("{} {}", operation.kind, operation.subject));
        Ok(self.client.follow(operation)?)
    }

    /// The same, showing how far it has got.
    pub(super) fn watch(&self, operation: Operation) -> Result<Operation, CliError> {
        let command =
            format!("argon operation show {} --server {}", operation.id, self.client.server());
        let _interrupt = interrupt::while_following(command);
        let spinner = Spinner::new(operation.kind.to_string());
        Ok(self.client.watch(operation, |now| {
            if let Some(progress) = &now.progress {
                spinner.say(format!("{}: {progress}", now.kind));
            }
        })?)
    }

    /// The same where the operation's result is a branch.
    pub(super) fn follow_branch(&self, operation: Operation) -> Result<Done, CliError> {
        let operation = self.follow(operation)?;
        let took = took(&operation);
        match operation.result {
            Some(OperationResult::Branch(branch)) => Ok(Done { branch: *branch, took }),
            _ => Err(self.no_result(&operation).into()),
        }
    }

    /// The operation succeeded without what it was for.
    pub(super) fn no_result(&self, operation: &Operation) -> ClientError {
        ClientError::Strange {
            server: self.client.server().clone(),
            request: format!("operation {}", operation.id),
            reason: format!("{} succeeded with another result", operation.kind),
        }
    }
}

/// A branch after a step, and how long that took, for people.
pub(super) struct Done {
    pub(super) branch: Branch,
    pub(super) took: String,
}

/// ` in 1.2 s`, or nothing where it is not known.
pub(super) fn took(operation: &Operation) -> String {
    let end = operation.ended_at.as_deref();
    end.and_then(|end| human::between(&operation.started_at, end))
        .map(|time| format!(" in {time}"))
        .unwrap_or_default()
}
