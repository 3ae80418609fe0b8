//! An archive on its way in: into a file first, as it may be larger than memory.

use std::path::{Path, PathBuf};

use axum::body::Body;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::error::ApiError;

/// An uploaded file; dropping it removes it.
#[derive(Debug)]
pub(super) struct Upload {
    path: PathBuf,
}

impl Upload {
    /// Receives a body to its end into a new file. `announced` is its Content-Length, `limit` the
    /// most that is taken, both bytes.
    pub(super) async fn receive(
        path: PathBuf,
        body: Body,
        announced: Option<u64>,
        limit: u64,
    ) -> Result<Self, ApiError> {
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(ApiError::ArchiveTooLarge { limit });
        }
        let failed = |source| ApiError::Upload { doing: "write", path: path.clone(), source };
        let mut file = tokio::fs::File::create_new(&path).await.map_err(failed)?;
        let upload = Self { path: path.clone() };
        let mut chunks = body.into_data_stream();
        let mut bytes = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::ArchiveCutShort { bytes })?;
            bytes += chunk.len() as u64;
            if bytes > limit {
                return Err(ApiError::ArchiveTooLarge { limit });
            }
            file.write_all(&chunk).await.map_err(failed)?;
        }
        // tokio's file writes in the background: the last failure shows here.
        file.flush().await.map_err(failed)?;
        Ok(upload)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What stays behind is cleared at the next start of the server.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), "remove an upload: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn body(pieces: &[Result<&'static str, &'static str>]) -> Body {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| piece.map(Bytes::from).map_err(str::to_owned)).collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_becomes_a_file_that_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upload");
        let whole = body(&[Ok("12345"), Ok("67890")]);
        let upload = Upload::receive(path.clone(), whole, None, 10).await.unwrap();
        assert_eq!(std::fs::read(upload.path()).unwrap(), b"1234567890");
        drop(upload);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_too_large_or_cut_short_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        for (pieces, announced, code) in [
            (&[Ok("12345"), Ok("678901")][..], None, "archive_too_large"),
            (&[Ok("1")][..], Some(11), "archive_too_large"),
            (&[Ok("12345"), Err("reset")][..], Some(10), "archive_cut_short"),
        ] {
            let path = dir.path().join("upload");
            let error = Upload::receive(path, body(pieces), announced, 10).await.unwrap_err();
            assert_eq!(error.problem().code, code);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
