//! What can go wrong in this room, and the problem document that a client gets.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use argon_admin::types::Problem;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use thiserror::Error;

use crate::branch::BranchError;

/// What can go wrong in the admin API. All but the first two are answers to one request.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The address cannot be listened on.
    #[error("listen for the admin API on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the machine says.
        source: io::Error,
    },
    /// A file or folder for uploads cannot be used.
    #[error("{doing} {}", path.display())]
    Upload {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the machine says.
        source: io::Error,
    },
    /// The branch room refused or failed.
    #[error(transparent)]
    Branch(#[from] BranchError),
    /// The request does not name this machine, as after a DNS rebinding.
    #[error("the host `{0}` is not this machine, which the admin API listens for alone")]
    ForeignHost(String),
    /// A web page of somebody else's wants to change something.
    #[error("pages of `{0}` may change nothing here")]
    ForeignOrigin(String),
    /// The id is no operation's, or the operation was forgotten.
    #[error(
        "there is no operation `{0}`; a restart forgets them, and so does a long list of newer ones"
    )]
    UnknownOperation(String),
    /// Too much is going on.
    #[error("{0} operations are running, which is as many as may")]
    TooManyOperations(usize),
    /// The archive is larger than the server takes.
    #[error("the archive is larger than {limit} bytes")]
    ArchiveTooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The client went away or sent what is not HTTP.
    #[error("the archive broke off after {bytes} bytes")]
    ArchiveCutShort {
        /// What had arrived, bytes.
        bytes: u64,
    },
    /// The work came to a sudden end.
    #[error("a defect in Argon ended the work")]
    Panicked,
    /// HTTP's own refusals.
    #[error("{detail}")]
    Refused {
        /// The status that stands for the refusal.
        status: StatusCode,
        /// What is wrong with the request.
        detail: String,
    },
}

impl ApiError {
    fn class(&self) -> (&str, u16) {
        match self {
            Self::Branch(error) => (error.code(), error.http_status()),
            Self::ForeignHost(_) => ("foreign_host", 403),
            Self::ForeignOrigin(_) => ("foreign_origin", 403),
            Self::UnknownOperation(_) => ("unknown_operation", 404),
            Self::TooManyOperations(_) => ("too_many_operations", 503),
            Self::ArchiveTooLarge { .. } => ("archive_too_large", 413),
            Self::ArchiveCutShort { .. } => ("archive_cut_short", 400),
            Self::Upload { source, .. } if is_full(source) => ("disk_full", 507),
            Self::Bind { .. } | Self::Upload { .. } | Self::Panicked => ("internal", 500),
            Self::Refused { status, .. } => match status.as_u16() {
                404 => ("unknown_route", 404),
                405 => ("method_not_allowed", 405),
                413 => ("request_too_large", 413),
                415 => ("not_json", 415),
                400 => ("malformed_request", 400),
                422 => ("invalid_request", 422),
                500.. => ("internal", 500),
                other => ("refused", other),
            },
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Branch(error) => return error.hint(),
            Self::ForeignHost(_) => "name the server as localhost or by its loopback address",
            Self::UnknownOperation(_) => "see `argon operation list`",
            Self::TooManyOperations(_) => "try again when some have ended: `argon operation list`",
            Self::ArchiveTooLarge { .. } => "the server's configuration sets the limit",
            Self::Upload { source, .. } if is_full(source) => "make room on the server's disk",
            Self::Refused { status, .. } if status.is_client_error() => {
                "GET /v1/openapi.json says what the API takes"
            }
            Self::Panicked => "the server's log has the details",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The document that a client gets.
    pub(super) fn problem(&self) -> Problem {
        let (code, status) = self.class();
        let title = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
        Problem {
            kind: Problem::kind_of(code),
            title: title.unwrap_or("Error").to_owned(),
            status,
            code: code.to_owned(),
            detail: self.chain(),
            hint: self.hint(),
        }
    }

    /// The error and its causes on one line.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        if problem.status >= 500 {
            tracing::warn!(code = problem.code, "refuse a request: {}", problem.detail);
        }
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let media_type = HeaderValue::from_static(Problem::MEDIA_TYPE);
        (status, [(header::CONTENT_TYPE, media_type)], Json(problem)).into_response()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `("word", 123)` of a source text: how both error types write code and status down.
    fn codes_in(source: &str) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for piece in source.split("(\"").skip(1) {
            let Some((code, rest)) = piece.split_once("\", ") else { continue };
            let Some((status, _)) = rest.split_once(')') else { continue };
            let is_code = code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if is_code && status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) {
                found.insert((code.to_owned(), status.to_owned()));
            }
        }
        found
    }

    #[test]
    fn the_manual_has_every_code_and_no_other() {
        let of_tests = "#[cfg(test)]";
        let read = |path| std::fs::read_to_string(path).unwrap();
        let mut known = BTreeSet::new();
        for path in ["src/api/error.rs", "src/branch/error.rs"] {
            let text = read(path);
            let codes = codes_in(text.split(of_tests).next().unwrap());
            assert!(codes.len() > 5, "{path}");
            known.extend(codes);
        }
        let manual = read("docs/api.md");
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let told: BTreeSet<_> = manual
            .lines()
            .map(cells)
            .filter_map(|cells: Vec<String>| Some((cells.get(1)?.clone(), cells.get(2)?.clone())))
            .filter(|(code, status)| code.starts_with('`') && status.len() == 3)
            .map(|(code, status)| (code.trim_matches('`').to_owned(), status))
            .collect();
        let missing: Vec<_> = known.difference(&told).collect();
        let stale: Vec<_> = told.difference(&known).collect();
        assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
    }

    #[test]
    fn a_problem_has_all_its_causes_and_a_next_step() {
        let full = ApiError::Upload {
            doing: "write",
            path: "/data/x".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        for (error, status, code, detail) in [
            (full, 507, "disk_full", "write /data/x: no storage space"),
            (ApiError::UnknownOperation("x".into()), 404, "unknown_operation", "no operation `x`"),
            (ApiError::ForeignHost("evil".into()), 403, "foreign_host", "`evil`"),
        ] {
            let problem = error.problem();
            assert_eq!((problem.status, problem.code.as_str()), (status, code));
            assert_eq!(problem.kind, format!("urn:argon:problem:{code}"));
            assert!(problem.detail.contains(detail), "{}", problem.detail);
            assert!(problem.hint.is_some());
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
    }
}
