//! Long work that runs in the server and can be followed.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Base, Branch, Collected, Problem, Project, Scrubbed, Version};

/// A piece of long work. It goes on whether or not anybody follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// The operation's id.
    pub id: String,
    /// What is done.
    pub kind: OperationKind,
    /// What it is done to: `PROJECT`, `PROJECT/BRANCH`, a version's id, `base` or
    /// `store`.
    pub subject: String,
    /// How it stands.
    pub status: OperationStatus,
    /// Where it has got to, for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<OperationResult>,
    /// When it was begun.
    pub started_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Create a project, loading the base where that was not done yet.
    CreateProject,
    /// Delete a project without branches.
    DeleteProject,
    /// Create a branch.
    CreateBranch,
    /// Change settings of a branch.
    ChangeBranch,
    /// Make a branch's changes a version and stop its process.
    SuspendBranch,
    /// Start a branch's process.
    ResumeBranch,
    /// Decide about the damaged writes of a branch that is held.
    RecoverBranch,
    /// Delete a branch, its last state becoming a version first.
    DeleteBranch,
    /// Bring a deleted branch back.
    UndeleteBranch,
    /// Give up a deleted branch for good.
    PurgeBranch,
    /// Give a branch a port or a Unix socket of its own.
    OpenDoor,
    /// Take one away.
    CloseDoor,
    /// Make a version of a branch on request.
    SnapshotBranch,
    /// Move a branch to another image.
    UpgradeBranch,
    /// Keep a version for good.
    PinVersion,
    /// Let it go when its time comes.
    UnpinVersion,
    /// Set which versions and deleted branches a project keeps.
    SetRetention,
    /// Set which image a project's new branches begin with.
    SetImage,
    /// Set the archive that new projects start from.
    SetBase,
    /// Delete from the store what nothing needs.
    CollectGarbage,
    /// Verify all that the store holds.
    Scrub,
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// It is being worked on.
    Running,
    /// It ended well; `result` says with what.
    Succeeded,
    /// It failed; `error` says why.
    Failed,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationResult {
    /// The project as it is now.
    Project(Project),
    /// The branch as it is now.
    Branch(Box<Branch>),
    /// The version as it is now.
    Version(Version),
    /// The base as it is now.
    Base(Base),
    /// What garbage collection did.
    Collected(Collected),
    /// What a scrub found.
    Scrubbed(Scrubbed),
}

impl OperationKind {
    /// The words in JSON, with spaces: `create branch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateProject => "create project",
            Self::DeleteProject => "delete project",
            Self::CreateBranch => "create branch",
            Self::ChangeBranch => "change branch",
            Self::SuspendBranch => "suspend branch",
            Self::ResumeBranch => "resume branch",
            Self::RecoverBranch => "recover branch",
            Self::DeleteBranch => "delete branch",
            Self::UndeleteBranch => "undelete branch",
            Self::PurgeBranch => "purge branch",
            Self::OpenDoor => "open door",
            Self::CloseDoor => "close door",
            Self::SnapshotBranch => "snapshot branch",
            Self::UpgradeBranch => "upgrade branch",
            Self::PinVersion => "pin version",
            Self::UnpinVersion => "unpin version",
            Self::SetRetention => "set retention",
            Self::SetImage => "set image",
            Self::SetBase => "set base",
            Self::CollectGarbage => "collect garbage",
            Self::Scrub => "scrub",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for OperationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_people_are_the_words_in_json() {
        use OperationKind::*;
        for kind in [
            CreateProject,
            DeleteProject,
            CreateBranch,
            ChangeBranch,
            SuspendBranch,
            ResumeBranch,
            RecoverBranch,
            DeleteBranch,
            UndeleteBranch,
            PurgeBranch,
            OpenDoor,
            CloseDoor,
            SnapshotBranch,
            UpgradeBranch,
            PinVersion,
            UnpinVersion,
            SetRetention,
            SetImage,
            SetBase,
            CollectGarbage,
            Scrub,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str().replace(' ', "_"));
        }
        use OperationStatus::*;
        for status in [Running, Succeeded, Failed] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.to_string());
        }
    }
}
