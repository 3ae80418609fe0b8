//! Turns HTTP's own refusals, which axum words as plain text, into problem documents.

use argon_admin::types::Problem;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// As much of a plain refusal as is kept, bytes; it may echo a request's text.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// A middleware, the outermost: nothing that fails leaves as anything but a problem document.
pub(super) async fn as_problems(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_problem(&response) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let detail = match status {
        StatusCode::NOT_FOUND => format!("there is no {path} in this API"),
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not take {method}"),
        _ => plain(response).await,
    };
    let mut problem = ApiError::Refused { status, detail }.into_response();
    if let Some(allow) = allow {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}

fn is_problem(response: &Response) -> bool {
    let media_type = response.headers().get(header::CONTENT_TYPE);
    media_type.is_some_and(|value| value == Problem::MEDIA_TYPE)
}

async fn plain(response: Response) -> String {
    let status = response.status();
    let text = to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    match String::from_utf8_lossy(&text).trim() {
        "" => status.to_string().to_ascii_lowercase(),
        text => text.to_owned(),
    }
}
