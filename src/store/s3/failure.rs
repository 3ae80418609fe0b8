//! What a request can fail with, sorted by what may be done about it.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::StoreError;

type Source = Box<dyn Error + Send + Sync>;

/// One try failed.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub source: Source,
}

/// Sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No such object. For a write: the condition names an object that is not there.
    NoKey,
    /// No such bucket.
    NoBucket,
    /// The condition did not hold (412).
    Condition,
    /// Somebody was at the same object at the same moment (409): nothing was written.
    Collision,
    /// The range begins after the object's end (416).
    Range,
    /// Not allowed.
    Denied,
    /// Credentials that are not valid any more.
    Expired,
    /// No credentials, or unknown ones, or a wrong secret.
    NoCredentials,
    /// No space, or over quota.
    Full,
    /// Nobody there, or the connection broke.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The server has a problem or is busy, or its answer was cut short.
    Server,
    /// Anything else: asked again, it would be the same.
    Other,
}

impl Kind {
    /// Whether the same request may go better a moment later.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Collision | Self::Unreachable | Self::TimedOut | Self::Server)
    }

    /// Whether the request may have done its work although it failed.
    pub fn may_have_worked(self) -> bool {
        self.is_passing() && self != Self::Collision
    }
}

impl Failure {
    pub fn new(kind: Kind, source: impl Into<Source>) -> Self {
        Self { kind, source: source.into() }
    }

    /// The store's error for it. What depends on the operation (an absent object, a condition) is
    /// for the caller to take out first.
    pub fn into_error(self, doing: &'static str, subject: String, bucket: &str) -> StoreError {
        let source = self.source;
        match self.kind {
            Kind::NoBucket => StoreError::NoBucket { bucket: bucket.to_owned() },
            Kind::Denied => StoreError::Denied { doing, subject, source },
            Kind::Expired => StoreError::Expired { doing, subject, source },
            Kind::NoCredentials => StoreError::NoCredentials { doing, subject, source },
            Kind::Full => StoreError::Full { doing, subject, source },
            Kind::Unreachable => StoreError::Unreachable { doing, subject, source },
            Kind::TimedOut => StoreError::TimedOut { doing, subject, source },
            Kind::NoKey
            | Kind::Condition
            | Kind::Collision
            | Kind::Range
            | Kind::Server
            | Kind::Other => StoreError::Io { doing, subject, source },
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let kind = match &error {
            SdkError::TimeoutError(_) => Kind::TimedOut,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => undelivered(&error),
            SdkError::ResponseError(_) => Kind::Server,
            SdkError::ServiceError(answer) => {
                answered(answer.raw().status().as_u16(), answer.err().code().unwrap_or(""))
            }
            _ => Kind::Other,
        };
        Self { kind, source: Box::new(Said::of(&error)) }
    }
}

/// Why a request never left, or no answer came.
fn undelivered<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> Kind {
    if let Some(credentials) = causes(error).find_map(|e| e.downcast_ref::<CredentialsError>()) {
        let expired = causes(credentials).any(|e| e.to_string().contains("xpired"));
        return if expired { Kind::Expired } else { Kind::NoCredentials };
    }
    match error {
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Kind::TimedOut,
        SdkError::DispatchFailure(failure) if !failure.is_user() => Kind::Unreachable,
        _ => Kind::Other,
    }
}

/// What an answer means: the code where there is one, else the status. An answer to HEAD has no
/// code. Codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>; some are
/// those of other servers.
fn answered(status: u16, code: &str) -> Kind {
    match code {
        "NoSuchKey" => return Kind::NoKey,
        "NoSuchBucket" => return Kind::NoBucket,
        "PreconditionFailed" => return Kind::Condition,
        "ConditionalRequestConflict" | "OperationAborted" => return Kind::Collision,
        "InvalidRange" => return Kind::Range,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            return Kind::Expired;
        }
        "InvalidAccessKeyId"
        | "NotSignedUp"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "AuthorizationHeaderMalformed" => return Kind::NoCredentials,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => return Kind::Denied,
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "InsufficientStorage"
        | "StorageFull"
        | "InsufficientCapacity"
        | "XMinioAdminBucketQuotaExceeded" => return Kind::Full,
        "RequestTimeout" | "SlowDown" | "Throttling" | "TooManyRequests" | "InternalError"
        | "ServiceUnavailable" | "BadDigest" => return Kind::Server,
        _ => {}
    }
    match status {
        404 => Kind::NoKey,
        409 => Kind::Collision,
        412 => Kind::Condition,
        416 => Kind::Range,
        401 | 403 => Kind::Denied,
        507 => Kind::Full,
        408 | 429 => Kind::Server,
        501 => Kind::Other,
        500.. => Kind::Server,
        _ => Kind::Other,
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// What the SDK says in many steps, in one line: its own first lines are `service error` and
/// `unhandled error`.
#[derive(Debug)]
struct Said(String);

impl Said {
    fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let SdkError::ServiceError(answer) = error {
            let (status, meta) = (answer.raw().status().as_u16(), answer.err().meta());
            let words = [meta.code(), meta.message()];
            let words: Vec<_> = words.into_iter().flatten().filter(|w| !w.is_empty()).collect();
            return Self(match words[..] {
                [] => format!("the server answers {status}"),
                _ => format!("the server answers {status} {}", words.join(": ")),
            });
        }
        let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
        Self(texts.join(": "))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Said {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_code_then_by_status() {
        for (status, code, wanted) in [
            (404, "NoSuchKey", Kind::NoKey),
            (404, "NoSuchBucket", Kind::NoBucket),
            (404, "", Kind::NoKey),
            (412, "", Kind::Condition),
            (409, "ConditionalRequestConflict", Kind::Collision),
            (400, "ExpiredToken", Kind::Expired),
            (403, "SignatureDoesNotMatch", Kind::NoCredentials),
            (403, "NotSignedUp", Kind::NoCredentials),
            (403, "", Kind::Denied),
            (403, "QuotaExceeded", Kind::Full),
            (507, "", Kind::Full),
            (503, "SlowDown", Kind::Server),
            (502, "", Kind::Server),
            (501, "NotImplemented", Kind::Other),
            (400, "BadDigest", Kind::Server),
            (400, "InvalidArgument", Kind::Other),
        ] {
            assert_eq!(answered(status, code), wanted, "{status} {code}");
        }
    }

    #[test]
    fn only_what_passes_is_tried_again_and_only_an_answer_proves_that_nothing_was_done() {
        for kind in [Kind::Unreachable, Kind::TimedOut, Kind::Server] {
            assert!(kind.is_passing() && kind.may_have_worked());
        }
        assert!(Kind::Collision.is_passing() && !Kind::Collision.may_have_worked());
        for kind in [Kind::Denied, Kind::Expired, Kind::Full, Kind::Condition, Kind::NoBucket] {
            assert!(!kind.is_passing() && !kind.may_have_worked());
        }
    }
}
