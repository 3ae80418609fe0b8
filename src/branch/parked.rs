//! Commands that wait for a branch, counted, so that nobody closes the door before them.

use std::sync::Arc;

use tokio::sync::watch;

/// How many commands wait for one branch.
#[derive(Clone, Debug, Default)]
pub(super) struct Parking(Arc<watch::Sender<usize>>);

/// One command's place; dropped when it has its lease, or gives up.
#[derive(Debug)]
pub(super) struct Parked(Parking);

impl Parking {
    /// Takes a place.
    pub(super) fn park(&self) -> Parked {
        self.0.send_modify(|count| *count += 1);
        Parked(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        *self.0.borrow()
    }

    pub(super) fn is_empty(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Returns when nobody waits any more. Each place is held for a limited time, and a running
    /// branch gives out no new ones, so this ends.
    pub(super) async fn until_empty(&self) {
        let mut count = self.0.subscribe();
        // The sender lives in `self`, so there is no end of news before the news.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_empty_when_the_last_one_has_left() {
        let parking = Parking::default();
        let (first, second) = (parking.park(), parking.park());
        let waiting = tokio::spawn({
            let parking = parking.clone();
            async move { parking.until_empty().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!parking.is_empty() && !waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        assert!(parking.is_empty());
    }
}
