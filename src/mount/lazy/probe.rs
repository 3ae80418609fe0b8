//! A version that holds nothing, for trying out whether FUSE works.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

use super::Source;
use crate::base::ids::VersionId;
use crate::mount::Tree;

/// What is written and read back; to mongod it is a configuration that says nothing.
pub(super) const TEXT: &str = "# works\n";

/// No files at all.
#[derive(Debug)]
pub(super) struct Nothing(Tree);

impl Nothing {
    pub(super) fn new() -> Self {
        Self(Tree::default())
    }
}

#[async_trait]
impl Source for Nothing {
    fn version(&self) -> VersionId {
        VersionId::from_bytes([0; 16])
    }

    fn tree(&self) -> &Tree {
        &self.0
    }

    fn at_hand(&self, _file: usize, _index: u64) -> Option<Bytes> {
        None
    }

    async fn block(&self, _file: usize, _index: u64) -> io::Result<Bytes> {
        Err(io::ErrorKind::NotFound.into())
    }
}
