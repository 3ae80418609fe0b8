//! A volume as a plain directory: every block is fetched, then mongod starts.
//!
//! Works wherever there is a disk, and is what the lazy mount is compared with.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Block, BlockSource, MountError, Tree};
use crate::base::blocking::blocking;
use crate::base::limits::BLOCK_BYTES;
use crate::base::parallel::parallel;

/// Batches that are fetched and written at a time. With the batches of `volume` (4 MiB stored, 8
/// MiB raw at most) this bounds the memory at about 100 MiB.
const PARALLEL: usize = 8;

/// Makes the source's tree in `into`, a directory that is empty or not there yet. Zero blocks
/// become holes. Nothing is flushed to the disk: a machine that fails makes it again.
///
/// A failure empties `into` again. Not cancel safe: a dropped call, as a crash, leaves a part; the
/// caller keeps account of which directories are whole.
pub async fn materialise<S: BlockSource>(source: Arc<S>, into: &Path) -> Result<(), S::Error> {
    let root = into.to_owned();
    blocking(move || require_empty(&root)).await?;
    let made = fill(source, into).await;
    if made.is_err() {
        let root = into.to_owned();
        // The error that is returned says more than one of the clean-up would.
        let _ = blocking(move || clear(&root)).await;
    }
    made
}

async fn fill<S: BlockSource>(source: Arc<S>, into: &Path) -> Result<(), S::Error> {
    let root: Arc<Path> = into.into();
    let (files, place) = (source.clone(), root.clone());
    blocking(move || lay_out(files.tree(), &place)).await?;

    let batches = (0..source.batches())
        .map(|batch| fetch_and_write(source.clone(), batch, root.clone()))
        .collect::<Vec<_>>();
    parallel(PARALLEL, batches).await?;
    Ok(blocking(move || set_modes(source.tree(), &root)).await?)
}

async fn fetch_and_write<S: BlockSource>(
    source: Arc<S>,
    batch: usize,
    root: Arc<Path>,
) -> Result<(), S::Error> {
    let blocks = source.fetch(batch).await?;
    Ok(blocking(move || write_blocks(source.tree(), &root, &blocks)).await?)
}

fn require_empty(root: &Path) -> Result<(), MountError> {
    fs::create_dir_all(root).map_err(MountError::io("create", root))?;
    let mut entries = fs::read_dir(root).map_err(MountError::io("list", root))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(MountError::NotEmpty { path: root.to_owned() }),
    }
}

/// Makes directories and files of the right size, writable by the owner for now.
fn lay_out(tree: &Tree, root: &Path) -> Result<(), MountError> {
    for directory in tree.directories() {
        let path = root.join(directory.path.as_str());
        DirBuilder::new().mode(0o700).create(&path).map_err(MountError::io("create", &path))?;
    }
    for file in tree.files() {
        let path = root.join(file.path.as_str());
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        created
            .and_then(|created| created.set_len(file.bytes))
            .map_err(MountError::io("create", &path))?;
    }
    Ok(())
}

fn write_blocks(tree: &Tree, root: &Path, blocks: &[Block]) -> Result<(), MountError> {
    let mut open: Option<(usize, PathBuf, File)> = None;
    for block in blocks {
        let (_, path, file) = match open.take() {
            Some(same) if same.0 == block.file => open.insert(same),
            _ => {
                let path = root.join(tree.files()[block.file].path.as_str());
                let file = OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(MountError::io("open", &path))?;
                open.insert((block.file, path, file))
            }
        };
        file.write_all_at(&block.bytes, block.index * BLOCK_BYTES as u64)
            .map_err(MountError::io("write", path))?;
    }
    Ok(())
}

/// Last, and a directory after what is in it, so that a read-only one does not stand in the way.
fn set_modes(tree: &Tree, root: &Path) -> Result<(), MountError> {
    let files = tree.files().iter().map(|file| (&file.path, file.mode));
    let directories = tree.directories().iter().rev().map(|entry| (&entry.path, entry.mode));
    for (path, mode) in files.chain(directories) {
        let path = root.join(path.as_str());
        let set = fs::set_permissions(&path, Permissions::from_mode(mode));
        set.map_err(MountError::io("set the mode of", &path))?;
    }
    Ok(())
}

fn clear(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::{DirectoryEntry, FileEntry, VolumePath, walk};
    use super::*;

    struct Fixed {
        tree: Tree,
        batches: Vec<Option<Vec<Block>>>,
    }

    #[async_trait::async_trait]
    impl BlockSource for Fixed {
        type Error = MountError;

        fn tree(&self) -> &Tree {
            &self.tree
        }

        fn batches(&self) -> usize {
            self.batches.len()
        }

        async fn fetch(&self, batch: usize) -> Result<Vec<Block>, MountError> {
            let broken = || MountError::NotEmpty { path: "the batch".into() };
            self.batches[batch].clone().ok_or_else(broken)
        }
    }

    fn source(batches: Vec<Option<Vec<Block>>>) -> Arc<Fixed> {
        let path = |text| VolumePath::new(text).unwrap();
        let directories = vec![
            DirectoryEntry { path: path("journal"), mode: 0o500 },
            DirectoryEntry { path: path("journal/empty"), mode: 0o755 },
        ];
        let files = vec![
            FileEntry { path: path("journal/log"), mode: 0o400, bytes: 5 },
            FileEntry { path: path("sparse"), mode: 0o644, bytes: (1 << 30) + 3 },
        ];
        Arc::new(Fixed { tree: Tree::new(directories, files).unwrap(), batches })
    }

    fn block(file: usize, index: u64, bytes: impl Into<bytes::Bytes>) -> Block {
        Block { file, index, bytes: bytes.into() }
    }

    #[tokio::test]
    async fn a_tree_becomes_a_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("new/db");
        let source = source(vec![
            Some(vec![block(1, 16_384, "end"), block(0, 0, "12345")]),
            Some(Vec::new()),
            Some(vec![block(1, 3, vec![7; BLOCK_BYTES])]),
        ]);
        materialise(source.clone(), &root).await.unwrap();
        assert_eq!(walk(&root).unwrap(), source.tree);
        assert_eq!(fs::read(root.join("journal/log")).unwrap(), b"12345");
        let sparse = File::open(root.join("sparse")).unwrap();
        assert!(sparse.metadata().unwrap().blocks() * 512 < 1 << 20, "zero blocks are holes");
        for (offset, wanted) in [(0, [0, 0, 0]), (196_607, [0, 7, 7]), (1 << 30, *b"end")] {
            let mut found = [1; 3];
            sparse.read_exact_at(&mut found, offset).unwrap();
            assert_eq!(found, wanted, "{offset}");
        }
        let again = materialise(source, &root).await;
        assert!(matches!(again, Err(MountError::NotEmpty { .. })), "{again:?}");
        assert!(root.join("sparse").exists(), "a refusal touches nothing");
        // Or the temporary directory could not be removed.
        fs::set_permissions(root.join("journal"), Permissions::from_mode(0o700)).unwrap();
    }

    #[tokio::test]
    async fn a_failure_leaves_the_directory_empty() {
        let temporary = tempfile::tempdir().unwrap();
        let batches = (0..40).map(|n| (n != 20).then(|| vec![block(1, n, vec![1; 100])]));
        let made = materialise(source(batches.collect()), temporary.path()).await;
        assert!(made.is_err());
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}
