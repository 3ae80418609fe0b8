//! What is watched while a branch runs: idleness, and the death of its mongod.

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use super::cell::Cell;
use super::claim::stay_owner;
use super::life::Life;
use super::shared::Shared;
use super::state::{Event, State};
use super::upload::{Wish, upload};
use super::{BranchError, oplog};
use crate::base::limits::{BOOT_SET_OPEN, IDLE_POSTPONE, IDLE_QUESTION};
use crate::volume::Cause;
use crate::wire::Client;

/// Until a branch that makes no versions by itself is told to.
const FAR_AWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs for one life; ends with it.
pub(super) async fn watch(shared: &Arc<Shared>, cell: &Arc<Cell>, life: &Arc<Life>) {
    tokio::select! {
        () = life.ended.cancelled() => {}
        exit = life.instance.wait() => {
            let how = format!("{exit}; its last log lines:\n{}", exit.log_tail());
            cell.died(shared, life, &how);
        }
        () = suspend_when_idle(shared, cell, life) => {}
        () = stay_owner(shared, cell, life) => {}
        () = make_versions(shared, cell, life) => {}
        () = oplog::keep_short(cell, life) => {}
    }
}

/// Makes a version now and then of a branch that is worked on, so that a machine that is lost takes
/// little with it. Only a lazy mount can be read while mongod writes.
async fn make_versions(shared: &Arc<Shared>, cell: &Arc<Cell>, life: &Arc<Life>) {
    sleep(BOOT_SET_OPEN).await;
    if let Some(mounted) = cell.mounted() {
        mounted.has_started(shared);
    }
    // Whatever was done until now counts.
    let mut seen = u64::MAX;
    let mut changes = shared.settings_changes();
    loop {
        let every = shared.snapshot_interval(&cell.row());
        tokio::select! {
            () = sleep(every.unwrap_or(FAR_AWAY)) => {}
            Ok(()) = changes.changed() => continue,
        }
        let (Some(_), Some(mounted)) = (every, cell.mounted()) else { continue };
        let worked = std::mem::replace(&mut seen, life.last_work()) != life.last_work();
        if !worked || !mounted.mount.is_changed() {
            continue;
        }
        // In a task of its own: this one ends with the life, wherever it is.
        let (whose, of) = (shared.clone(), cell.clone());
        let made = shared.tasks.spawn(async move {
            let wish = Wish::new(&whose, Cause::Periodic);
            upload(&whose, &of, wish).await
        });
        match made.await {
            Ok(Err(error)) if error.is_fenced() => return cell.lost(shared, life),
            // Another error is in the branch's status and in the log, and the next one tries again.
            _ => {}
        }
    }
}

async fn suspend_when_idle(shared: &Arc<Shared>, cell: &Arc<Cell>, life: &Arc<Life>) {
    let mut changes = shared.settings_changes();
    loop {
        let limit = shared.idle_timeout(&cell.row());
        let idle = async {
            match limit {
                Some(limit) => {
                    life.until_quiet().await;
                    sleep_until(life.idle_at(limit)).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        let limit = tokio::select! {
            limit = idle => limit,
            Ok(()) = changes.changed() => continue,
        };
        if !life.is_idle_for(limit) {
            continue;
        }
        // One that stands still was asked before.
        if !life.is_frozen() && has_open_transaction(life).await {
            sleep(IDLE_POSTPONE).await;
            continue;
        }
        let warm_until = shared.keep_warm(&cell.row()).map(|warm| life.idle_at(limit + warm));
        if let Some(until) = warm_until.filter(|until| *until > Instant::now())
            && life.is_idle_for(limit)
            && life.freeze()
        {
            info!(branch = %cell.id, name = %cell.name, "frozen until it is used or suspended");
            tokio::select! {
                () = sleep_until(until) => {}
                () = life.until_thawed() => continue,
                Ok(()) = changes.changed() => continue,
            }
        }
        cell.suspend_if_idle(shared, life);
        if cell.state() != State::Running {
            // The suspend ends this life; there is nothing more to watch.
            return life.ended.cancelled().await;
        }
    }
}

/// Asks mongod itself, which aborts a forgotten transaction after a minute. A mongod that does not
/// answer is not kept awake for that.
async fn has_open_transaction(life: &Life) -> bool {
    let question = doc! { "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0, "wiredTiger": 0 };
    let ask = async {
        let mut client = Client::connect(life.socket()).await?;
        let status = client.command("admin", question).await?;
        let open = status.get_document("transactions").ok().and_then(|transactions| {
            let open = transactions.get("currentOpen")?;
            open.as_i64().or_else(|| open.as_i32().map(i64::from))
        });
        Ok::<_, BranchError>(open.unwrap_or(0) > 0)
    };
    match timeout(IDLE_QUESTION, ask).await {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => {
            debug!(error = error.chain(), "ask for open transactions");
            false
        }
        Err(_) => false,
    }
}

/// Saves a branch that has unsaved writes and no mongod, unless a command wakes it first.
pub(super) async fn save_later(shared: &Arc<Shared>, cell: &Arc<Cell>, wait: Duration) {
    tokio::select! {
        () = shared.closing.cancelled() => return,
        () = sleep(wait) => {}
    }
    if cell.state() == State::Unsaved
        // Failing again arranges the next try.
        && let Err(error) = cell.ask(shared, Event::Suspend)
    {
        debug!(error = error.chain(), "try to save again");
    }
}
