//! Garbage collection and scrub of the whole store: when, and what people are told of it.

use std::sync::Arc;
use std::time::Duration;

use argon_admin::types;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{BranchError, Branches, birth};
use crate::base::clock::Timestamp;
use crate::base::limits::GC_PATIENCE;
use crate::volume::{Collect, Collected, Mode, Scrubbed, Tally};

impl Branches {
    /// One run of retention and garbage collection. `progress` is told where it has got to, in words.
    ///
    /// # Errors
    /// The store fails, is damaged, or another server does the same.
    pub async fn collect_garbage(
        &self,
        how: types::CollectGarbage,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<types::Collected, BranchError> {
        // A dry run purges no branch whose time is over, so it does not count what that frees.
        let (mode, given_up) = match how.dry_run {
            true => (Mode::DryRun, self.let_go()?),
            false => (Mode::Run, self.retain().await?),
        };
        if mode == Mode::Run {
            birth::forget_condemned(&self.shared);
        }
        let min_age = self.shared.settings.garbage.min_age;
        let request = Collect { mode, min_age, given_up, awaited: birth::awaited(&self.shared) };
        let collected = self.shared.volumes.collect(&request, progress).await?;
        if mode == Mode::Run {
            self.forget(&collected.versions)?;
            birth::look_at_condemned(&self.shared).await?;
        }
        Ok(view(mode, &collected))
    }

    /// Verifies all that versions need.
    ///
    /// # Errors
    /// The store cannot be read; damage is no error, but what is told.
    pub async fn scrub(
        &self,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<types::Scrubbed, BranchError> {
        Ok(scrubbed(self.shared.volumes.scrub(progress).await?))
    }

    /// Begins to collect garbage as often as the settings say.
    pub(super) fn collect_garbage_now_and_then(&self) {
        let Some(interval) = self.shared.settings.garbage.interval else { return };
        // Weakly: what nobody else uses any more must not be kept open until the next run.
        let (shared, closing) = (Arc::downgrade(&self.shared), self.shared.closing.clone());
        self.shared.tasks.spawn(async move {
            let mut wait = GC_PATIENCE.min(interval);
            loop {
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = sleep(wait) => {}
                }
                let Some(shared) = shared.upgrade() else { return };
                let this = Self { shared };
                tokio::select! {
                    () = closing.cancelled() => return,
                    next = this.collect_if_due(interval) => wait = next,
                }
            }
        });
    }

    /// Gives how long to wait before looking again.
    async fn collect_if_due(&self, interval: Duration) -> Duration {
        // Another server on this store may have done it, or somebody by hand.
        match self.until_due(interval).await {
            Ok(Duration::ZERO) => self.collect_once(interval).await,
            Ok(due) => due,
            Err(error) => {
                warn!(error = error.chain(), "look when garbage was collected last");
                GC_PATIENCE
            }
        }
    }

    async fn until_due(&self, interval: Duration) -> Result<Duration, BranchError> {
        let last = birth::look_at_condemned(&self.shared).await?;
        Ok(until_due(last, self.shared.clock.now(), interval))
    }

    /// Gives how long to wait for the next.
    async fn collect_once(&self, interval: Duration) -> Duration {
        match self.collect_garbage(types::CollectGarbage { dry_run: false }, &|_| {}).await {
            Ok(collected) => {
                let (deleted, condemned) = (collected.deleted, collected.condemned);
                info!(
                    deleted_versions = deleted.versions,
                    deleted_bytes = deleted.bytes,
                    condemned_bytes = condemned.bytes,
                    kept_bytes = collected.kept.bytes,
                    rewritten_bytes = collected.rewritten.bytes,
                    "collected garbage"
                );
                interval
            }
            Err(error) => {
                warn!(error = error.chain(), hint = error.hint(), "collect garbage");
                GC_PATIENCE.max(interval / 8).min(interval)
            }
        }
    }
}

/// How long it is to the next run.
fn until_due(last: Option<Timestamp>, now: Timestamp, interval: Duration) -> Duration {
    // A clock that was ahead must not put it off for ever.
    let passed = last.map(|last| now.unix_ms().checked_sub(last.unix_ms()));
    match passed.flatten() {
        Some(passed) => interval.saturating_sub(Duration::from_millis(passed)),
        None => Duration::ZERO,
    }
}

fn view(mode: Mode, collected: &Collected) -> types::Collected {
    types::Collected {
        dry_run: mode == Mode::DryRun,
        deleted: tally(collected.deleted),
        condemned: tally(collected.condemned),
        next_at: collected.next.map(|next| next.to_string()),
        rewritten: tally(collected.rewritten),
        rewritten_as_bytes: collected.rewritten_as,
        kept: tally(collected.kept),
    }
}

fn tally(tally: Tally) -> types::Tally {
    let Tally { versions, pages, packs, bytes } = tally;
    types::Tally { versions, pages, packs, bytes }
}

fn scrubbed(found: Scrubbed) -> types::Scrubbed {
    let damages = found.damages.into_iter().map(|damage| types::Damage {
        object: damage.object.to_string(),
        problem: damage.problem,
        hurts: damage
            .hurts
            .into_iter()
            .map(|hurt| types::Hurt {
                version: hurt.version.to_string(),
                names: hurt.names,
                files: hurt.files,
            })
            .collect(),
    });
    types::Scrubbed {
        versions: found.versions,
        objects: found.objects,
        frames: found.frames,
        damages: damages.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_an_interval_after_the_last_of_any_server() {
        let at = Timestamp::from_unix_ms;
        for (last, now, due_ms) in [
            (None, 5_000, 0),
            (Some(1_000), 5_000, 6_000),
            (Some(1_000), 11_000, 0),
            (Some(1_000), 99_000, 0),
            (Some(9_000), 5_000, 0),
        ] {
            let due = until_due(last.map(at), at(now), Duration::from_secs(10));
            assert_eq!(due, Duration::from_millis(due_ms), "{last:?} {now}");
        }
    }
}
