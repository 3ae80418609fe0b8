//! Routes of the store as a whole: garbage collection and scrub.

use std::sync::{Arc, Mutex, PoisonError};

use argon_admin::types::{CollectGarbage, Operation, OperationKind, OperationResult, Problem};
use axum::Json;
use axum::extract::State;

use super::error::ApiError;
use super::operations::{Outcome, Subject};
use super::state::{Accepted, App};
use crate::branch::BranchError;

/// Delete from the store what nothing has needed for long enough
#[utoipa::path(post, path = "/v1/gc", tag = "store", request_body = CollectGarbage, responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn collect(
    State(app): State<App>,
    Json(how): Json<CollectGarbage>,
) -> Result<Accepted, ApiError> {
    let (told, subject) = told(OperationKind::CollectGarbage);
    let branches = app.branches.clone();
    let work = async move {
        let collected = branches.collect_garbage(how, &|words| told.say(words)).await?;
        Ok(Some(OperationResult::Collected(collected)))
    };
    app.operations.start(subject, unless_closing(&app, work)).map(Accepted)
}

/// Verify all that versions need; the operation succeeds where damage is found too
#[utoipa::path(post, path = "/v1/scrub", tag = "store", responses(
    (status = 202, description = "The work has begun", body = Operation),
    (status = "default", description = "A failure", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn scrub(State(app): State<App>) -> Result<Accepted, ApiError> {
    let (told, subject) = told(OperationKind::Scrub);
    let branches = app.branches.clone();
    let work = async move {
        let scrubbed = branches.scrub(&|words| told.say(words)).await?;
        Ok(Some(OperationResult::Scrubbed(scrubbed)))
    };
    app.operations.start(subject, unless_closing(&app, work)).map(Accepted)
}

/// It may take hours, and can be broken off anywhere.
fn unless_closing(
    app: &App,
    work: impl Future<Output = Outcome> + Send + 'static,
) -> impl Future<Output = Outcome> + Send + 'static {
    let closing = app.closing.clone();
    async move {
        tokio::select! {
            outcome = work => outcome,
            () = closing.cancelled() => Err(BranchError::Closing.into()),
        }
    }
}

/// The last words of somebody who works.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<String>>>);

impl Told {
    fn say(&self, words: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }
}

fn told(kind: OperationKind) -> (Told, Subject) {
    let told = Told::default();
    let looked = told.clone();
    let progress =
        Box::new(move || looked.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
    (told, Subject { kind, name: "store".to_owned(), progress })
}
