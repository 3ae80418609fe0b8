//! What a mount was sealed as becomes the version below it; and a long log is written anew.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::node::Origin;
use super::overlay::{Overlay, Seal};
use super::pages::PAGE_BYTES;
use super::record::Record;
use super::seal::Sealed;
use super::snapshot::{self, Dirty, Places, source_bytes_after};
use super::{Changes, Source};
use crate::mount::MountError;

impl Overlay {
    /// On the disk first, then in memory. After an error everything is as before. Blocks.
    pub(super) fn rebase(
        self: &Arc<Self>,
        sealed: &Sealed,
        source: Arc<dyn Source>,
    ) -> Result<(), MountError> {
        if !sealed.is_of(self) || source.tree() != sealed.tree() {
            return Err(MountError::NotSealed { path: self.directory.clone() });
        }
        let doing = "put on the disk";
        let failed = || MountError::io(doing, &self.directory);
        for file in sealed.files() {
            // The log is going to say that it has all of its pages.
            if file.node.read().is_ok_and(|state| state.has_data) {
                self.fsync(&file.node).map_err(failed())?;
            }
        }
        let places: Places = sealed
            .files()
            .iter()
            .enumerate()
            .map(|(place, file)| (file.node.number, (place, file.bytes)))
            .collect();
        let version = source.version();
        let _one = self.rewriting();
        let gate = self.close_gate();
        // What the kernel writes by itself must not be said to be as the version below is.
        let unchanged = !self.is_changed_since_seal() && !self.has_direct();
        // Where writes go on, they wait for the memory alone.
        let gate = unchanged.then_some(gate);
        let dirty = if unchanged { Dirty::No } else { Dirty::Yes };
        self.rewrite(|overlay| snapshot::records(&overlay.names(), version, dirty, Some(&places)))
            .map_err(failed())?;
        let gate = gate.unwrap_or_else(|| self.close_gate());
        self.stand_on(sealed, &source);
        if unchanged {
            self.is_clean_again();
        }
        drop(gate);
        Ok(())
    }

    fn stand_on(&self, sealed: &Sealed, source: &Arc<dyn Source>) {
        for (place, file) in sealed.files().iter().enumerate() {
            let Ok(mut state) = file.node.write() else { continue };
            let bytes = source_bytes_after(&state, file.bytes);
            let (start, end) = (state.source_end(), bytes.div_ceil(PAGE_BYTES));
            if state.has_data {
                state.present.insert_range(start, end);
            }
            state.origin = Some(Origin { source: source.clone(), file: place });
            state.source_bytes = bytes;
            state.guard = None;
        }
        *self.below.write().unwrap_or_else(PoisonError::into_inner) = source.clone();
        sealed.settle();
        *self.sealed() = Seal::None;
    }

    /// Writes the log anew, where it has grown long.
    pub(super) fn shorten_log(&self) -> io::Result<()> {
        if !self.start.is_settled() || !self.log.is_long() {
            return Ok(());
        }
        let _one = self.rewriting();
        let below = self.below.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.rewrite(|overlay| {
            snapshot::records(&overlay.names(), below.version(), Dirty::Yes, None)
        })
    }

    fn rewriting(&self) -> MutexGuard<'_, ()> {
        self.rewriting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called by one at a time.
    fn rewrite(&self, records: impl FnOnce(&Self) -> Vec<Record>) -> io::Result<()> {
        self.log.fork();
        let records = records(self);
        self.log.replace(&records)
    }
}
