//! A body that is written as it is sent, by code that knows nothing but `std::io::Write`.

use std::io::{self, Write};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;

use super::error::ApiError;

/// Bytes that are gathered before they are sent on.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that may wait for a slow client before the writer is made to wait.
const CHUNKS_MAX: usize = 8;

/// The writing end. Dropping it sends what was gathered; only [`Sender::fail`] or the channel's
/// end say whether that was all.
///
/// Writing blocks while the client is slow, and must be done on a runtime of many threads.
pub(super) struct BodyWriter {
    gathered: BytesMut,
    chunks: mpsc::Sender<Result<Bytes, ApiError>>,
}

/// The end that can still report a failure after the writer is gone.
pub(super) struct Sender(mpsc::Sender<Result<Bytes, ApiError>>);

/// The response's end.
pub(super) struct Receiver(mpsc::Receiver<Result<Bytes, ApiError>>);

pub(super) fn channel() -> (BodyWriter, Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let writer = BodyWriter { gathered: BytesMut::new(), chunks: sender.clone() };
    (writer, Sender(sender), Receiver(receiver))
}

impl Sender {
    /// Breaks the body off, or answers with the error where nothing was sent yet.
    pub(super) async fn fail(self, error: ApiError) {
        // A client that is gone needs no answer.
        let _ = self.0.send(Err(error)).await;
    }
}

impl Receiver {
    /// The response, once the first bytes or a failure are there.
    pub(super) async fn into_response(mut self) -> Response {
        let first = match self.0.recv().await {
            Some(Err(error)) => return error.into_response(),
            Some(Ok(bytes)) => bytes,
            None => Bytes::new(),
        };
        let rest = stream::unfold(self.0, async |mut chunks| Some((chunks.recv().await?, chunks)));
        let body = Body::from_stream(stream::iter([Ok(first)]).chain(rest));
        let media_type = HeaderValue::from_static("application/octet-stream");
        ([(header::CONTENT_TYPE, media_type)], body).into_response()
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = self.gathered.split().freeze();
        // Whoever writes may be a task, and a task may wait only in place.
        tokio::task::block_in_place(|| self.chunks.blocking_send(Ok(chunk)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"))
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        // A client that is gone misses nothing.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_written_is_sent_from_tasks_and_threads() {
        let data: Vec<u8> = (0..CHUNK_BYTES * (CHUNKS_MAX + 3)).map(|i| i as u8).collect();
        for on_a_thread in [false, true] {
            let (mut writer, _sender, receiver) = channel();
            let pieces = data.clone();
            let mut write =
                move || pieces.chunks(1000).try_for_each(|piece| writer.write_all(piece));
            let writing = if on_a_thread {
                tokio::task::spawn_blocking(write)
            } else {
                tokio::spawn(async move { write() })
            };
            drop(_sender);
            let response = receiver.into_response().await;
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert!(body == data, "{} of {} bytes", body.len(), data.len());
            writing.await.unwrap().unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failure_is_an_answer_before_the_first_byte_and_a_cut_after_it() {
        for written in [&b""[..], b"some"] {
            let (mut writer, sender, receiver) = channel();
            tokio::spawn(async move {
                writer.write_all(written).unwrap();
                drop(writer);
                sender.fail(ApiError::Panicked).await;
            });
            let response = receiver.into_response().await;
            assert_eq!(response.status().is_success(), !written.is_empty());
            let body = to_bytes(response.into_body(), usize::MAX).await;
            assert_eq!(body.is_err(), !written.is_empty(), "{body:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_is_gone_ends_the_writing() {
        let (mut writer, _sender, receiver) = channel();
        drop(receiver);
        let error = writer.write_all(&vec![0; CHUNK_BYTES]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
