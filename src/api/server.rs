//! Routes of the server itself: its operations and how it stands.

use std::time::Duration;

use argon_admin::types::{List, Operation, Problem, Status};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;

use super::state::{App, Reply};

/// How an operation may be asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowQuery {
    /// Answer when the operation has ended, or after this many milliseconds; at most a minute.
    #[serde(default)]
    wait_ms: u64,
}

/// List the operations that the server remembers, the newest first
#[utoipa::path(get, path = "/v1/operations", tag = "operations", responses(
    (status = 200, description = "The operations", body = List<Operation>),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn operations(State(app): State<App>) -> Json<List<Operation>> {
    Json(List { items: app.operations.list() })
}

/// Show one operation, at once or when it has ended
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path, description = "Its id"), FollowQuery),
    responses(
    (status = 200, description = "The operation, whether it succeeded or not", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn operation(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<FollowQuery>,
) -> Reply<Operation> {
    Ok(Json(app.operations.get(&id, Duration::from_millis(query.wait_ms)).await?))
}

/// Show how the server stands
#[utoipa::path(get, path = "/v1/status", tag = "server", responses(
    (status = 200, description = "How it stands", body = Status),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn status(State(app): State<App>) -> Json<Status> {
    let settings = &app.settings;
    let (projects, branches) = app.branches.counts();
    let (compute, store) = app.branches.describe();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: settings.clock.now().unix_ms().saturating_sub(app.started.unix_ms()),
        mongod: settings.mongod.clone(),
        parked: app.branches.parked(),
        compute,
        store,
        data_dir: settings.data_dir.display().to_string(),
        listen: settings.listen.to_string(),
        projects,
        branches,
        connections: (settings.connections)(),
    })
}

/// Counters and histograms, in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "server", responses(
    (status = 200, description = "All of them; docs/metrics.md says what they mean",
     body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let text = app.settings.metrics.text(&app.branches.observed());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
