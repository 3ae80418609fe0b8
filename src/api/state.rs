//! What the handlers share, and the answer to a request for long work.

use std::sync::Arc;

use argon_admin::types::{Branch, Operation, OperationKind, OperationResult};
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::error::ApiError;
use super::operations::{Operations, Subject};
use crate::base::clock::Timestamp;
use crate::branch::{BranchError, Branches};

/// What the handlers share.
#[derive(Clone)]
pub(super) struct App {
    pub(super) branches: Branches,
    pub(super) operations: Operations,
    pub(super) settings: Arc<Settings>,
    pub(super) started: Timestamp,
    /// The server is about to end: work that may take hours is given up.
    pub(super) closing: CancellationToken,
}

/// The answer of a handler that answers with data.
pub(super) type Reply<T> = Result<Json<T>, ApiError>;

/// 202: the work has begun, and here it can be followed (RFC 9110 section 15.3.3).
pub(super) struct Accepted(pub(super) Operation);

impl App {
    pub(super) fn new(
        branches: Branches,
        settings: Settings,
        operations: Operations,
        closing: CancellationToken,
    ) -> Self {
        let started = settings.clock.now();
        Self { branches, operations, settings: Arc::new(settings), started, closing }
    }

    /// Begins long work on a branch, which need not exist yet.
    pub(super) fn begin<F>(
        &self,
        kind: OperationKind,
        project: String,
        branch: String,
        work: impl FnOnce(Branches, String, String) -> F,
    ) -> Result<Accepted, ApiError>
    where
        F: Future<Output = Result<Branch, BranchError>> + Send + 'static,
    {
        let subject = self.of_branch(kind, &project, &branch);
        let working = work(self.branches.clone(), project, branch);
        let outcome = async move { Ok(Some(OperationResult::Branch(Box::new(working.await?)))) };
        self.operations.start(subject, outcome).map(Accepted)
    }

    /// Work on a branch, as those see it who follow it.
    pub(super) fn of_branch(&self, kind: OperationKind, project: &str, branch: &str) -> Subject {
        let looked = (self.branches.clone(), project.to_owned(), branch.to_owned());
        Subject {
            kind,
            name: format!("{project}/{branch}"),
            progress: Box::new(move || {
                let (branches, project, branch) = &looked;
                branches.show(project, branch).ok().map(|branch| branch.state.to_string())
            }),
        }
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let location = format!("/v1/operations/{}", self.0.id);
        (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(self.0)).into_response()
    }
}
