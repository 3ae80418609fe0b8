//! Routes of the base archive.

use argon_admin::types::{Base, Operation, OperationKind, OperationResult, Problem};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};

use super::error::ApiError;
use super::operations::Subject;
use super::state::{Accepted, App, Reply};
use super::upload::Upload;

/// Show the archive that new projects start from
#[utoipa::path(get, path = "/v1/base", tag = "base", responses(
    (status = 200, description = "The base", body = Base),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(app): State<App>) -> Reply<Base> {
    Ok(Json(app.branches.base().await?))
}

/// Make an archive what new projects start from; the request's body is the archive
#[utoipa::path(put, path = "/v1/base", tag = "base",
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "What `mongodump --archive` writes, with --gzip or without"),
    responses(
    (status = 202, description = "The archive is here, the work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn set(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Accepted, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse().ok());
    let limit = app.settings.archive_bytes_max;
    let path = app.branches.temporary_file();
    let upload = Upload::receive(path, body, announced, limit).await?;
    let branches = app.branches.clone();
    let subject = Subject {
        kind: OperationKind::SetBase,
        name: "base".to_owned(),
        progress: Box::new(|| None),
    };
    let work = async move {
        let base = branches.set_base(upload.path().to_owned()).await?;
        Ok(Some(OperationResult::Base(base)))
    };
    app.operations.start(subject, work).map(Accepted)
}
