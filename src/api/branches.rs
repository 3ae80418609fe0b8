//! Routes of branches.

use argon_admin::types::{
    self, Branch, ChangeBranch, CreateBranch, List, OpenPort, Operation, OperationKind,
    OperationResult, Problem, RecoverBranch, TakeSnapshot, Until, UpgradeBranch, Version,
    WakeTrace,
};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use super::projects::pulling;
use super::state::{Accepted, App, Reply};
use super::stream;
use crate::branch::Deleted;

/// What a list of branches may be asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Live branches, which is the default, or deleted ones.
    #[serde(default)]
    #[param(inline)]
    deleted: types::Deleted,
}

/// What a suspend may be asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SuspendQuery {
    /// When the operation ends: when the branch sleeps and its state is safe on the server's disk,
    /// which is the default, or when its last writes are in the store.
    #[serde(default)]
    #[param(inline)]
    until: Until,
}

/// A project's name and a branch's.
type Names = Path<(String, String)>;

/// List a project's branches by name, or its deleted ones by the time of their deletion
#[utoipa::path(get, path = "/v1/projects/{project}/branches", tag = "branches",
    params(("project" = String, Path, description = "Its name"), ListQuery),
    responses(
    (status = 200, description = "The branches", body = List<Branch>),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(app): State<App>,
    Path(project): Path<String>,
    Query(query): Query<ListQuery>,
) -> Reply<List<Branch>> {
    let deleted = match query.deleted {
        types::Deleted::Without => Deleted::Without,
        types::Deleted::Only => Deleted::Only,
    };
    Ok(Json(List { items: app.branches.list(&project, deleted)? }))
}

/// Create a branch
#[utoipa::path(post, path = "/v1/projects/{project}/branches", tag = "branches",
    params(("project" = String, Path, description = "Its project")),
    request_body = CreateBranch, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(app): State<App>,
    Path(project): Path<String>,
    Json(request): Json<CreateBranch>,
) -> Result<Accepted, ApiError> {
    let name = request.name.clone();
    app.begin(OperationKind::CreateBranch, project, name, async |branches, project, _| {
        branches.create(&project, request).await
    })
}

/// Show one branch
#[utoipa::path(get, path = "/v1/projects/{project}/branches/{branch}", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 200, description = "The branch", body = Branch),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(app): State<App>, Path((project, branch)): Names) -> Reply<Branch> {
    Ok(Json(app.branches.show(&project, &branch)?))
}

/// Show how a branch's last wakes went since the server started, the newest first
#[utoipa::path(get, path = "/v1/projects/{project}/branches/{branch}/wakes", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 200, description = "Each wake, step by step", body = List<WakeTrace>),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn wakes(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Reply<List<WakeTrace>> {
    Ok(Json(List { items: app.branches.wakes(&project, &branch)? }))
}

/// Change how long a branch may be idle, and how often a version is made of it
#[utoipa::path(patch, path = "/v1/projects/{project}/branches/{branch}", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    request_body = ChangeBranch, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change(
    State(app): State<App>,
    Path((project, branch)): Names,
    Json(change): Json<ChangeBranch>,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    let kind = OperationKind::ChangeBranch;
    app.begin(kind, project, branch, async move |branches, project, branch| {
        branches.change(&project, &branch, change).await
    })
}

/// Delete a branch; its last state becomes a version first
#[utoipa::path(delete, path = "/v1/projects/{project}/branches/{branch}", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    app.begin(OperationKind::DeleteBranch, project, branch, async |branches, project, branch| {
        branches.delete(&project, &branch).await
    })
}

/// Stop a branch's process and make its changes a version
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/suspend", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name"), SuspendQuery),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn suspend(
    State(app): State<App>,
    Path((project, branch)): Names,
    Query(SuspendQuery { until }): Query<SuspendQuery>,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    let kind = OperationKind::SuspendBranch;
    app.begin(kind, project, branch, async move |branches, project, branch| {
        branches.suspend(&project, &branch, until).await
    })
}

/// Decide about the damaged writes of a branch that is held
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/recover", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    request_body = RecoverBranch, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn recover(
    State(app): State<App>,
    Path((project, branch)): Names,
    Json(RecoverBranch { how }): Json<RecoverBranch>,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    let kind = OperationKind::RecoverBranch;
    app.begin(kind, project, branch, async move |branches, project, branch| {
        branches.recover(&project, &branch, how).await
    })
}

/// Start a branch's process
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/resume", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn resume(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    app.begin(OperationKind::ResumeBranch, project, branch, async |branches, project, branch| {
        branches.resume(&project, &branch).await
    })
}

/// Bring a deleted branch back
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/undelete", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its id, or its name for the one that was deleted last")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn undelete(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.begin(OperationKind::UndeleteBranch, project, branch, async |branches, project, branch| {
        branches.undelete(&project, &branch).await
    })
}

/// Give up a deleted branch for good
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/purge", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its id, or its name for the one that was deleted last")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn purge(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.begin(OperationKind::PurgeBranch, project, branch, async |branches, project, branch| {
        branches.purge(&project, &branch).await
    })
}

/// List a branch's versions, the oldest first
#[utoipa::path(get, path = "/v1/projects/{project}/branches/{branch}/versions", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 200, description = "The versions", body = List<Version>),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn versions(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Reply<List<Version>> {
    Ok(Json(List { items: app.branches.versions(&project, &branch)? }))
}

/// Make a version of what a branch is now; a branch that runs is suspended for it
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/snapshot", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    request_body = TakeSnapshot, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn snapshot(
    State(app): State<App>,
    Path((project, branch)): Names,
    Json(request): Json<TakeSnapshot>,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    let subject = app.of_branch(OperationKind::SnapshotBranch, &project, &branch);
    let branches = app.branches.clone();
    let work = async move {
        let version = branches.snapshot(&project, &branch, request.label.as_deref()).await?;
        Ok(Some(OperationResult::Version(version)))
    };
    app.operations.start(subject, work).map(Accepted)
}

/// Move a branch to another image, behind a snapshot of its present state
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/upgrade", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    request_body = UpgradeBranch, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn upgrade(
    State(app): State<App>,
    Path((project, branch)): Names,
    Json(request): Json<UpgradeBranch>,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    let name = format!("{project}/{branch}");
    let (subject, pulled) = pulling(OperationKind::UpgradeBranch, &name);
    let branches = app.branches.clone();
    let work = async move {
        let branch = branches.upgrade(&project, &branch, request, &pulled).await?;
        Ok(Some(OperationResult::Branch(Box::new(branch))))
    };
    app.operations.start(subject, work).map(Accepted)
}

/// Give a branch a port of its own, which stays over restarts
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/port", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    request_body = OpenPort, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn open_port(
    State(app): State<App>,
    Path((project, branch)): Names,
    Json(request): Json<OpenPort>,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    let port = request.port;
    app.begin(OperationKind::OpenDoor, project, branch, async move |branches, project, branch| {
        branches.open_port(&project, &branch, port).await
    })
}

/// Take a branch's own port away
#[utoipa::path(delete, path = "/v1/projects/{project}/branches/{branch}/port", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn close_port(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    app.begin(OperationKind::CloseDoor, project, branch, async |branches, project, branch| {
        branches.close_port(&project, &branch).await
    })
}

/// Give a branch a Unix socket of its own
#[utoipa::path(post, path = "/v1/projects/{project}/branches/{branch}/socket", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn open_socket(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    app.begin(OperationKind::OpenDoor, project, branch, async |branches, project, branch| {
        branches.open_socket(&project, &branch).await
    })
}

/// Take a branch's own Unix socket away
#[utoipa::path(delete, path = "/v1/projects/{project}/branches/{branch}/socket", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn close_socket(
    State(app): State<App>,
    Path((project, branch)): Names,
) -> Result<Accepted, ApiError> {
    app.branches.show(&project, &branch)?;
    app.begin(OperationKind::CloseDoor, project, branch, async |branches, project, branch| {
        branches.close_socket(&project, &branch).await
    })
}

/// Get an archive of a branch, as `mongodump --archive --gzip` writes; it wakes the branch
#[utoipa::path(get, path = "/v1/projects/{project}/branches/{branch}/dump", tag = "branches",
    params(("project" = String, Path, description = "Its project"), ("branch" = String, Path, description = "Its name")),
    responses(
    (status = 200, description = "The archive; a connection that is cut is one that failed",
     body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn dump(State(app): State<App>, Path((project, branch)): Names) -> Response {
    let (writer, sender, receiver) = stream::channel();
    app.operations.spawn(async move {
        if let Err(error) = app.branches.dump(&project, &branch, writer).await {
            tracing::warn!(project, branch, error = error.chain(), "a dump broke off");
            sender.fail(error.into()).await;
        }
    });
    receiver.into_response().await
}
