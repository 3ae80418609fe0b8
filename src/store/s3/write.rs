//! Writing an object in one request.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::failure::{Failure, Kind};
use super::tries::Tries;
use super::{Bucket, tag};
use crate::store::{Condition, ETag, Key, StoreError};

/// Object metadata that names the write which made it: `x-amz-meta-argon-write`.
pub(super) const WRITE: &str = "argon-write";

impl Bucket {
    /// A conditional write whose answer was lost is tried again, and then finds either the state it
    /// expects, or its own object, which it knows by its mark, or another's: a conflict. Its own
    /// may already be replaced by another's: that is a conflict too, and the object is the other's.
    pub(super) async fn put(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<ETag, StoreError> {
        let patience = self.patience(bytes.len() as u64);
        let mark = mark().map_err(self.failed("write", key))?;
        let mut tries = Tries::new(patience.deadline);
        loop {
            let ask = |client| self.put_once(client, key, bytes.clone(), condition, &mark);
            let failure = match self.once(patience, ask).await {
                Ok(etag) => return Ok(etag),
                Err(failure) => failure,
            };
            let unmet = match failure.kind {
                Kind::Condition => true,
                // So a server says that there is nothing for `If-Match` to match.
                Kind::NoKey => *condition != Condition::Always,
                _ => false,
            };
            if unmet {
                return match self.own(key, &mark, &tries).await? {
                    Some(etag) => Ok(etag),
                    None => Err(StoreError::Conflict { key: key.clone() }),
                };
            }
            match self.before_next(&mut tries, failure).await {
                Ok(()) => {}
                Err(failure) if failure.kind == Kind::Collision => {
                    return Err(StoreError::Conflict { key: key.clone() });
                }
                Err(failure) => return Err(self.unwritten(key)(failure)),
            }
        }
    }

    /// For `map_err`: as [`Self::failed`], for what is no question of an absent object.
    pub(super) fn unwritten(&self, key: &Key) -> impl FnOnce(Failure) -> StoreError {
        move |failure| {
            let bucket = &self.settings.bucket;
            failure.into_error("write", format!("{key} in bucket {bucket}"), bucket)
        }
    }

    async fn put_once(
        &self,
        client: Client,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
        mark: &str,
    ) -> Result<ETag, Failure> {
        let request = client.put_object().bucket(&self.settings.bucket).key(self.name(key));
        let request = match condition {
            Condition::Always => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Matches(ETag(tag)) => request.if_match(tag),
        };
        let request = request.metadata(WRITE, mark).body(ByteStream::from(bytes));
        tag(request.send().await?.e_tag())
    }

    /// The object's tag, if one of these tries may have written it and did.
    pub(super) async fn own(
        &self,
        key: &Key,
        mark: &str,
        tries: &Tries,
    ) -> Result<Option<ETag>, StoreError> {
        if !tries.may_have_worked() {
            return Ok(None);
        }
        let found = match self.head(key).await {
            Ok(found) => found,
            Err(failure) if failure.kind == Kind::NoKey => return Ok(None),
            Err(failure) => return Err(self.failed("read back", key)(failure)),
        };
        let found_mark = found.metadata().and_then(|metadata| metadata.get(WRITE));
        match found_mark.is_some_and(|found| found == mark) {
            true => tag(found.e_tag()).map(Some).map_err(self.failed("read back", key)),
            false => Ok(None),
        }
    }
}

/// A name for one write that no other has.
pub(super) fn mark() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Kind::Other, format!("no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
