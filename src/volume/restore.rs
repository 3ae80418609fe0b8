//! A version becomes a directory.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::Volumes;
use super::error::VolumeError;
use super::fetch::{Batch, Wanted, fetch, plan};
use super::index::Index;
use super::pack::PackKind;
use crate::base::ids::VersionId;
use crate::mount::{Block, BlockSource, Tree, eager};

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Number of files.
    pub files: u64,
    /// Number of blocks that were read; zero blocks are not.
    pub blocks: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
}

impl Volumes {
    /// Makes the directory of a version in `into`, which is empty or not there yet. Every block is
    /// verified before it is written. A failure empties `into` again; a crash, or dropping this,
    /// leaves a part of the directory.
    pub async fn restore(&self, version: VersionId, into: &Path) -> Result<Restored, VolumeError> {
        let index = self.index(version).await?;
        let source = Arc::new(VolumeSource::new(self.clone(), index));
        eager::materialise(source.clone(), into).await?;
        Ok(Restored {
            files: source.tree().files().len() as u64,
            blocks: source.batches.iter().map(|batch| batch.wanted.len() as u64).sum(),
            bytes: source.tree().bytes(),
        })
    }
}

/// A version as a source of blocks, in batches that each are one range read.
pub struct VolumeSource {
    volumes: Volumes,
    tree: Tree,
    batches: Vec<Batch>,
}

impl VolumeSource {
    /// All blocks of the version that `index` is of.
    pub fn new(volumes: Volumes, index: Index) -> Self {
        let files = 0..index.root.tree.files().len();
        let wanted = files.flat_map(|file| index.blocks(file)).collect();
        Self::of(volumes, index.root.tree, wanted)
    }

    /// These blocks of files of `tree`.
    pub fn of(volumes: Volumes, tree: Tree, wanted: Vec<Wanted>) -> Self {
        Self { volumes, tree, batches: plan(wanted) }
    }
}

#[async_trait]
impl BlockSource for VolumeSource {
    type Error = VolumeError;

    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn batches(&self) -> usize {
        self.batches.len()
    }

    async fn fetch(&self, batch: usize) -> Result<Vec<Block>, VolumeError> {
        let batch = &self.batches[batch];
        let paths: Vec<_> =
            batch.wanted.iter().map(|w| (w.file, self.tree.files()[w.file].path.clone())).collect();
        let name = move |wanted: &Wanted| {
            let path = paths.iter().find(|(file, _)| *file == wanted.file);
            let path = path.map_or("", |(_, path)| path.as_str());
            format!("block {} of file `{path}`", wanted.index)
        };
        let contents = fetch(&*self.volumes.store, PackKind::Blocks, batch, name).await?;
        let block =
            |(wanted, bytes): (&Wanted, _)| Block { file: wanted.file, index: wanted.index, bytes };
        Ok(batch.wanted.iter().zip(contents).map(block).collect())
    }
}
