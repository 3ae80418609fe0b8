//! The subcommands that talk to a running server.
//!
//! Job: parse, call the API, follow long work, show what came of it. Not its job: `argon serve`
//! and what else the binary does by itself.
//! Invariant: only data goes to stdout; progress, notes and errors go to stderr, and an error's
//! next step stands on a `hint:` line of its own.

mod base;
mod branch;
mod error;
mod garbage;
mod human;
mod interrupt;
mod operation;
mod output;
mod progress;
mod project;
mod retention;
mod server;
mod session;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::Server;
use output::{Answer, Format};
use session::Session;

pub use error::EXIT_CODES;

/// How to reach the server and how to show what it says; for every subcommand.
#[derive(Args, Clone, Debug)]
pub struct ConnectionArgs {
    /// The server's admin address
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "ARGON_SERVER",
        default_value = "http://127.0.0.1:27080"
    )]
    pub server: Server,
    /// Show data as JSON on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,
}

/// The subcommands, for the binary's own parser to flatten.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Projects: groups of branches that start from one base
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Branches: databases with a history
    #[command(subcommand)]
    Branch(branch::BranchCommand),
    /// The archive that new projects start from
    #[command(subcommand)]
    Base(base::BaseCommand),
    /// Print the URI of a branch, and nothing else
    Connect(server::Connect),
    /// Show how the server stands
    Status,
    /// Delete from the store what nothing needs any more
    Gc(garbage::Gc),
    /// Read all that versions need, verify it, and name what is damaged and whom it hurts
    Scrub,
    /// Long work in the server
    #[command(subcommand)]
    Operation(operation::OperationCommand),
}

/// The project that a branch is looked for in.
#[derive(Args, Clone, Debug)]
pub struct ProjectArg {
    /// The branch's project; not needed where there is only one
    #[arg(long, value_name = "NAME", env = "ARGON_PROJECT")]
    project: Option<String>,
}

/// Runs a subcommand to its end; [`EXIT_CODES`] says what the code means.
pub fn run(command: &Command, connection: &ConnectionArgs) -> ExitCode {
    let format = if connection.json { Format::Json } else { Format::Human };
    let session = Session::new(connection.server.clone());
    interrupt::install();
    let done = command.execute(&session).and_then(|answer| {
        answer.print(format)?;
        Ok(answer.exit_code())
    });
    match done {
        Ok(code) => code,
        Err(error) => error.report(format),
    }
}

impl Command {
    fn execute(&self, session: &Session) -> Result<Answer, error::CliError> {
        match self {
            Self::Project(command) => command.execute(session),
            Self::Branch(command) => command.execute(session),
            Self::Base(command) => command.execute(session),
            Self::Connect(connect) => connect.execute(session),
            Self::Status => server::status(session),
            Self::Gc(gc) => gc.execute(session),
            Self::Scrub => garbage::scrub(session),
            Self::Operation(command) => command.execute(session),
        }
    }
}

#[cfg(test)]
mod tests;
