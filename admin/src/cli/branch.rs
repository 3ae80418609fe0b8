//! `argon branch …`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::output::{Answer, pairs, table};
use super::session::{Done, Session};
use super::{ProjectArg, human};
use crate::client::Step;
use crate::types::{
    At, Branch, BranchSource, CreateBranch, Deleted, IdleTimeout, KeepWarm, Label, SnapshotEvery,
    Wake,
};

mod door;
mod dump;
mod step;
mod version;
mod wakes;

#[derive(Subcommand, Clone, Debug)]
pub enum BranchCommand {
    /// Create a branch: from the project's base, unless --from or --empty says otherwise
    Create(Create),
    /// List the branches
    List {
        /// List deleted branches instead
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        project: ProjectArg,
    },
    /// Show one branch
    Show(Named),
    /// Change how long a branch may be idle, how often a version is made of it, how long it is kept warm
    Set(step::Set),
    /// Stop a branch's process and make its changes a version
    Suspend(step::Suspend),
    /// Start a branch's process; the first command of a client does that too
    Resume(Named),
    /// Decide about a branch that is held because its last writes, on the server's disk, are damaged
    Recover(step::Recover),
    /// Delete a branch; its last state becomes a version first, so that it can be undeleted
    Delete(Named),
    /// Bring a deleted branch back
    Undelete(Named),
    /// Give up a deleted branch for good
    Purge(Named),
    /// List a branch's versions, the oldest first
    ListVersions(Named),
    /// Show where the time of a branch's last wakes went
    WakeTrace(Named),
    /// Make a version of what a branch is now; one that runs is suspended for it, and woken by its
    /// next command
    Snapshot(version::Snapshot),
    /// Move a branch to another image, behind a snapshot of its present state
    Upgrade(step::Upgrade),
    /// Keep a version for good
    Pin(version::ById),
    /// Let a pinned version go when its project's rules say so
    Unpin(version::ById),
    /// Create a branch from what another one was at a time, in a version or under a label
    TimeTravel(TimeTravel),
    /// Give a branch a port of its own, for tools that overwrite appName, and print its URI
    Port(door::Port),
    /// Give a branch a Unix socket of its own, and print its URI
    Socket(door::Socket),
    /// Write an archive of a branch, as mongodump --archive --gzip does
    Dump(dump::Dump),
}

/// A branch that exists.
#[derive(Args, Clone, Debug)]
pub struct Named {
    /// The branch
    name: String,
    #[command(flatten)]
    project: ProjectArg,
}

#[derive(Args, Clone, Debug)]
pub struct Create {
    /// The new branch's name: 1 to 63 of a-z, 0-9 and `-`
    name: String,
    /// Start from another branch: BRANCH, BRANCH@VERSION, BRANCH@TIME (RFC 3339) or BRANCH@LABEL
    #[arg(long, value_name = "SOURCE", conflicts_with = "empty")]
    from: Option<BranchSource>,
    /// Start with nothing in it
    #[arg(long)]
    empty: bool,
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    project: ProjectArg,
}

#[derive(Args, Clone, Debug)]
pub struct TimeTravel {
    /// The new branch's name
    name: String,
    /// The branch whose history is meant
    #[arg(long, value_name = "BRANCH")]
    from_branch: String,
    #[command(flatten)]
    at: AtArg,
    #[command(flatten)]
    own: Own,
    #[command(flatten)]
    project: ProjectArg,
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct AtArg {
    /// The newest version that is not younger than this (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    timestamp: Option<At>,
    /// This version
    #[arg(long, value_name = "ID", value_parser = version_id)]
    version_id: Option<At>,
    /// The version with this label
    #[arg(long, value_name = "LABEL")]
    label: Option<Label>,
}

#[derive(Args, Clone, Debug)]
struct Own {
    /// Suspend it after this long without work: 30s, 5m, 1h, 500ms or never
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<IdleTimeout>,
    /// Make a version of it this often while it runs and changes: 5s, 1m, 1h or off
    #[arg(long, value_name = "TIME")]
    snapshot_every: Option<SnapshotEvery>,
    /// Once it is idle, let its mongod stand still for this long before it is suspended: 30s, 10m or off
    #[arg(long, value_name = "TIME")]
    keep_warm: Option<KeepWarm>,
}

fn timestamp(text: &str) -> Result<At, String> {
    match text.parse() {
        Ok(At::Time(time)) => Ok(At::Time(time)),
        _ => Err("expected RFC 3339, for example 2026-01-31T12:00:00.000Z".to_owned()),
    }
}

fn version_id(text: &str) -> Result<At, String> {
    match text.parse() {
        Ok(At::Version(id)) => Ok(At::Version(id)),
        _ => Err("expected 26 letters and digits, as `argon branch list-versions` has".to_owned()),
    }
}

impl AtArg {
    fn at(&self) -> Option<At> {
        let label = self.label.as_ref().map(|label| At::Label(label.to_string()));
        self.timestamp.clone().or_else(|| self.version_id.clone()).or(label)
    }
}

impl BranchCommand {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let step = |named: &Named, step, verb| {
            let project = session.project(&named.project)?;
            let begun = session.client.step(&project, &named.name, step)?;
            Ok(done(&session.follow_branch(begun)?, verb))
        };
        match self {
            Self::Create(create) => create.execute(session),
            Self::List { deleted, project } => {
                let deleted = if *deleted { Deleted::Only } else { Deleted::Without };
                let branches = session.client.branches(&session.project(project)?, deleted)?;
                Ok(Answer::new(&branches, list(&branches, deleted)))
            }
            Self::Show(named) => {
                let project = session.project(&named.project)?;
                let branch = session.client.branch(&project, &named.name)?;
                Ok(Answer::new(&branch, shown(&branch)))
            }
            Self::Set(set) => set.execute(session),
            Self::Suspend(suspend) => suspend.execute(session),
            Self::Recover(recover) => recover.execute(session),
            Self::Resume(named) => step(named, Step::Resume, "resumed"),
            Self::Undelete(named) => step(named, Step::Undelete, "brought back"),
            Self::Purge(named) => step(named, Step::Purge, "purged"),
            Self::Delete(named) => {
                let project = session.project(&named.project)?;
                let begun = session.client.delete_branch(&project, &named.name)?;
                Ok(done(&session.follow_branch(begun)?, "deleted"))
            }
            Self::ListVersions(named) => version::list(session, named),
            Self::WakeTrace(named) => wakes::trace(session, named),
            Self::Snapshot(snapshot) => snapshot.execute(session),
            Self::Upgrade(upgrade) => upgrade.execute(session),
            Self::Pin(version) => version.pin(session),
            Self::Unpin(version) => version.unpin(session),
            Self::TimeTravel(travel) => travel.execute(session),
            Self::Port(port) => port.execute(session),
            Self::Socket(socket) => socket.execute(session),
            Self::Dump(dump) => dump.execute(session),
        }
    }
}

impl Create {
    fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let source = match &self.from {
            Some(source) => source.clone(),
            None if self.empty => BranchSource::Empty,
            None => BranchSource::Base,
        };
        create(session, &self.project, &self.name, source, &self.own)
    }
}

impl TimeTravel {
    fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let source = BranchSource::Branch { branch: self.from_branch.clone(), at: self.at.at() };
        create(session, &self.project, &self.name, source, &self.own)
    }
}

fn create(
    session: &Session,
    project: &ProjectArg,
    name: &str,
    source: BranchSource,
    own: &Own,
) -> Result<Answer, CliError> {
    let project = session.project(project)?;
    let Own { idle_timeout, snapshot_every, keep_warm } = *own;
    let name = name.to_owned();
    let request = CreateBranch { name, source, idle_timeout, snapshot_every, keep_warm };
    let begun = session.client.create_branch(&project, &request)?;
    Ok(done(&session.follow_branch(begun)?, "created"))
}

fn done(done: &Done, verb: &str) -> Answer {
    let Branch { project, name, .. } = &done.branch;
    Answer::new(&done.branch, format!("{verb} branch {project}/{name}{}", done.took))
}

fn list(branches: &[Branch], deleted: Deleted) -> String {
    let row = |branch: &Branch| {
        let (state, when) = match (deleted, &branch.deleted_at) {
            (Deleted::Only, Some(when)) => (branch.id.clone(), when),
            _ => (state(branch), &branch.created_at),
        };
        [
            branch.name.clone(),
            state,
            human::size(branch.size_bytes),
            branch.clients.to_string(),
            branch.idle_timeout.to_string(),
            branch.keep_warm.to_string(),
            human::ago(when),
            origin(branch).unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let (state, when) = match deleted {
        Deleted::Without => ("STATE", "CREATED"),
        Deleted::Only => ("ID", "DELETED"),
    };
    let heads = ["NAME", state, "SIZE", "CLIENTS", "IDLE", "WARM", when, "FROM"];
    table(heads, branches.iter().map(row).collect())
}

fn shown(branch: &Branch) -> String {
    let idle = match branch.idle_timeout {
        IdleTimeout::Never => "never".to_owned(),
        after => format!("after {after} without work"),
    };
    let warm = match branch.keep_warm {
        KeepWarm::Off => "off".to_owned(),
        time => format!("for {time} more, standing still"),
    };
    let snapshots = match branch.snapshot_every {
        SnapshotEvery::Off => "off".to_owned(),
        every => format!("every {every}, while it runs and changes"),
    };
    pairs(&[
        ("name", Some(branch.name.clone())),
        ("project", Some(branch.project.clone())),
        ("id", Some(branch.id.clone())),
        ("state", Some(state(branch))),
        ("error", branch.error.clone()),
        ("uri", Some(branch.uri.clone())),
        ("port", branch.port_uri.clone()),
        ("socket", branch.socket_uri.clone()),
        ("not listening", branch.listen_error.clone()),
        ("version", Some(branch.head_version.clone())),
        ("size", Some(human::size(branch.size_bytes))),
        ("from", origin(branch)),
        ("suspends", Some(idle)),
        ("kept warm", Some(warm)),
        ("snapshots", Some(snapshots)),
        ("clients", Some(branch.clients.to_string())),
        ("in flight", Some(branch.in_flight.to_string())),
        ("last wake", branch.last_wake.as_ref().map(wake)),
        ("created", Some(human::ago(&branch.created_at))),
        ("deleted", branch.deleted_at.as_deref().map(human::ago)),
    ])
}

/// `412 ms, cold, 3 minutes ago: restore 20, queue 0, mongod start 310, primary 75, attach 7`
fn wake(wake: &Wake) -> String {
    let phases = [
        ("restore", Some(wake.restore_ms)),
        ("queue", Some(wake.queue_ms)),
        ("mongod start", Some(wake.mongod_start_ms)),
        ("primary", Some(wake.primary_ms)),
        ("attach", wake.attach_ms),
    ];
    let took: Vec<_> = phases.iter().filter_map(|(name, ms)| Some((name, (*ms)?))).collect();
    let texts: Vec<_> = took.iter().map(|(name, ms)| format!("{name} {ms}")).collect();
    let total = Duration::from_millis(took.iter().map(|(_, ms)| ms).sum());
    let (total, ago, by) = (human::span(total), human::ago(&wake.at), wake.by.as_str());
    format!("{total}, {by}, {ago}: {}", texts.join(", "))
}

/// Of a branch that is being saved, for how long already; of one that runs, whether it stands still.
fn state(branch: &Branch) -> String {
    match &branch.saving_since {
        Some(since) => format!("{} since {}", branch.state, human::ago(since)),
        None if branch.frozen => format!("{}, frozen", branch.state),
        None => branch.state.to_string(),
    }
}

fn origin(branch: &Branch) -> Option<String> {
    branch.origin.as_ref().map(|origin| format!("{}@{}", origin.branch, origin.version))
}
