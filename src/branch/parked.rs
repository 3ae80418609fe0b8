//! Commands that wait for a branch, counted, so that nobody closes the door before them, and capped,
//! so that a branch that does not wake fills neither memory nor time.

use std::sync::Arc;

use tokio::sync::watch;

use super::BranchError;
use crate::base::limits::{PARKED_BYTES_MAX, PARKED_MAX};
use crate::base::name::Name;

/// The commands that wait for one branch.
#[derive(Clone, Debug, Default)]
pub(super) struct Parking(Arc<watch::Sender<Crowd>>);

/// How many they are, and what was read of them.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    commands: usize,
    bytes: usize,
}

/// One command's place; dropped when it has its lease, or gives up.
#[derive(Debug)]
pub(super) struct Parked {
    parking: Parking,
    bytes: usize,
}

/// A command that may have to wait. It takes its place once, however many transitions it waits for.
#[derive(Debug)]
pub(super) struct Waiter {
    bytes: usize,
    place: Option<Parked>,
}

impl Waiter {
    /// Of a command of which at most `bytes` are held in memory while it waits.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, place: None }
    }

    /// Takes a place, if it has none yet.
    pub(super) fn park(&mut self, parking: &Parking, branch: &Name) -> Result<(), BranchError> {
        if self.place.is_none() {
            self.place = Some(parking.park(self.bytes, branch)?);
        }
        Ok(())
    }
}

impl Parking {
    fn park(&self, bytes: usize, branch: &Name) -> Result<Parked, BranchError> {
        let mut full = None;
        self.0.send_if_modified(|crowd| {
            if crowd.commands >= PARKED_MAX || crowd.bytes + bytes > PARKED_BYTES_MAX {
                full = Some(*crowd);
                return false;
            }
            crowd.commands += 1;
            crowd.bytes += bytes;
            true
        });
        match full {
            None => Ok(Parked { parking: self.clone(), bytes }),
            Some(Crowd { commands, bytes }) => {
                Err(BranchError::Crowded { branch: branch.clone(), commands, bytes })
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().commands
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().commands == 0
    }

    /// Returns when nobody waits any more. Each place is held for a limited time, and a running
    /// branch gives out no new ones, so this ends.
    pub(super) async fn until_empty(&self) {
        let mut crowd = self.0.subscribe();
        // The sender lives in `self`, so there is no end of news before the news.
        let _ = crowd.wait_for(|crowd| crowd.commands == 0).await;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.parking.0.send_modify(|crowd| {
            crowd.commands -= 1;
            crowd.bytes -= self.bytes;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "dev".parse().unwrap()
    }

    #[tokio::test]
    async fn it_is_empty_when_the_last_one_has_left() {
        let parking = Parking::default();
        let (first, second) = (parking.park(1, &name()), parking.park(2, &name()));
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

    #[test]
    fn no_more_wait_than_the_caps_allow() {
        for (bytes, fit) in [
            (0, PARKED_MAX),
            (1000, PARKED_MAX),
            (PARKED_BYTES_MAX / 10, 10),
            (PARKED_BYTES_MAX, 1),
            (PARKED_BYTES_MAX + 1, 0),
        ] {
            let parking = Parking::default();
            let mut places: Vec<_> =
                std::iter::from_fn(|| parking.park(bytes, &name()).ok()).collect();
            assert_eq!(places.len(), fit, "{bytes} bytes");
            let error = parking.park(bytes, &name()).unwrap_err();
            assert!(matches!(error, BranchError::Crowded { commands, .. } if commands == fit));
            assert!(error.retryable());
            if places.pop().is_some() {
                assert!(parking.park(bytes, &name()).is_ok(), "a place that is left is free");
            }
        }
    }

    #[test]
    fn a_command_takes_one_place_however_long_it_waits() {
        let parking = Parking::default();
        let mut waiter = Waiter::new(PARKED_BYTES_MAX);
        for _ in 0..3 {
            waiter.park(&parking, &name()).unwrap();
        }
        assert!(!parking.is_empty());
        drop(waiter);
        assert!(parking.is_empty());
    }
}
