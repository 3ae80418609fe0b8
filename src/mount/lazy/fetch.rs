//! Runs operations on content that take blocks of the source.
//!
//! What is at hand is used at once, on the thread that asks; only what the store must be asked for
//! makes a task, which answers when it has it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::content::{Blocks, Step};
use super::node::{Node, Origin};
use super::overlay::Overlay;
use crate::base::limits::BLOCK_BYTES;

/// How many blocks are read ahead of a reader that reads one after the other.
const AHEAD_BLOCKS: u64 = 8;
/// How many blocks of a mount may be on their way ahead of readers.
const AHEAD_MAX: usize = 16;

/// An overlay, and who fetches for it.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) overlay: Arc<Overlay>,
    runtime: Handle,
    ahead: Arc<Semaphore>,
    /// The last fetch failed, and the log says so.
    failing: Arc<AtomicBool>,
}

impl Fetcher {
    pub(super) fn new(overlay: Arc<Overlay>, runtime: Handle) -> Self {
        let ahead = Arc::new(Semaphore::new(AHEAD_MAX));
        Self { overlay, runtime, ahead, failing: Arc::default() }
    }

    /// Runs work that may block, on another thread.
    pub(super) fn blocking(&self, work: impl FnOnce(&Overlay) + Send + 'static) {
        let overlay = self.overlay.clone();
        self.runtime.spawn_blocking(move || work(&overlay));
    }

    /// Runs an operation: at once where everything is at hand, else in a task. `answer` gets what
    /// comes of it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        node: Arc<Node>,
        mut work: impl FnMut(&Overlay, &Node, &Blocks) -> io::Result<Step<T>> + Send + 'static,
        answer: impl FnOnce(io::Result<T>) + Send + 'static,
    ) {
        let mut blocks = Blocks::default();
        let missing = loop {
            match work(&self.overlay, &node, &blocks) {
                Ok(Step::Done(value)) => return answer(Ok(value)),
                Err(error) => return answer(Err(error)),
                Ok(Step::Need(need)) => match gather(&node, &need, &mut blocks) {
                    Ok(missing) if missing.is_empty() => {}
                    Ok(missing) => break missing,
                    Err(error) => return answer(Err(error)),
                },
            }
        };
        let fetcher = self.clone();
        self.runtime.spawn(async move {
            let result = fetcher.finish(&node, work, blocks, missing).await;
            answer(result);
        });
    }

    async fn finish<T>(
        &self,
        node: &Arc<Node>,
        mut work: impl FnMut(&Overlay, &Node, &Blocks) -> io::Result<Step<T>>,
        mut blocks: Blocks,
        mut missing: Vec<u64>,
    ) -> io::Result<T> {
        loop {
            self.fetch(node, &missing, &mut blocks).await?;
            // Meanwhile the version below may have become another.
            missing = match work(&self.overlay, node, &blocks)? {
                Step::Done(value) => return Ok(value),
                Step::Need(need) => gather(node, &need, &mut blocks)?,
            };
        }
    }

    async fn fetch(
        &self,
        node: &Arc<Node>,
        missing: &[u64],
        blocks: &mut Blocks,
    ) -> io::Result<()> {
        let Some(origin) = node.origin() else { return Ok(()) };
        let fetches = missing.iter().map(|index| origin.source.block(origin.file, *index));
        let fetched = try_join_all(fetches).await.and_then(|fetched| {
            missing.iter().zip(fetched).try_for_each(|(index, bytes)| {
                check_length(&origin, *index, bytes.len())?;
                blocks.insert(origin.source.version(), *index, bytes);
                Ok(())
            })
        });
        match &fetched {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let path = &origin.source.tree().files()[origin.file].path;
                    tracing::warn!(
                        version = %origin.source.version(), file = %path, blocks = ?missing, %error,
                        "mongod gets an I/O error: blocks cannot be had"
                    );
                }
            }
        }
        fetched
    }

    /// Fetches the blocks behind a range, as far as there is room for that.
    pub(super) fn read_ahead(&self, node: &Arc<Node>, end: u64) {
        let Some(origin) = node.origin() else { return };
        let next = end.div_ceil(BLOCK_BYTES as u64);
        let Ok(blocks) = self.overlay.foreign_blocks(node, next, next + AHEAD_BLOCKS) else {
            return;
        };
        for index in blocks {
            let Ok(permit) = self.ahead.clone().try_acquire_owned() else { return };
            let origin = origin.clone();
            self.runtime.spawn(async move {
                // Who needs it asks again, and hears why it cannot be had.
                if origin.source.at_hand(origin.file, index).is_none() {
                    let _ = origin.source.block(origin.file, index).await;
                }
                drop(permit);
            });
        }
    }
}

/// Takes what is at hand; the others are missing.
fn gather(node: &Node, need: &[u64], blocks: &mut Blocks) -> io::Result<Vec<u64>> {
    let Some(origin) = node.origin() else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    for index in need {
        match origin.source.at_hand(origin.file, *index) {
            Some(bytes) => {
                check_length(&origin, *index, bytes.len())?;
                blocks.insert(origin.source.version(), *index, bytes);
            }
            None => missing.push(*index),
        }
    }
    Ok(missing)
}

fn check_length(origin: &Origin, index: u64, bytes: usize) -> io::Result<()> {
    let below = origin.source.tree().files()[origin.file].bytes;
    let expected = below.saturating_sub(index * BLOCK_BYTES as u64).min(BLOCK_BYTES as u64);
    if bytes as u64 == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("a block has {bytes} bytes instead of {expected}")))
}
