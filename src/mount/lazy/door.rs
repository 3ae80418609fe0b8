//! The door of a mount, before which a mongod waits until its volume is there.
//!
//! mongod looks up `WiredTiger.lock` when all that it does before it opens its storage is done. That
//! lookup is not answered until an overlay is put behind the door; from then on the mount shows that
//! overlay, and nothing of what it showed before.

use std::ffi::OsStr;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use fuser::{Errno, ReplyEntry};
use tokio::sync::watch;

use super::answer::{Owner, answer_lookup};
use super::fetch::Fetcher;
use super::names::ROOT;
use super::session::Access;

/// What is looked up last before the storage is opened.
const AWAITED: &str = "WiredTiger.lock";

/// A door that opens once.
#[derive(Debug)]
pub(super) struct Door {
    owner: Owner,
    behind: OnceLock<Fetcher>,
    state: Mutex<State>,
    knocked: watch::Sender<bool>,
}

#[derive(Debug)]
enum State {
    /// Nobody has come to it yet.
    Shut,
    /// Somebody waits.
    Knocked(ReplyEntry),
    Open,
    /// For good.
    Locked,
}

impl Door {
    pub(super) fn new(access: Access) -> Self {
        Self {
            owner: Owner::of(access),
            behind: OnceLock::new(),
            state: State::Shut.into(),
            knocked: watch::Sender::new(false),
        }
    }

    /// What is behind it, once it is open.
    pub(super) fn behind(&self) -> Option<&Fetcher> {
        self.behind.get()
    }

    /// A lookup: given back where nothing keeps it from being answered.
    pub(super) fn pass(&self, parent: u64, name: &OsStr, reply: ReplyEntry) -> Option<ReplyEntry> {
        if self.behind.get().is_some() || parent != ROOT || name != AWAITED {
            return Some(reply);
        }
        let mut state = self.lock();
        match *state {
            State::Open => return Some(reply),
            State::Shut => {
                *state = State::Knocked(reply);
                self.knocked.send_replace(true);
            }
            // The one process that is here asks once.
            State::Knocked(_) | State::Locked => reply.error(Errno::EIO),
        }
        None
    }

    /// Whether somebody waits.
    pub(super) fn is_waited_at(&self) -> bool {
        matches!(*self.lock(), State::Knocked(_))
    }

    /// Returns when somebody waits.
    pub(super) async fn knocked(&self) {
        // The sender is in `self`.
        let _ = self.knocked.subscribe().wait_for(|knocked| *knocked).await;
    }

    /// Puts an overlay behind the door, does what is to be done before anybody sees it, and lets
    /// in whoever waits. An error of `before` is theirs too.
    pub(super) fn open(
        &self,
        fetcher: Fetcher,
        before: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let reply = {
            let mut state = self.lock();
            match std::mem::replace(&mut *state, State::Locked) {
                State::Knocked(reply) => {
                    // It is set here alone, and only once.
                    let _ = self.behind.set(fetcher.clone());
                    *state = State::Open;
                    reply
                }
                other => {
                    *state = other;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
        };
        match before() {
            Ok(()) => {
                answer_lookup(&fetcher.overlay, self.owner, ROOT, OsStr::new(AWAITED), reply);
                Ok(())
            }
            Err(error) => {
                reply.error(Errno::EIO);
                Err(error)
            }
        }
    }

    /// Turns away whoever waits or comes: a process that waits here cannot even be killed.
    pub(super) fn turn_away(&self) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Locked) {
            State::Knocked(reply) => reply.error(Errno::EIO),
            State::Open => *state = State::Open,
            State::Shut | State::Locked => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
