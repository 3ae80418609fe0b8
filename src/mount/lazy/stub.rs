//! stub
#![allow(missing_docs, unused, clippy::unused_async)]
use super::*;
use crate::mount::MountError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading { Whole, UpToDamage }
#[derive(Debug)]
pub struct LazyMount;
#[derive(Debug)]
pub struct Sealed;
impl Sealed { pub fn pause(&self) -> Duration { todo!() } }
#[async_trait]
impl Changes for Sealed {
    fn tree(&self) -> &Tree { todo!() }
    fn origin(&self, file: usize) -> Option<usize> { todo!() }
    fn changed(&self, file: usize) -> Vec<u64> { todo!() }
    async fn read(&self, file: usize, index: u64) -> io::Result<Bytes> { todo!() }
    fn done(&self, file: usize, index: u64) {}
    fn boot(&self) -> Option<Vec<(usize, u64)>> { todo!() }
}
impl LazyMount {
    pub async fn create(source: Arc<dyn Source>, overlay: &Path, at: &Path) -> Result<Self, MountError> { todo!() }
    pub async fn recover(source: Arc<dyn Source>, overlay: &Path, at: &Path, reading: Reading) -> Result<Self, MountError> { todo!() }
    pub fn is_changed(&self) -> bool { todo!() }
    pub fn is_serving(&self) -> bool { todo!() }
    pub fn boot_done(&self) { todo!() }
    pub async fn seal(&self) -> Result<Arc<Sealed>, MountError> { todo!() }
    pub async fn rebase(&self, sealed: &Arc<Sealed>, source: Arc<dyn Source>) -> Result<(), MountError> { todo!() }
    pub async fn unmount(&self) -> Result<(), MountError> { todo!() }
}
pub fn overlay_version(overlay: &Path, reading: Reading) -> Result<VersionId, MountError> { todo!() }
pub fn unmount_stale(below: &Path) -> Result<(), MountError> { todo!() }
pub fn mounts_below(below: &Path) -> Result<Vec<PathBuf>, MountError> { todo!() }
pub fn probe(below: &Path) -> Result<(), MountError> { todo!() }
