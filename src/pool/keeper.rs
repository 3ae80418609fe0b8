//! The task that keeps a pool filled.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Inner;
use super::member::{ParkedMongod, Place};
use super::plan::{self, Step};
use crate::base::blocking::blocking;
use crate::base::limits::{PARK_DEADLINE, PARK_LOOK};
use crate::compute::{ComputeError, Exit};
use crate::mount::MountError;
use crate::mount::lazy::{HeldMount, Template};

/// Why a mongod could not be parked.
#[derive(Debug, Error)]
enum ParkError {
    #[error("make its directories")]
    Place(#[from] io::Error),
    #[error("mount its dbpath")]
    Mount(#[from] MountError),
    #[error("start it")]
    Compute(#[from] ComputeError),
    #[error("it ended ({}); its last log lines:\n{}", .0, .0.log_tail())]
    Ended(Exit),
    #[error("it did not come to where it opens its storage in {PARK_DEADLINE:?}")]
    Late,
    #[error("the pool is closed")]
    Closed,
}

/// Runs until the pool is closed.
pub(super) async fn keep(inner: &Arc<Inner>, template: &Template) {
    while !inner.closing.is_cancelled() {
        let wait = match plan::next(&inner.standing()) {
            Step::Start => {
                start(inner, template).await;
                continue;
            }
            Step::Wait(time) => time,
            Step::Rest => PARK_LOOK,
        };
        tokio::select! {
            () = inner.closing.cancelled() => {}
            () = inner.changed.notified() => {}
            () = sleep(wait) => look(inner),
        }
    }
}

/// A process that was killed before its door does not end, so nobody is told: this looks.
fn look(inner: &Arc<Inner>) {
    let lost: std::collections::VecDeque<_> = {
        let mut state = inner.lock();
        let (sound, lost) = state.parked.drain(..).partition(ParkedMongod::is_sound);
        state.parked = sound;
        lost
    };
    for one in lost {
        inner.lose(one, "it was killed");
    }
}

async fn start(inner: &Arc<Inner>, template: &Template) {
    inner.lock().starting += 1;
    let parked = park(inner, template).await;
    let mut state = inner.lock();
    state.starting -= 1;
    match parked {
        Ok(parked) => {
            state.parked.push_back(parked);
            (state.failures, state.failure) = (0, None);
        }
        Err(ParkError::Closed) => {}
        Err(error) => {
            drop(state);
            inner.lost(&chain(&error));
        }
    }
}

/// Starts one, and returns when it waits before its door. Where the pool is closed meanwhile it is ended
/// here: what was left to itself could outlive the server.
async fn park(inner: &Arc<Inner>, template: &Template) -> Result<ParkedMongod, ParkError> {
    let number = {
        let mut state = inner.lock();
        state.next += 1;
        state.next
    };
    let place = Place::make(&inner.settings, number)?;
    let (scratch, mountpoint, template) = (place.scratch(), place.mountpoint(), template.clone());
    let access = inner.settings.access;
    let mount = move || HeldMount::create(access, &template, &scratch, &mountpoint);
    let mount = blocking(mount).await?;
    let cell = place.cell(&inner.settings, mount.mountpoint());
    let process = timeout(PARK_DEADLINE, inner.compute.park(cell));
    let process = process.await.map_err(|_| ParkError::Late)??;
    let parked = ParkedMongod::new(mount, process, place);
    let arrived = timeout(PARK_DEADLINE, async {
        tokio::select! {
            () = parked.mount().knocked() => Ok(()),
            exit = parked.process().wait() => Err(ParkError::Ended(exit)),
            () = inner.closing.cancelled() => Err(ParkError::Closed),
        }
    });
    match arrived.await.unwrap_or(Err(ParkError::Late)) {
        Ok(()) => {
            parked.process().has_parked();
            debug!(number, "a mongod is parked");
            Ok(parked)
        }
        Err(error) => {
            parked.end().await;
            Err(error)
        }
    }
}

/// An error with its causes, in one text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
