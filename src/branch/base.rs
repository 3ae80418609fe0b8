//! The base archive: what new projects start from.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon_admin::types;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::seed::Maker;
use super::shared::Shared;
use super::{BranchError, seed};
use crate::base::ids::VersionId;
use crate::store::{Condition, StoreError};

/// How much of the archive is read at a time, bytes.
const CHUNK_BYTES: u64 = 8 * 1024 * 1024;

/// The archive in the store, on this disk; removed when dropped.
struct Fetched {
    path: PathBuf,
    bytes: u64,
    digest: blake3::Hash,
}

/// Loads the store's archive with a mongod unless that was done before; the version that holds it.
pub(super) async fn loaded(shared: &Arc<Shared>, maker: &Maker) -> Result<VersionId, BranchError> {
    let fetched = fetch(shared).await?;
    seed::base(shared, &fetched.path, fetched.digest, maker).await
}

/// The version of another mongod that holds the same archive as this one does; `None` where that is
/// not the store's any more.
pub(super) async fn loaded_again(
    shared: &Arc<Shared>,
    base: VersionId,
    maker: &Maker,
) -> Result<Option<VersionId>, BranchError> {
    let fetched = fetch(shared).await?;
    let prefix = seed::base_prefix(fetched.digest);
    if !shared.catalog.seed_keys(base)?.iter().any(|key| key.starts_with(&prefix)) {
        return Ok(None);
    }
    seed::base(shared, &fetched.path, fetched.digest, maker).await.map(Some)
}

/// Loads an archive, and only when that worked makes it the store's.
pub(super) async fn set(shared: &Arc<Shared>, archive: &Path) -> Result<types::Base, BranchError> {
    let (digest, bytes) = hash(archive).await?;
    let version = seed::base(shared, archive, digest, &seed::own(shared)).await?;
    shared.store.write_file(&shared.settings.base_key, archive).await?;
    Ok(view(shared, digest, bytes, Some(version)))
}

/// What the store holds now.
pub(super) async fn show(shared: &Arc<Shared>) -> Result<types::Base, BranchError> {
    let fetched = fetch(shared).await?;
    let version = shared.catalog.seed(&seed::base_key(&seed::own(shared), fetched.digest))?;
    Ok(view(shared, fetched.digest, fetched.bytes, version))
}

fn view(
    shared: &Shared,
    digest: blake3::Hash,
    bytes: u64,
    version: Option<VersionId>,
) -> types::Base {
    types::Base {
        digest: digest.to_string(),
        bytes,
        source: format!("{} in {}", shared.settings.base_key, shared.store.describe()),
        version: version.map(|version| version.to_string()),
        set_at: None,
    }
}

/// Brings the archive here; a store that has none gets the sample first.
async fn fetch(shared: &Arc<Shared>) -> Result<Fetched, BranchError> {
    let key = &shared.settings.base_key;
    let bytes = match shared.store.size(key).await {
        Err(StoreError::NotFound { .. }) => {
            let sample = Bytes::from_static(shared.settings.sample_base);
            match shared.store.write(key, sample, Condition::Absent).await {
                // Another server was faster; its archive is the base.
                Ok(_) | Err(StoreError::Conflict { .. }) => shared.store.size(key).await?,
                Err(error) => return Err(error.into()),
            }
        }
        size => size?,
    };
    let name = VersionId::generate(shared.clock.now());
    let path = shared.layout.temporary(format!("base-{name}.archive"));
    let mut fetched = Fetched { path, bytes, digest: blake3::hash(b"") };
    let mut hasher = blake3::Hasher::new();
    let doing = |source| BranchError::local("write the archive to", &fetched.path, source);
    let mut file = tokio::fs::File::create(&fetched.path).await.map_err(doing)?;
    let mut offset = 0;
    while offset < bytes {
        let end = bytes.min(offset + CHUNK_BYTES);
        let chunk = shared.store.read_range(key, offset..end).await?;
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(doing)?;
        offset = end;
    }
    file.flush().await.map_err(doing)?;
    fetched.digest = hasher.finalize();
    Ok(fetched)
}

async fn hash(path: &Path) -> Result<(blake3::Hash, u64), BranchError> {
    let opened = path.to_owned();
    let hashing = tokio::task::spawn_blocking(move || -> io::Result<_> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(&opened)?)?;
        Ok((hasher.finalize(), hasher.count()))
    });
    let hashed = hashing.await.map_err(|_| BranchError::Closing)?;
    hashed.map_err(|source| BranchError::local("read the archive", path, source))
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}
