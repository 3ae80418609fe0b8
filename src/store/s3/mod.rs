//! An S3 bucket, or what lies under a prefix in one, as a store.
//!
//! Every request is one or more tries with a time-out each, until a deadline; see [`Tries`]. The
//! SDK's own retries are off: a conditional write whose answer was lost finds its own object when
//! it is tried again, and only who made the first try can tell that from another's.

mod failure;
mod file;
mod link;
mod list;
mod settings;
mod tries;
mod write;

use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Condition, ETag, Key, Listed, Object, READ_BYTES_MAX, Store, StoreError};
use failure::{Failure, Kind};
use link::Link;
use tries::{Next, Tries};

pub use settings::{Addressing, Credentials, Prefix, S3Limits, S3Settings};

/// A bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct S3Store {
    bucket: Arc<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    settings: S3Settings,
    link: Link,
    requests: Semaphore,
}

impl S3Store {
    /// The store of these settings. Nothing is asked of the bucket yet, but credentials and region
    /// are looked for, which may take a moment.
    ///
    /// # Errors
    /// [`StoreError::Io`] where no region is named for a bucket of Amazon's.
    pub async fn open(settings: S3Settings) -> Result<Self, StoreError> {
        if settings.endpoint.is_none() && link::region().await.is_none() {
            return Err(StoreError::Io {
                doing: "find the region of bucket",
                subject: settings.bucket,
                source: "none is set: AWS_DEFAULT_REGION, a profile and the machine name none"
                    .into(),
            });
        }
        let (link, requests) =
            (Link::new(settings.clone()).await, Semaphore::new(settings.limits.requests));
        Ok(Self { bucket: Arc::new(Bucket { settings, link, requests }) })
    }
}

#[async_trait]
impl Store for S3Store {
    fn describe(&self) -> String {
        let S3Settings { bucket, prefix, endpoint, .. } = &self.bucket.settings;
        let place = format!("s3://{bucket}/{}", prefix.as_str());
        match endpoint {
            Some(endpoint) => format!("{} at {endpoint}", place.trim_end_matches('/')),
            None => place.trim_end_matches('/').to_owned(),
        }
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        self.bucket.read(key).await
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.bucket.read_range(key, range).await
    }

    async fn write(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.bucket.put(key, bytes, &condition).await
    }

    async fn write_file(&self, key: &Key, file: &Path) -> Result<ETag, StoreError> {
        file::write(&self.bucket, key, file).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.bucket.size(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.bucket.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, StoreError> {
        self.bucket.list(prefix, after).await
    }
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// One try.
    attempt: Duration,
    /// Until the last one begins.
    deadline: Duration,
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::TimedOut, format!("no answer in {} s", limit.as_secs_f32())))
    })
}

impl Bucket {
    /// What the server calls an object.
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.settings.prefix.as_str())
    }

    /// For a body of so many bytes.
    fn patience(&self, bytes: u64) -> Patience {
        let S3Limits { attempt, deadline, .. } = self.settings.limits;
        let body = self.settings.limits.for_body(bytes);
        Patience { attempt: attempt + body, deadline: deadline + body }
    }

    /// One try: waits for its turn, then asks.
    async fn once<T, F>(
        &self,
        patience: Patience,
        ask: impl FnOnce(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let _turn = self.requests.acquire().await.expect("nobody closes it");
        within(patience.attempt, ask(self.link.client())).await
    }

    /// Tries until it works or another try would not help.
    async fn tried<T, F>(
        &self,
        patience: Patience,
        mut ask: impl FnMut(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = Tries::new(patience.deadline);
        loop {
            match self.once(patience, &mut ask).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.before_next(&mut tries, failure).await?,
            }
        }
    }

    async fn before_next(&self, tries: &mut Tries, failure: Failure) -> Result<(), Failure> {
        if tries.after(failure).await? == Next::Renew {
            self.link.renew().await;
        }
        Ok(())
    }

    /// For `map_err`: the store's error of an operation on an object.
    fn failed(&self, doing: &'static str, key: &Key) -> impl FnOnce(Failure) -> StoreError {
        move |failure| match failure.kind {
            Kind::NoKey => StoreError::NotFound { key: key.clone() },
            _ => {
                let bucket = &self.settings.bucket;
                failure.into_error(doing, format!("{key} in bucket {bucket}"), bucket)
            }
        }
    }

    async fn read(&self, key: &Key) -> Result<Object, StoreError> {
        // How long it may take is known when the answer begins, and says how long the object is.
        let small = self.patience(0);
        let patience = Patience { attempt: self.patience(READ_BYTES_MAX).attempt, ..small };
        let read = self.tried(patience, async |client: Client| {
            let request = client.get_object().bucket(&self.settings.bucket).key(self.name(key));
            let found = within(small.attempt, async { Ok(request.send().await?) }).await?;
            let bytes = length(&found)?;
            if bytes > READ_BYTES_MAX {
                return Ok(Err(bytes));
            }
            let etag = tag(found.e_tag())?;
            let bytes = within(self.patience(bytes).attempt, body(found, bytes)).await?;
            Ok(Ok(Object { bytes, etag }))
        });
        let read = read.await.map_err(self.failed("read", key))?;
        read.map_err(|bytes| StoreError::TooLarge { key: key.clone(), bytes })
    }

    async fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Range { start, end } = range;
        let short = |bytes| StoreError::ShortRange { key: key.clone(), bytes, end };
        if start >= end || end - start > READ_BYTES_MAX || i64::try_from(end).is_err() {
            // No range that a server understands, or one that is not to be held in memory.
            let bytes = self.size(key).await?;
            return match () {
                () if start > end || end > bytes => Err(short(bytes)),
                () if start == end => Ok(Bytes::new()),
                () => Err(StoreError::TooLarge { key: key.clone(), bytes: end - start }),
            };
        }
        let wanted = format!("bytes={start}-{}", end - 1);
        let read = self.tried(self.patience(end - start), async |client: Client| {
            let request = client.get_object().bucket(&self.settings.bucket).key(self.name(key));
            let found = request.range(&wanted).send().await?;
            let (given, whole) = extent(&found)?;
            if given != (start..end) {
                return Ok(Err(whole));
            }
            Ok(Ok(body(found, end - start).await?))
        });
        match read.await {
            Ok(read) => read.map_err(short),
            Err(failure) if failure.kind == Kind::Range => Err(short(self.size(key).await?)),
            Err(failure) => Err(self.failed("read", key)(failure)),
        }
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        let found = self.head(key).await.map_err(self.failed("look at", key))?;
        let bytes = found.content_length().and_then(|bytes| u64::try_from(bytes).ok());
        bytes.ok_or_else(|| {
            let failure = Failure::new(Kind::Other, "the server names no size");
            self.failed("look at", key)(failure)
        })
    }

    async fn head(&self, key: &Key) -> Result<HeadObjectOutput, Failure> {
        self.tried(self.patience(0), async |client: Client| {
            let request = client.head_object().bucket(&self.settings.bucket).key(self.name(key));
            Ok(request.send().await?)
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let deleted = self.tried(self.patience(0), async |client: Client| {
            let request = client.delete_object().bucket(&self.settings.bucket).key(self.name(key));
            request.send().await?;
            Ok(())
        });
        match deleted.await {
            Err(failure) if failure.kind == Kind::NoKey => Ok(()),
            deleted => deleted.map_err(self.failed("delete", key)),
        }
    }
}

fn tag(found: Option<&str>) -> Result<ETag, Failure> {
    let none = || Failure::new(Kind::Other, "the server gives no ETag");
    found.map(|tag| ETag(tag.to_owned())).ok_or_else(none)
}

fn length(found: &GetObjectOutput) -> Result<u64, Failure> {
    let none = || Failure::new(Kind::Other, "the server names no size");
    found.content_length().and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(none)
}

/// Which bytes of the object an answer brings, and how many the object has.
fn extent(found: &GetObjectOutput) -> Result<(Range<u64>, u64), Failure> {
    let Some(text) = found.content_range() else {
        // The whole object, from a server that does not know ranges or was asked for all.
        let bytes = length(found)?;
        return Ok((0..bytes, bytes));
    };
    let read = || {
        let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?, whole.parse().ok()?))
    };
    let strange = || Failure::new(Kind::Other, format!("the server gives the range `{text}`"));
    read().ok_or_else(strange)
}

/// The body, which has `bytes`. The SDK compares it with its checksum where the server sends one.
async fn body(found: GetObjectOutput, bytes: u64) -> Result<Bytes, Failure> {
    let cut = |text: String| Failure::new(Kind::Server, text);
    let mut stream = found.body;
    let mut parts: Vec<Bytes> = Vec::new();
    let mut arrived = 0;
    while let Some(part) = stream.try_next().await.map_err(|e| Failure::new(Kind::Server, e))? {
        arrived += part.len() as u64;
        // Never more in memory than was announced.
        if arrived > bytes {
            return Err(cut(format!("more than the {bytes} announced bytes came")));
        }
        parts.push(part);
    }
    if arrived != bytes {
        return Err(cut(format!("{arrived} of {bytes} bytes came")));
    }
    Ok(match parts.len() {
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    })
}
