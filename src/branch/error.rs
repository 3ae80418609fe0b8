//! What can go wrong with a branch, and what each kind of asker is told.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use argon_admin::types::{InvalidLabel, Label};
use thiserror::Error;

use super::order::Refusal;
use super::state::IllegalTransition;
use crate::archive::ArchiveError;
use crate::base::clock::InvalidTimestamp;
use crate::base::ids::{InvalidId, ServerId, VersionId};
use crate::base::name::{InvalidName, Name};
use crate::catalog::CatalogError;
use crate::compute::ComputeError;
use crate::mount::MountError;
use crate::store::StoreError;
use crate::volume::VolumeError;
use crate::wire::WireError;

/// Why something could not be done with a branch or project. Cheap to clone: one failed wake is
/// the answer to everybody who waited for it.
#[derive(Clone, Debug, Error)]
#[expect(missing_docs, reason = "the fields are named for what the messages call them")]
pub enum BranchError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("there is no project `{project}`")]
    UnknownProject { project: String },
    #[error("there is no project yet")]
    NoProject,
    #[error("no project is named, and there are several: {choices}")]
    WhichProject { choices: String },
    #[error("there is a project `{project}` already")]
    ProjectExists { project: Name },
    #[error("project `{project}` still has branches: {branches}")]
    ProjectNotEmpty { project: Name, branches: String },
    #[error("there is no branch `{branch}` in project `{project}`")]
    UnknownBranch { project: Name, branch: String },
    #[error("there is a branch `{branch}` in project `{project}` already")]
    BranchExists { project: Name, branch: Name },
    #[error("upgrade branch `{branch}`: {refusal}")]
    NoUpgrade { branch: Name, refusal: Refusal },
    #[error("upgrade branch `{branch}` to {image}: it is as it was")]
    Upgrade { branch: Name, image: String, source: Arc<BranchError> },
    #[error("the last mongod of branch `{branch}` was not stopped cleanly")]
    NotClean { branch: Name },
    #[error("its mongod did not stop cleanly: {how}")]
    Unclean { how: String },
    #[error("another server has moved branch `{branch}` meanwhile")]
    MovedElsewhere { branch: Name },
    #[error("the archive that project `{project}` starts from is no longer the store's")]
    OtherBase { project: Name },
    #[error("branch `{branch}` was deleted")]
    Deleted { branch: Name },
    #[error("branch `{branch}` is not deleted")]
    NotDeleted { branch: Name },
    #[error("branch `{branch}` is held, nothing is done with it until somebody decides: {reason}")]
    Held { branch: Name, reason: String },
    #[error("branch `{branch}` is not held")]
    NotHeld { branch: Name },
    #[error("`{version}` is no version of branch `{branch}`")]
    UnknownVersion { branch: Name, version: String },
    #[error("there is no version `{version}`")]
    NoVersion { version: String },
    #[error("branch `{branch}` had no version yet at {time}; its first is of {first}")]
    BeforeFirstVersion { branch: Name, time: String, first: String },
    #[error("a branch keeps one version at least")]
    KeepNone,
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    #[error("version {version} of branch `{branch}` is called `{label}` already")]
    LabelTaken { branch: Name, label: Label, version: VersionId },
    #[error(transparent)]
    Time(#[from] InvalidTimestamp),
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("branch `{branch}` did not wake in {waited:?}")]
    WakeTimeout { branch: Name, waited: Duration },
    #[error(
        "{commands} commands wait for branch `{branch}` already, {bytes} bytes of them in memory"
    )]
    Crowded { branch: Name, commands: usize, bytes: usize },
    #[error(
        "{free} bytes are free on the disk of {}, and branches are woken from {least} on",
        path.display()
    )]
    LowDisk { path: PathBuf, free: u64, least: u64 },
    #[error("wake branch `{branch}`")]
    Wake { branch: Name, source: Arc<BranchError> },
    #[error("save branch `{branch}`: its writes are kept in {}", kept.display())]
    Save { branch: Name, kept: PathBuf, source: Arc<BranchError> },
    #[error("change branch `{branch}` in the store: it is as it was")]
    Head { branch: Name, source: Arc<BranchError> },
    #[error("branch `{branch}` is held by server {owner}{}", at(address.as_deref()))]
    Elsewhere { branch: Name, owner: ServerId, address: Option<String>, left: Duration },
    #[error(
        "branch `{branch}` was lost to {winner}: what it had not saved is in branch `{rescued}`"
    )]
    Lost { branch: Name, winner: String, rescued: Name },
    #[error("branch `{branch}` cannot be answered for: this server's lease has ended")]
    Lapsed { branch: Name },
    #[error("another process at {address} has this server's id")]
    SameServer { address: String },
    #[error("this volume was written by MongoDB {volume}, and this server runs {server}")]
    MongodVersion { volume: String, image: Option<String>, server: String },
    #[error("branch `{branch}` has {max} connections that use it, as many as it may")]
    TooManyClients { branch: Name, max: usize },
    #[error("listen on {address} for branch `{branch}`")]
    Listen { branch: Name, address: String, source: Arc<io::Error> },
    #[error("listen for branch `{branch}`: the path {} is longer than a socket's may be", path.display())]
    SocketPath { branch: Name, path: PathBuf },
    #[error("the server is shutting down")]
    Closing,
    #[error("{doing} {}", path.display())]
    Local { doing: &'static str, path: PathBuf, source: Arc<io::Error> },
    #[error("load the base archive")]
    Base { source: Arc<ArchiveError> },
    #[error("dump branch `{branch}`")]
    Dump { branch: Name, source: Arc<ArchiveError> },
    #[error("use mongod")]
    Mongod { source: Arc<WireError> },
    #[error("run mongod")]
    Compute { source: Arc<ComputeError> },
    #[error("use the volume")]
    Volume { source: Arc<VolumeError> },
    #[error("mount the volume")]
    Mount { source: Arc<MountError> },
    #[error("use the store")]
    Store { source: Arc<StoreError> },
    #[error("use the catalog")]
    Catalog { source: Arc<CatalogError> },
    #[error(
        "the catalog has {projects} projects and {branches} branches: it is not rebuilt over them"
    )]
    CatalogNotEmpty { projects: u64, branches: u64 },
    #[error("the catalog of this data directory was lost: it is empty, and {store} has branches")]
    CatalogLost { store: String },
    #[error("there is nothing to rebuild from: {store} has no project and no branch")]
    StoreEmpty { store: String },
    #[error("some of the store cannot be read: {}", problems.join("; "))]
    StoreDamaged { problems: Vec<String> },
    #[error("a defect in Argon")]
    Lifecycle { source: IllegalTransition },
}

/// What a client of the admin API is told: a stable code and an HTTP status (RFC 9110).
struct Class {
    code: &'static str,
    status: u16,
}

impl BranchError {
    pub(super) fn local(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Local { doing, path: path.into(), source: Arc::new(source) }
    }

    fn class(&self) -> Class {
        let (code, status) = match self {
            Self::Name(_) => ("invalid_name", 422),
            Self::UnknownProject { .. } => ("unknown_project", 404),
            Self::NoProject => ("no_project", 404),
            Self::WhichProject { .. } => ("which_project", 422),
            Self::ProjectExists { .. } => ("project_exists", 409),
            Self::ProjectNotEmpty { .. } => ("project_not_empty", 409),
            Self::OtherBase { .. } => ("other_base", 409),
            Self::NoUpgrade { .. } => ("no_upgrade", 409),
            Self::Upgrade { .. } | Self::NotClean { .. } | Self::Unclean { .. } => {
                ("upgrade_failed", 500)
            }
            Self::MovedElsewhere { .. } => ("branch_elsewhere", 503),
            Self::UnknownBranch { .. } => ("unknown_branch", 404),
            Self::BranchExists { .. } => ("branch_exists", 409),
            Self::Deleted { .. } => ("branch_deleted", 409),
            Self::NotDeleted { .. } => ("branch_not_deleted", 409),
            Self::Held { .. } => ("branch_held", 409),
            Self::NotHeld { .. } => ("branch_not_held", 409),
            Self::UnknownVersion { .. } | Self::NoVersion { .. } => ("unknown_version", 404),
            Self::BeforeFirstVersion { .. } => ("before_first_version", 409),
            Self::KeepNone => ("invalid_retention", 422),
            Self::Label(_) => ("invalid_label", 422),
            Self::LabelTaken { .. } => ("label_taken", 409),
            Self::Time(_) => ("invalid_time", 422),
            Self::Id(_) => ("invalid_id", 422),
            Self::WakeTimeout { .. } => ("wake_timeout", 503),
            Self::Crowded { .. } => ("too_many_waiting", 503),
            Self::LowDisk { .. } => ("low_disk", 503),
            Self::Wake { source, .. } if matches!(**source, Self::LowDisk { .. }) => {
                return source.class();
            }
            Self::Wake { .. } => ("wake_failed", 503),
            Self::Save { .. } | Self::Head { .. } => ("save_failed", 503),
            Self::Elsewhere { .. } => ("branch_elsewhere", 503),
            Self::Lost { .. } => ("branch_lost", 503),
            Self::Lapsed { .. } => ("lease_ended", 503),
            Self::SameServer { .. } => ("same_server", 409),
            Self::MongodVersion { .. } => ("mongod_version", 409),
            Self::TooManyClients { .. } => ("too_many_clients", 503),
            Self::Listen { .. } => ("listen_failed", 409),
            Self::SocketPath { .. } => ("socket_path_too_long", 409),
            Self::Closing => ("shutting_down", 503),
            Self::Base { source } if source.is_damage() => ("invalid_archive", 422),
            Self::Base { .. } => ("base_failed", 500),
            Self::Dump { .. } => ("dump_failed", 500),
            Self::Local { .. } | Self::Mount { .. } => ("local_disk", 500),
            Self::Compute { source } if source.is_refusal() => ("image_unusable", 422),
            Self::Mongod { .. } | Self::Compute { .. } => ("mongod_failed", 500),
            Self::Volume { source } => match &**source {
                VolumeError::OtherCollector => ("gc_elsewhere", 503),
                VolumeError::Condemned { .. } => ("version_given_up", 409),
                error if error.is_damage() => ("store_damaged", 500),
                _ => ("store_failed", 500),
            },
            Self::Store { .. } | Self::StoreEmpty { .. } => ("store_failed", 500),
            Self::StoreDamaged { .. } => ("store_damaged", 500),
            Self::Catalog { .. } | Self::CatalogNotEmpty { .. } | Self::CatalogLost { .. } => {
                ("catalog_failed", 500)
            }
            Self::Lifecycle { .. } => ("internal", 500),
        };
        Class { code, status }
    }

    /// A stable word for programs, as in `docs/api.md`.
    pub fn code(&self) -> &'static str {
        self.class().code
    }

    /// The HTTP status that fits.
    pub fn http_status(&self) -> u16 {
        self.class().status
    }

    /// Whether all that is wrong is that another server has the branch.
    pub(super) fn is_elsewhere(&self) -> bool {
        match self {
            Self::Wake { source, .. } => source.is_elsewhere(),
            Self::Elsewhere { .. } => true,
            _ => false,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Wake { source, .. } | Self::Save { source, .. } | Self::Head { source, .. } => {
                source.retryable()
            }
            Self::MongodVersion { .. }
            | Self::Held { .. }
            | Self::CatalogNotEmpty { .. }
            | Self::CatalogLost { .. }
            | Self::StoreEmpty { .. }
            | Self::StoreDamaged { .. } => false,
            Self::Volume { source } if source.is_damage() => false,
            other => other.http_status() >= 500,
        }
    }

    /// Whether the store has lost or damaged what is needed.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Volume { source } if source.is_damage())
    }

    /// Whether writes that are on this machine alone cannot be read in full.
    pub(super) fn is_local_damage(&self) -> bool {
        match self {
            Self::Wake { source, .. } | Self::Save { source, .. } => source.is_local_damage(),
            Self::Mount { source } => source.is_damage(),
            _ => false,
        }
    }

    /// Whether another server has moved the branch's head.
    pub(super) fn is_fenced(&self) -> bool {
        match self {
            Self::Save { source, .. } => source.is_fenced(),
            Self::Volume { source } => matches!(**source, VolumeError::Fenced { .. }),
            _ => false,
        }
    }

    /// Whether a full disk or bucket is behind it.
    pub(super) fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let full =
                |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if error.downcast_ref::<io::Error>().is_some_and(|error| full(error.kind())) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The error and its causes on one line, as users read it.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

fn at(address: Option<&str>) -> String {
    address.map_or_else(String::new, |address| format!(" at {address}"))
}

/// An error and its causes on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

macro_rules! wrap {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for BranchError {
            fn from(source: $source) -> Self {
                Self::$variant { source: Arc::new(source) }
            }
        }
    )*};
}

wrap! {
    WireError => Mongod,
    ComputeError => Compute,
    VolumeError => Volume,
    MountError => Mount,
    StoreError => Store,
    CatalogError => Catalog,
}
