//! A blocking HTTP client of the admin API.
//!
//! Job: one typed method per route, and following long work. Not its job: words for people; the
//! command line has those.
//! Invariant: every failure is a [`ClientError`], whatever answers at the address.

mod address;
mod error;
mod http;

use std::io::Read;

use crate::types::{
    Base, Branch, ChangeBranch, CollectGarbage, CreateBranch, CreateProject, Deleted, Leaving,
    List, OpenPort, Operation, OperationStatus, Project, RecoverBranch, Retention, SetImage,
    Status, TakeSnapshot, Until, UpgradeBranch, Version, WakeTrace,
};
use address::segment;
use http::Http;

pub use address::{InvalidServer, Server};
pub use error::ClientError;

/// How long one request for an operation waits in the server for a change, milliseconds.
const FOLLOW_WAIT_MS: u64 = 10_000;

/// The same where its progress is shown.
const WATCH_WAIT_MS: u64 = 1_000;

/// A client of one server. Connections are kept and used again.
#[derive(Debug)]
pub struct Client {
    http: Http,
}

/// A way in that is one branch's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Its port.
    Port,
    /// Its Unix socket.
    Socket,
}

/// A step that a branch takes on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop its process and make its changes a version; this says what is waited for.
    Suspend(Until),
    /// Start its process.
    Resume,
    /// Bring it back.
    Undelete,
    /// Give it up for good.
    Purge,
}

impl Client {
    /// A client of the server at `server`; nothing is sent yet.
    pub fn new(server: Server) -> Self {
        Self { http: Http::new(server) }
    }

    /// The server's address.
    pub fn server(&self) -> &Server {
        self.http.server()
    }

    /// Every project, by name.
    pub fn projects(&self) -> Result<Vec<Project>, ClientError> {
        self.http.get::<List<_>>("/v1/projects").map(|list| list.items)
    }

    /// Begins to create a project.
    pub fn create_project(&self, project: &CreateProject) -> Result<Operation, ClientError> {
        self.http.post("/v1/projects", project)
    }

    /// Begins to delete a project.
    pub fn delete_project(&self, project: &str) -> Result<Operation, ClientError> {
        self.http.delete(&format!("/v1/projects/{}", segment(project)))
    }

    /// Begins to set which versions and deleted branches a project keeps.
    pub fn set_retention(
        &self,
        project: &str,
        rules: &Retention,
    ) -> Result<Operation, ClientError> {
        self.http.put(&format!("/v1/projects/{}/retention", segment(project)), rules)
    }

    /// Begins to set which image a project's new branches begin with.
    pub fn set_image(&self, project: &str, image: &SetImage) -> Result<Operation, ClientError> {
        self.http.put(&format!("/v1/projects/{}/image", segment(project)), image)
    }

    /// What such rules would let go now.
    pub fn preview_retention(
        &self,
        project: &str,
        rules: &Retention,
    ) -> Result<Vec<Leaving>, ClientError> {
        let path = format!("/v1/projects/{}/retention/preview", segment(project));
        self.http.post::<List<_>>(&path, rules).map(|list| list.items)
    }

    /// A project's branches.
    pub fn branches(&self, project: &str, deleted: Deleted) -> Result<Vec<Branch>, ClientError> {
        let query = match deleted {
            Deleted::Without => "",
            Deleted::Only => "?deleted=only",
        };
        let path = format!("/v1/projects/{}/branches{query}", segment(project));
        self.http.get::<List<_>>(&path).map(|list| list.items)
    }

    /// Begins to create a branch.
    pub fn create_branch(
        &self,
        project: &str,
        branch: &CreateBranch,
    ) -> Result<Operation, ClientError> {
        self.http.post(&format!("/v1/projects/{}/branches", segment(project)), branch)
    }

    /// One branch.
    pub fn branch(&self, project: &str, branch: &str) -> Result<Branch, ClientError> {
        self.http.get(&branch_path(project, branch))
    }

    /// Begins to change settings of a branch.
    pub fn change_branch(
        &self,
        project: &str,
        branch: &str,
        change: &ChangeBranch,
    ) -> Result<Operation, ClientError> {
        self.http.patch(&branch_path(project, branch), change)
    }

    /// Begins to delete a branch.
    pub fn delete_branch(&self, project: &str, branch: &str) -> Result<Operation, ClientError> {
        self.http.delete(&branch_path(project, branch))
    }

    /// Begins another step of a branch.
    pub fn step(&self, project: &str, branch: &str, step: Step) -> Result<Operation, ClientError> {
        let word = match step {
            Step::Suspend(Until::Asleep) => "suspend",
            Step::Suspend(Until::Saved) => "suspend?until=saved",
            Step::Resume => "resume",
            Step::Undelete => "undelete",
            Step::Purge => "purge",
        };
        self.http.post_empty(&format!("{}/{word}", branch_path(project, branch)))
    }

    /// Begins to decide about the damaged writes of a branch that is held.
    pub fn recover(
        &self,
        project: &str,
        branch: &str,
        how: &RecoverBranch,
    ) -> Result<Operation, ClientError> {
        self.http.post(&format!("{}/recover", branch_path(project, branch)), how)
    }

    /// Begins to move a branch to another image.
    pub fn upgrade(
        &self,
        project: &str,
        branch: &str,
        to: &UpgradeBranch,
    ) -> Result<Operation, ClientError> {
        self.http.post(&format!("{}/upgrade", branch_path(project, branch)), to)
    }

    /// Begins to give a branch a port of its own.
    pub fn open_port(
        &self,
        project: &str,
        branch: &str,
        port: &OpenPort,
    ) -> Result<Operation, ClientError> {
        self.http.post(&format!("{}/port", branch_path(project, branch)), port)
    }

    /// Begins to give a branch a Unix socket of its own.
    pub fn open_socket(&self, project: &str, branch: &str) -> Result<Operation, ClientError> {
        self.http.post_empty(&format!("{}/socket", branch_path(project, branch)))
    }

    /// Begins to take a branch's port or socket away.
    pub fn close_door(
        &self,
        project: &str,
        branch: &str,
        door: Door,
    ) -> Result<Operation, ClientError> {
        let word = match door {
            Door::Port => "port",
            Door::Socket => "socket",
        };
        self.http.delete(&format!("{}/{word}", branch_path(project, branch)))
    }

    /// A branch's versions, the oldest first.
    pub fn versions(&self, project: &str, branch: &str) -> Result<Vec<Version>, ClientError> {
        let path = format!("{}/versions", branch_path(project, branch));
        self.http.get::<List<_>>(&path).map(|list| list.items)
    }

    /// How a branch's last wakes went, the newest first.
    pub fn wakes(&self, project: &str, branch: &str) -> Result<Vec<WakeTrace>, ClientError> {
        let path = format!("{}/wakes", branch_path(project, branch));
        self.http.get::<List<_>>(&path).map(|list| list.items)
    }

    /// Begins to make a version of what a branch is now.
    pub fn snapshot(
        &self,
        project: &str,
        branch: &str,
        snapshot: &TakeSnapshot,
    ) -> Result<Operation, ClientError> {
        self.http.post(&format!("{}/snapshot", branch_path(project, branch)), snapshot)
    }

    /// Begins to pin a version.
    pub fn pin(&self, version: &str) -> Result<Operation, ClientError> {
        self.http.post_empty(&format!("/v1/versions/{}/pin", segment(version)))
    }

    /// Begins to unpin a version.
    pub fn unpin(&self, version: &str) -> Result<Operation, ClientError> {
        self.http.delete(&format!("/v1/versions/{}/pin", segment(version)))
    }

    /// An archive of a branch, as it arrives; a cut connection is an error of the reader.
    pub fn dump(&self, project: &str, branch: &str) -> Result<impl Read + use<>, ClientError> {
        self.http.download(&format!("{}/dump", branch_path(project, branch)))
    }

    /// The base archive.
    pub fn base(&self) -> Result<Base, ClientError> {
        self.http.get("/v1/base")
    }

    /// Sends an archive of `bytes` bytes and begins to make it the base.
    pub fn set_base(&self, mut archive: impl Read, bytes: u64) -> Result<Operation, ClientError> {
        self.http.upload("/v1/base", &mut archive, bytes)
    }

    /// Begins to collect garbage.
    pub fn collect_garbage(&self, how: CollectGarbage) -> Result<Operation, ClientError> {
        self.http.post("/v1/gc", &how)
    }

    /// Begins to verify all that the store holds.
    pub fn scrub(&self) -> Result<Operation, ClientError> {
        self.http.post_empty("/v1/scrub")
    }

    /// Operations that the server remembers, the newest first.
    pub fn operations(&self) -> Result<Vec<Operation>, ClientError> {
        self.http.get::<List<_>>("/v1/operations").map(|list| list.items)
    }

    /// One operation.
    pub fn operation(&self, id: &str) -> Result<Operation, ClientError> {
        self.http.get(&format!("/v1/operations/{}", segment(id)))
    }

    /// Waits until an operation has ended; `Ok` is one that succeeded.
    pub fn follow(&self, operation: Operation) -> Result<Operation, ClientError> {
        self.wait(operation, FOLLOW_WAIT_MS, |_| {})
    }

    /// The same, and tells every second how far it has got.
    pub fn watch(
        &self,
        operation: Operation,
        tell: impl FnMut(&Operation),
    ) -> Result<Operation, ClientError> {
        self.wait(operation, WATCH_WAIT_MS, tell)
    }

    fn wait(
        &self,
        mut operation: Operation,
        wait_ms: u64,
        mut tell: impl FnMut(&Operation),
    ) -> Result<Operation, ClientError> {
        while operation.status == OperationStatus::Running {
            let id = segment(&operation.id);
            let path = format!("/v1/operations/{id}?wait_ms={wait_ms}");
            operation = self.http.get(&path)?;
            tell(&operation);
        }
        match operation.error {
            Some(problem) => Err(ClientError::Problem(Box::new(problem))),
            None => Ok(operation),
        }
    }

    /// How the server stands.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.http.get("/v1/status")
    }
}

fn branch_path(project: &str, branch: &str) -> String {
    format!("/v1/projects/{}/branches/{}", segment(project), segment(branch))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
