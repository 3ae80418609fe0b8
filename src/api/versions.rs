//! Routes of versions, which are named by their ids alone.

use argon_admin::types::{Operation, OperationKind, OperationResult, Problem, Version};
use axum::extract::{Path, State};

use super::error::ApiError;
use super::operations::Subject;
use super::state::{Accepted, App};
use crate::branch::BranchError;

/// Keep a version for good
#[utoipa::path(post, path = "/v1/versions/{version}/pin", tag = "versions",
    params(("version" = String, Path, description = "Its id")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn pin(
    State(app): State<App>,
    Path(version): Path<String>,
) -> Result<Accepted, ApiError> {
    let (branches, id) = (app.branches.clone(), version.clone());
    begin(&app, OperationKind::PinVersion, version, async move { branches.pin(&id).await })
}

/// Let a version go when its time comes
#[utoipa::path(delete, path = "/v1/versions/{version}/pin", tag = "versions",
    params(("version" = String, Path, description = "Its id")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn unpin(
    State(app): State<App>,
    Path(version): Path<String>,
) -> Result<Accepted, ApiError> {
    let (branches, id) = (app.branches.clone(), version.clone());
    begin(&app, OperationKind::UnpinVersion, version, async move { branches.unpin(&id).await })
}

fn begin(
    app: &App,
    kind: OperationKind,
    version: String,
    work: impl Future<Output = Result<Version, BranchError>> + Send + 'static,
) -> Result<Accepted, ApiError> {
    let subject = Subject { kind, name: version, progress: Box::new(|| None) };
    let outcome = async move { Ok(Some(OperationResult::Version(work.await?))) };
    app.operations.start(subject, outcome).map(Accepted)
}
