//! The router: every route with its place in the OpenAPI document, and the layers around them.

use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::guard::{self, Reach};
use super::state::App;
use super::{base, branches, garbage, problems, projects, server, versions};

/// The largest request but an archive, bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

#[derive(OpenApi)]
#[openapi(info(
    title = "Argon admin API",
    description = "Projects, branches and versions of an Argon server. Changes answer 202 with an \
                   operation that can be followed; failures are problem documents (RFC 9457)."
))]
struct Document;

pub(super) fn router(app: App, reach: Reach) -> Router {
    let (routes, document) = OpenApiRouter::<App>::with_openapi(Document::openapi())
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::delete))
        .routes(routes!(projects::set_retention))
        .routes(routes!(projects::set_image))
        .routes(routes!(projects::preview_retention))
        .routes(routes!(branches::list, branches::create))
        .routes(routes!(branches::show, branches::change, branches::delete))
        .routes(routes!(branches::suspend))
        .routes(routes!(branches::resume))
        .routes(routes!(branches::recover))
        .routes(routes!(branches::undelete))
        .routes(routes!(branches::purge))
        .routes(routes!(branches::versions))
        .routes(routes!(branches::wakes))
        .routes(routes!(branches::snapshot))
        .routes(routes!(branches::upgrade))
        .routes(routes!(versions::pin, versions::unpin))
        .routes(routes!(branches::open_port, branches::close_port))
        .routes(routes!(branches::open_socket, branches::close_socket))
        .routes(routes!(branches::dump))
        .routes(routes!(base::show, base::set))
        .routes(routes!(garbage::collect))
        .routes(routes!(garbage::scrub))
        .routes(routes!(server::operations))
        .routes(routes!(server::operation))
        .routes(routes!(server::status))
        .routes(routes!(server::metrics))
        .split_for_parts();
    let document = document.to_json().expect("the document is made of texts and numbers");
    routes
        .with_state(app)
        .route(
            "/v1/openapi.json",
            get(async || ([(header::CONTENT_TYPE, "application/json")], document)),
        )
        .layer(middleware::from_fn_with_state(reach, guard::guard))
        // Outside the guard: it tells nothing but that the server lives, and probes call it by
        // whatever name they have.
        .route("/healthz", get(async || "ok\n"))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(middleware::from_fn(problems::as_problems))
}
