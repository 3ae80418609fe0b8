//! A client that writes numbers and remembers which of them were acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection};

use crate::wait::eventually_async;

/// Where it writes.
pub fn numbers(client: &Client) -> Collection<Document> {
    client.database("demo").collection("numbers")
}

/// Inserts numbers one after the other, and remembers what was acknowledged. What fails is not
/// tried again: it may be there or not.
#[derive(Debug)]
pub struct Writer {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<i64>>,
}

impl Writer {
    /// Begins with 0.
    pub fn start(client: &Client) -> Self {
        Self::start_at(client, 0)
    }

    /// Begins with this number.
    pub fn start_at(client: &Client, first: i64) -> Self {
        let (acknowledged, stop) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped, into) = (acknowledged.clone(), stop.clone(), numbers(client));
        let task = tokio::spawn(async move {
            let mut written = Vec::new();
            for number in first.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                if into.insert_one(doc! { "_id": number }).await.is_ok() {
                    written.push(number);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            written
        });
        Self { acknowledged, stop, task }
    }

    /// Waits until so many more were acknowledged than now.
    pub async fn until_written(&self, more: usize) -> Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        let ask =
            || async { Ok((self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())) };
        eventually_async(format!("{more} more writes are acknowledged"), ask).await
    }

    /// How many were acknowledged by now.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it wherever it is, and gives how many were acknowledged.
    pub fn abandon(self) -> usize {
        self.task.abort();
        self.acknowledged()
    }

    /// Ends it, and gives the numbers that were acknowledged.
    pub async fn finish(self) -> Result<Vec<i64>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

/// Makes sure that these numbers can be read.
pub async fn check_all_there(client: &Client, acknowledged: &[i64]) -> Result<()> {
    let cursor = numbers(client).find(doc! {}).await?;
    let documents: Vec<_> = cursor.try_collect().await?;
    let found: BTreeSet<_> =
        documents.iter().map(|one| one.get_i64("_id")).collect::<Result<_, _>>()?;
    let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains(number)).collect();
    ensure!(lost.is_empty(), "of {} acknowledged writes lost: {lost:?}", acknowledged.len());
    Ok(())
}
