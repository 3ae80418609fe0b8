//! Routes of projects.

use argon_admin::types::{
    CreateProject, Leaving, List, Operation, OperationKind, OperationResult, Problem, Project,
    Retention, SetImage,
};
use axum::Json;
use axum::extract::{Path, State};
use tokio::sync::watch;

use super::error::ApiError;
use super::operations::Subject;
use super::state::{Accepted, App, Reply};
use crate::compute::PullProgress;

/// List the projects, by name
#[utoipa::path(get, path = "/v1/projects", tag = "projects", responses(
    (status = 200, description = "The projects", body = List<Project>),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(app): State<App>) -> Json<List<Project>> {
    Json(List { items: app.branches.projects() })
}

/// Create a project, which loads the base where that was not done yet
#[utoipa::path(post, path = "/v1/projects", tag = "projects", request_body = CreateProject, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(app): State<App>,
    Json(request): Json<CreateProject>,
) -> Result<Accepted, ApiError> {
    let branches = app.branches.clone();
    let (subject, pulled) = pulling(OperationKind::CreateProject, &request.name);
    let work = async move {
        let CreateProject { name, image } = request;
        let project = branches.create_project(&name, image, &pulled).await?;
        Ok(Some(OperationResult::Project(project)))
    };
    app.operations.start(subject, work).map(Accepted)
}

/// Delete a project that has no live branches, its deleted ones with it
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "Its name")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(app): State<App>,
    Path(project): Path<String>,
) -> Result<Accepted, ApiError> {
    let branches = app.branches.clone();
    let subject = subject(OperationKind::DeleteProject, &project);
    let work = async move {
        branches.delete_project(&project).await?;
        Ok(None)
    };
    app.operations.start(subject, work).map(Accepted)
}

/// Set which versions and deleted branches a project keeps; a rule that is absent keeps all, for ever
#[utoipa::path(put, path = "/v1/projects/{project}/retention", tag = "projects",
    params(("project" = String, Path, description = "Its name")),
    request_body = Retention, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn set_retention(
    State(app): State<App>,
    Path(project): Path<String>,
    Json(rules): Json<Retention>,
) -> Result<Accepted, ApiError> {
    let branches = app.branches.clone();
    let subject = subject(OperationKind::SetRetention, &project);
    let work = async move {
        let project = branches.set_retention(&project, rules).await?;
        Ok(Some(OperationResult::Project(project)))
    };
    app.operations.start(subject, work).map(Accepted)
}

/// Set which image a project's new branches begin with; the server's where none is given
#[utoipa::path(put, path = "/v1/projects/{project}/image", tag = "projects",
    params(("project" = String, Path, description = "Its name")),
    request_body = SetImage, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn set_image(
    State(app): State<App>,
    Path(project): Path<String>,
    Json(request): Json<SetImage>,
) -> Result<Accepted, ApiError> {
    let branches = app.branches.clone();
    let (subject, pulled) = pulling(OperationKind::SetImage, &project);
    let work = async move {
        let project = branches.set_image(&project, request.image, &pulled).await?;
        Ok(Some(OperationResult::Project(project)))
    };
    app.operations.start(subject, work).map(Accepted)
}

/// List what such rules would let go of now; nothing is changed
#[utoipa::path(post, path = "/v1/projects/{project}/retention/preview", tag = "projects",
    params(("project" = String, Path, description = "Its name")),
    request_body = Retention, responses(
    (status = 200, description = "Versions, and deleted branches as a whole", body = List<Leaving>),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn preview_retention(
    State(app): State<App>,
    Path(project): Path<String>,
    Json(rules): Json<Retention>,
) -> Reply<List<Leaving>> {
    Ok(Json(List { items: app.branches.preview_retention(&project, rules)? }))
}

fn subject(kind: OperationKind, project: &str) -> Subject {
    Subject { kind, name: project.to_owned(), progress: Box::new(|| None) }
}

/// Work that may have to pull an image, and who is to be told how far that is.
pub(super) fn pulling(
    kind: OperationKind,
    name: &str,
) -> (Subject, impl Fn(PullProgress) + Send + Sync + 'static) {
    let (told, seen) = watch::channel(None);
    let progress = Box::new(move || {
        let PullProgress { bytes, of } = (*seen.borrow())?;
        Some(format!("pulling the image: {} of {} MB", bytes / 1_000_000, of.div_ceil(1_000_000)))
    });
    let subject = Subject { kind, name: name.to_owned(), progress };
    (subject, move |so_far| {
        told.send_replace(Some(so_far));
    })
}
