//! Writing a file: in one request, or in parts where it is large.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::failure::{Failure, Kind};
use super::tries::Tries;
use super::write::{WRITE, mark};
use super::{Bucket, tag};
use crate::base::blocking::blocking;
use crate::base::parallel::parallel;
use crate::store::{Condition, ETag, Key, READ_BYTES_MAX, StoreError};

/// Bytes of a part, and of the largest file that goes in one request.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Most parts of an object: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const PARTS_MAX: u64 = 10_000;
/// Parts on their way at a time; each is in memory.
const PARALLEL: usize = 4;

/// Writes a file of any size. A failure leaves what was there before, and takes back the parts.
pub async fn write(bucket: &Arc<Bucket>, key: &Key, path: &Path) -> Result<ETag, StoreError> {
    let subject = || format!("{key} from {}", path.display());
    let opened = path.to_owned();
    let opened = blocking(move || {
        let file = File::open(opened)?;
        Ok((file.metadata()?.len(), file))
    });
    let (bytes, file) = opened.await.map_err(|e| StoreError::io("write", subject(), e))?;
    let file = Arc::new(file);
    if bytes <= PART_BYTES {
        let whole = part(file, 0, bytes).await;
        let whole = whole.map_err(|e| StoreError::io("write", subject(), e))?;
        return bucket.put(key, whole, &Condition::Always).await;
    }
    let upload = Upload::begin(bucket.clone(), key).await.map_err(bucket.unwritten(key))?;
    let written = match upload.parts(file, bytes).await {
        Ok(parts) => upload.complete(parts).await,
        Err(failure) => Err(failure),
    };
    match written {
        Ok(etag) => Ok(etag),
        Err(failure) => {
            upload.abort().await;
            Err(bucket.unwritten(key)(failure))
        }
    }
}

async fn part(file: Arc<File>, start: u64, bytes: u64) -> io::Result<Bytes> {
    blocking(move || {
        let mut part = vec![0; bytes as usize];
        file.read_exact_at(&mut part, start)?;
        Ok(part.into())
    })
    .await
}

/// The checksum that the SDK gives each part. It has to be announced: garage keeps those of parts
/// only then, and refuses an end that names what it has not kept.
fn checksum(client: &Client) -> Option<ChecksumAlgorithm> {
    match client.config().request_checksum_calculation() {
        Some(RequestChecksumCalculation::WhenRequired) => None,
        _ => Some(ChecksumAlgorithm::Crc32),
    }
}

/// An object that is being written in parts.
struct Upload {
    bucket: Arc<Bucket>,
    key: Key,
    id: String,
    mark: String,
}

impl Upload {
    async fn begin(bucket: Arc<Bucket>, key: &Key) -> Result<Self, Failure> {
        let mark = mark()?;
        // A lost answer leaves an upload without parts, which costs nothing.
        let begun = bucket.tried(bucket.patience(0), async |client: Client| {
            let request = client.create_multipart_upload().bucket(&bucket.settings.bucket);
            let request = request.set_checksum_algorithm(checksum(&client));
            Ok(request.key(bucket.name(key)).metadata(WRITE, &mark).send().await?)
        });
        let begun = begun.await?;
        let id = begun.upload_id().map(str::to_owned);
        let id = id.ok_or_else(|| Failure::new(Kind::Other, "the server names no upload"))?;
        Ok(Self { bucket, key: key.clone(), id, mark })
    }

    async fn parts(&self, file: Arc<File>, bytes: u64) -> Result<Vec<CompletedPart>, Failure> {
        let size = PART_BYTES.max(bytes.div_ceil(PARTS_MAX));
        let parts = (0..bytes.div_ceil(size)).map(|index| {
            let (bucket, file) = (self.bucket.clone(), file.clone());
            let (name, id) = (self.bucket.name(&self.key), self.id.clone());
            let (start, number) = (index * size, index as i32 + 1);
            async move {
                let read = part(file, start, size.min(bytes - start)).await;
                let body = read.map_err(|error| Failure::new(Kind::Other, error))?;
                let sent =
                    bucket.tried(bucket.patience(body.len() as u64), async |client: Client| {
                        let request =
                            client.upload_part().bucket(&bucket.settings.bucket).key(&name);
                        let request = request.upload_id(&id).part_number(number);
                        Ok(request.body(ByteStream::from(body.clone())).send().await?)
                    });
                let sent: UploadPartOutput = sent.await?;
                // With its checksum: a server that keeps them per part wants them named again.
                Ok::<_, Failure>(
                    CompletedPart::builder()
                        .part_number(number)
                        .set_e_tag(sent.e_tag().map(str::to_owned))
                        .set_checksum_crc32(sent.checksum_crc32().map(str::to_owned))
                        .set_checksum_crc32_c(sent.checksum_crc32_c().map(str::to_owned))
                        .set_checksum_crc64_nvme(sent.checksum_crc64_nvme().map(str::to_owned))
                        .build(),
                )
            }
        });
        let mut sent = parallel(PARALLEL, parts.collect::<Vec<_>>()).await?;
        sent.sort_by_key(CompletedPart::part_number);
        Ok(sent)
    }

    async fn complete(&self, parts: Vec<CompletedPart>) -> Result<ETag, Failure> {
        let bucket = &*self.bucket;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        // The server puts the parts together before it answers.
        let patience = bucket.patience(READ_BYTES_MAX);
        let mut tries = Tries::new(patience.deadline);
        loop {
            let ask = async |client: Client| {
                let request = client.complete_multipart_upload().bucket(&bucket.settings.bucket);
                let request = request.key(bucket.name(&self.key)).upload_id(&self.id);
                tag(request.multipart_upload(parts.clone()).send().await?.e_tag())
            };
            let failure = match bucket.once(patience, ask).await {
                Ok(etag) => return Ok(etag),
                Err(failure) => failure,
            };
            // An upload that is gone may have been completed by a try whose answer was lost.
            if failure.kind == Kind::NoKey
                && let Ok(Some(etag)) = bucket.own(&self.key, &self.mark, &tries).await
            {
                return Ok(etag);
            }
            bucket.before_next(&mut tries, failure).await?;
        }
    }

    /// Best effort: the error that led here says more. A bucket's rule for unfinished uploads sweeps
    /// what stays.
    async fn abort(&self) {
        let bucket = &*self.bucket;
        let aborted = bucket.once(bucket.patience(0), async |client: Client| {
            let request = client.abort_multipart_upload().bucket(&bucket.settings.bucket);
            request.key(bucket.name(&self.key)).upload_id(&self.id).send().await?;
            Ok(())
        });
        if let Err(failure) = aborted.await {
            tracing::warn!(key = %self.key, cause = %failure.source, "parts of an upload stay");
        }
    }
}
