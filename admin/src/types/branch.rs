//! Branches, and the URI under which a driver finds one.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{BranchSource, IdleTimeout, KeepWarm, SnapshotEvery, Wake};

/// One line of a database's history, with an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Branch {
    /// The branch's id; it stays when the name is given to another branch.
    pub id: String,
    /// Name of its project.
    pub project: String,
    /// 1 to 63 of `a-z`, `0-9` and `-`; one live branch of a project has it.
    pub name: String,
    /// What it is doing now.
    pub state: BranchState,
    /// The newest version: what a wake starts from.
    pub head_version: String,
    /// What it was made from; absent for a branch made from the base or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// How long it may be idle before it is suspended, defaults applied.
    pub idle_timeout: IdleTimeout,
    /// How often a version is made of it while it runs and changes, defaults applied.
    pub snapshot_every: SnapshotEvery,
    /// How long it stands still, once it is idle, before it is suspended, defaults applied.
    pub keep_warm: KeepWarm,
    /// Whether its mongod stands still now; its next command lets it go on.
    pub frozen: bool,
    /// When it was created.
    pub created_at: String,
    /// When it was deleted, for a deleted branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<String>,
    /// Since when writes of a life that ended wait for being saved; the server tries by itself, and
    /// a command wakes the branch with them meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saving_since: Option<String>,
    /// The last failure that is not yet repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a driver connects to.
    pub uri: String,
    /// What a tool that cannot say `appName=argon.…` connects to, where the branch has a port of
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_uri: Option<String>,
    /// The same for a Unix socket of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_uri: Option<String>,
    /// Why the branch's own port or socket is not served, though it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_error: Option<String>,
    /// Client connections routed to this branch now.
    pub clients: u64,
    /// Commands being worked on now.
    pub in_flight: u64,
    /// Sum of the file sizes of the newest version, bytes.
    pub size_bytes: u64,
    /// Counts the branch's lives: it grows by one at every wake.
    pub epoch: u64,
    /// How long the last wake took, if there was one since the server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<Wake>,
}

/// What `POST …/upgrade` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeBranch {
    /// The image to go on with: of the same release of MongoDB, or of the next major one.
    pub image: String,
    /// Whether the feature compatibility version becomes that of the new release: then its features
    /// can be used, and no older mongod opens the branch again. Not where absent.
    #[serde(default)]
    pub set_fcv: bool,
}

/// What `POST …/port` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenPort {
    /// The port; where absent, the one that the branch has, else a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1)]
    pub port: Option<NonZeroU16>,
}

/// Where a branch left another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Origin {
    /// Name of the branch it was made from; its id where that branch is purged.
    pub branch: String,
    /// The version it was made from.
    pub version: String,
}

/// What a branch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BranchState {
    /// No process; every byte is in its newest version.
    Suspended,
    /// A mongod is being started on it.
    Waking,
    /// A mongod serves it.
    Running,
    /// Its mongod stops, then its changes become a version.
    Suspending,
    /// No process, but this server's disk holds writes that no version has yet: they are saved
    /// again and again until that succeeds. `saving_since` says since when, `error` why it failed.
    Saving,
    /// This server's disk holds writes that cannot be read in full: nothing is done until somebody
    /// decides, by `POST …/recover`. `error` says what is damaged; the newest version is whole.
    Held,
    /// Deleted; it can be undeleted until it is purged.
    Deleted,
}

impl BranchState {
    /// The word in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Waking => "waking",
            Self::Running => "running",
            Self::Suspending => "suspending",
            Self::Saving => "saving",
            Self::Held => "held",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for BranchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which branches are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deleted {
    /// Live ones.
    #[default]
    Without,
    /// Deleted ones.
    Only,
}

/// What `POST /v1/projects/{project}/branches` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBranch {
    /// 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end.
    pub name: String,
    /// What it starts from; the project's base where absent.
    #[serde(default)]
    pub source: BranchSource,
    /// How long it may be idle before it is suspended; the server's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<IdleTimeout>,
    /// How often a version is made of it while it runs and changes; the server's default where
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_every: Option<SnapshotEvery>,
    /// How long it stands still, once it is idle, before it is suspended; the server's default where
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_warm: Option<KeepWarm>,
}

/// What `PATCH /v1/projects/{project}/branches/{branch}` takes: what is absent stays as it is, and
/// `null` is the server's default from now on (RFC 7396).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeBranch {
    /// How long it may be idle before it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<IdleTimeout>)]
    pub idle_timeout: Option<Option<IdleTimeout>>,
    /// How often a version is made of it while it runs and changes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<SnapshotEvery>)]
    pub snapshot_every: Option<Option<SnapshotEvery>>,
    /// How long it stands still, once it is idle, before it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<KeepWarm>)]
    pub keep_warm: Option<Option<KeepWarm>>,
}

/// A field that is there, be it `null`.
fn present<'de, T, D>(input: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(input).map(Some)
}

/// How far a suspend is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Its process has ended, and its state is safe on the server's disk; the upload goes on.
    #[default]
    Asleep,
    /// Its last writes are a version in the store.
    Saved,
}

/// What `POST …/recover` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverBranch {
    /// What becomes of the writes that are damaged.
    pub how: Recovery,
}

/// What becomes of the damaged writes of a branch that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// They are put aside on the server's disk; the branch goes on from its newest version.
    LastVersion,
    /// What can be read up to the damage becomes a new version.
    Salvage,
}

/// The URI of a branch, for a proxy that listens at `address` (`HOST:PORT`).
///
/// The `/` in the option's value is escaped, though RFC 3986 section 3.4 allows it in a query:
/// the Java driver 3.6 takes the last `/` of a URI for the one after the hosts. Names need no
/// escape by their own rule.
pub fn connection_uri(address: impl fmt::Display, project: &str, branch: &str) -> String {
    format!("mongodb://{address}/?appName=argon.{project}%2F{branch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_same_word_in_json_and_in_tables() {
        use BranchState::*;
        for state in [Suspended, Waking, Running, Suspending, Saving, Held, Deleted] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(format!("{:<9}|", Running), "running  |");
    }

    #[test]
    fn a_request_needs_a_name_only_and_refuses_what_it_does_not_know() {
        let read = |text| serde_json::from_str::<CreateBranch>(text);
        assert_eq!(
            read(r#"{"name":"dev"}"#).unwrap(),
            CreateBranch {
                name: "dev".into(),
                source: BranchSource::Base,
                idle_timeout: None,
                snapshot_every: None,
                keep_warm: None
            }
        );
        assert!(read(r#"{"name":"dev","idle_timout":"never"}"#).is_err());
        assert!(read(r#"{"source":"empty"}"#).is_err());
    }

    #[test]
    fn a_change_tells_what_is_absent_from_what_is_null() {
        let some = |text: &str| Some(Some(text.parse().unwrap()));
        for (text, idle_timeout, snapshot_every, keep_warm) in [
            ("{}", None, None, None),
            (r#"{"idle_timeout":null}"#, Some(None), None, None),
            (r#"{"snapshot_every":"off"}"#, None, Some(Some(SnapshotEvery::Off)), None),
            (r#"{"keep_warm":"off"}"#, None, None, Some(Some(KeepWarm::Off))),
            (
                r#"{"idle_timeout":{"after":{"ms":1000}},"snapshot_every":null,"keep_warm":null}"#,
                some("1s"),
                Some(None),
                Some(None),
            ),
        ] {
            let change = ChangeBranch { idle_timeout, snapshot_every, keep_warm };
            assert_eq!(serde_json::from_str::<ChangeBranch>(text).unwrap(), change);
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
        assert!(serde_json::from_str::<ChangeBranch>(r#"{"name":"x"}"#).is_err());
    }

    #[test]
    fn the_uri_names_the_branch() {
        let uri = connection_uri("127.0.0.1:27017", "shop", "dev");
        assert_eq!(uri, "mongodb://127.0.0.1:27017/?appName=argon.shop%2Fdev");
    }
}
