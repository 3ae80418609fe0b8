//! `argon branch port` and `argon branch socket`

use std::num::NonZeroU16;

use clap::Args;

use super::Named;
use crate::cli::error::CliError;
use crate::cli::output::Answer;
use crate::cli::session::Session;
use crate::client::Door;
use crate::types::OpenPort;

#[derive(Args, Clone, Debug)]
pub struct Port {
    #[command(flatten)]
    branch: Named,
    /// This port; else the one that the branch has, else a free one. It stays over restarts
    #[arg(long, value_name = "N", conflicts_with = "off")]
    port: Option<NonZeroU16>,
    /// Take the branch's port away
    #[arg(long)]
    off: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Socket {
    #[command(flatten)]
    branch: Named,
    /// Take the branch's socket away
    #[arg(long)]
    off: bool,
}

impl Port {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let project = session.project(&self.branch.project)?;
        let name = &self.branch.name;
        if self.off {
            return close(session, &project, name, Door::Port);
        }
        let begun = session.client.open_port(&project, name, &OpenPort { port: self.port })?;
        let branch = session.follow_branch(begun)?.branch;
        Ok(Answer::new(&branch, branch.port_uri.clone().unwrap_or_default()))
    }
}

impl Socket {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let project = session.project(&self.branch.project)?;
        let name = &self.branch.name;
        if self.off {
            return close(session, &project, name, Door::Socket);
        }
        let begun = session.client.open_socket(&project, name)?;
        let branch = session.follow_branch(begun)?.branch;
        Ok(Answer::new(&branch, branch.socket_uri.clone().unwrap_or_default()))
    }
}

fn close(session: &Session, project: &str, name: &str, door: Door) -> Result<Answer, CliError> {
    let begun = session.client.close_door(project, name, door)?;
    let branch = session.follow_branch(begun)?.branch;
    let word = match door {
        Door::Port => "port",
        Door::Socket => "socket",
    };
    Ok(Answer::new(&branch, format!("branch {project}/{name} has no {word} of its own now")))
}
