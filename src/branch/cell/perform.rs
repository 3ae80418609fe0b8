//! The effects of a branch's transitions, each in a task of its own.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

use super::{Cell, Inner, SAVE_BACKOFF};
use crate::branch::save::{Purpose, Saved};
use crate::branch::shared::Shared;
use crate::branch::state::{Effect, Event, IllegalTransition, next};
use crate::branch::upgrade::{self, Upgrade};
use crate::branch::upload::{self, Wish};
use crate::branch::{recover, rescue, save, wake, watch as watching};
use crate::volume::Cause;

impl Cell {
    pub(super) fn fire(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        inner: &mut Inner,
        event: Event,
    ) -> Result<(), IllegalTransition> {
        let (to, effect) = next(inner.state, event)?;
        if to != inner.state {
            info!(branch = %self.id, name = %self.name, from = ?inner.state, ?to, ?event, "branch");
        }
        inner.state = to;
        let (shared, cell) = (shared.clone(), self.clone());
        match effect {
            None => {}
            Some(Effect::Wake) => {
                inner.transition = Some(watch::Sender::new(None));
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    let result = wake::wake(&shared, &cell).await;
                    cell.woken(&shared, result);
                });
            }
            Some(Effect::Watch) => {
                if let Some(life) = inner.life.clone() {
                    let tasks = shared.tasks.clone();
                    tasks.spawn(async move { watching::watch(&shared, &cell, &life).await });
                }
            }
            Some(Effect::GiveUp) => {
                inner.transition = Some(watch::Sender::new(None));
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    let lost = rescue::give_up(&shared, &cell).await;
                    drop(cell.saved(&shared, Err(lost)));
                });
            }
            Some(Effect::Upload) => {
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    // The branch knows how it ended.
                    let wish = Wish::new(&shared, Cause::Suspend);
                    drop(upload::upload(&shared, &cell, wish).await);
                });
            }
            Some(effect @ (Effect::SetAside | Effect::ReadWhatIsSound)) => {
                inner.transition = Some(watch::Sender::new(None));
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    let result = match effect {
                        Effect::SetAside => recover::set_aside(&shared, &cell).await,
                        _ => recover::read_what_is_sound(&shared, &cell).await,
                    };
                    drop(cell.saved(&shared, result));
                });
            }
            Some(effect @ (Effect::Save | Effect::SaveSnapshot | Effect::SaveAndDelete)) => {
                let (purpose, following) = match (effect, inner.snapshot.take()) {
                    (Effect::SaveAndDelete, _) => (Purpose::Delete, None),
                    (Effect::SaveSnapshot, Some((snapshot, following))) => {
                        (Purpose::Snapshot(snapshot), following)
                    }
                    _ => (Purpose::Suspend, None),
                };
                inner.transition = Some(watch::Sender::new(None));
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    let result = save::save(&shared, &cell, purpose).await;
                    let (Ok(Saved::Whole), Some(Upgrade { to, set_fcv, answer })) =
                        (&result, following)
                    else {
                        drop(cell.saved(&shared, result));
                        return;
                    };
                    let upgraded = upgrade::follow(&shared, &cell, &to, set_fcv).await;
                    drop(cell.saved(&shared, result));
                    // Nobody listens who has gone.
                    let _ = answer.send(upgraded);
                });
            }
            Some(Effect::RetryLater) => {
                let wait = SAVE_BACKOFF.wait(inner.failed_saves.max(1), 1.0);
                let tasks = shared.tasks.clone();
                tasks.spawn(async move { watching::save_later(&shared, &cell, wait).await });
            }
        }
        Ok(())
    }
}
