//! Client connections of a branch, counted while they live.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::BranchError;
use super::cell::Cell;
use super::shared::Shared;
use crate::base::gauge::Counted;
use crate::base::metrics;

/// Counts a client connection for as long as it lives.
#[derive(Debug)]
pub(super) struct ClientCount {
    cell: Arc<Cell>,
    /// Taken with its first command.
    place: OnceLock<Counted>,
}

impl ClientCount {
    pub(super) fn new(cell: Arc<Cell>) -> Self {
        cell.clients.fetch_add(1, Ordering::Relaxed);
        Self { cell, place: OnceLock::new() }
    }

    /// Takes one of the branch's places, unless this connection has one. A refused connection may
    /// try again with its next command.
    pub(super) fn take_place(&self, shared: &Shared) -> Result<(), BranchError> {
        if self.place.get().is_some() {
            return Ok(());
        }
        let max = shared.settings.clients_max;
        let Some(place) = self.cell.users.try_enter(max) else {
            shared.metrics.turned_away(metrics::TurnedAway::BranchFull);
            return Err(BranchError::TooManyClients { branch: self.cell.name.clone(), max });
        };
        // A second place, taken at the same time, is given back by this drop.
        drop(self.place.set(place));
        Ok(())
    }
}

impl Drop for ClientCount {
    fn drop(&mut self) {
        self.cell.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
