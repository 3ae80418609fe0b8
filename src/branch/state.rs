//! The lifecycle of a branch, as a pure function.
//!
//! ```text
//!                 Demand                  WakeDone
//!    Suspended ------------>  Waking  -------------->  Running
//!     ^  ^   ^                |  ^                     |  |  |
//!     |  |   '--- WakeFailed -'  | Demand              |  |  | Suspend
//!     |  |       (nothing local) |                     |  |  | IdleElapsed
//!     |  |                    Unsaved <----- Died -----'  |  v
//!     |  |                    |  ^   ^                    | Suspending
//!     |  |            Suspend |  |   '--- SaveFailed -----|--'  |
//!     |  |                    '--|-> Suspending           |     | Saved
//!     |  '-----------------------|------------------------|-----' (or nothing is left to save)
//!     |                          '---- SaveFailed ----.   | Delete (also from Suspended, Unsaved)
//!     | Undelete                                      |   v
//!  Deleted <------------------ Saved --------------- Deleting
//! ```
//!
//! On a lazy mount a suspend ends for its caller when the state is safe here: `Suspending` ends in
//! `Slept`, the branch is `Unsaved`, and its upload runs. `Uploaded` leads through `Suspending` (the
//! head is given back, this machine cleared) to `Suspended`; a command that comes before wakes it.
//!
//! A working directory that cannot be read in full makes the branch `Held`: nothing is done with it
//! until somebody decides. `GoBack` puts it aside, `Salvage` takes what can be read; both lead
//! through `Suspending`.
//!
//! `Snapshot` is a `Suspend` that makes a version even where nothing is unsaved, so it leads to
//! `Suspending` from `Suspended` too. A `SaveFailed` with nothing local leads back to `Suspended`.
//!
//! An upgrade to another image is a `Snapshot` that something follows before commands are let in again
//! ([`super::upgrade`]); whether that succeeds or fails, it ends in `Saved`.
//!
//! `Unsaved` is a branch without a mongod whose working directory holds writes that no version
//! has: its mongod or the server died, or saving failed. Nothing of it is lost: a command wakes it
//! from there, and saving is tried again.
//!
//! A `Running` branch that is `Lost` to another server is `Suspending` until its writes are safe in
//! a branch of their own; then nothing of it is here, which looks like a save that failed with
//! nothing left.

use thiserror::Error;

/// Where a branch is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All it holds is in its head version; it owns nothing on this machine.
    Suspended,
    /// Its volume is being mounted and its mongod started.
    Waking,
    /// Its mongod takes commands.
    Running,
    /// Commands are parked, mongod is stopped, its writes become a version.
    Suspending,
    /// No mongod; its working directory holds writes that no version has.
    Unsaved,
    /// Its working directory cannot be read in full; somebody must decide.
    Held,
    /// Like `Suspending`, on the way to `Deleted`; commands are refused.
    Deleting,
    /// Listed with the deleted ones, restorable until it is purged.
    Deleted,
}

/// What happens to a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody needs it running: a client's command, or `resume`.
    Demand,
    /// mongod is a writable primary.
    WakeDone,
    /// It could not be woken; `local` tells whether a working directory with unsaved writes is there.
    WakeFailed {
        /// What the working directory holds.
        local: Local,
    },
    /// `suspend`, or the server drains.
    Suspend,
    /// `snapshot`: as `Suspend`, and a version is made whether or not anything is unsaved.
    Snapshot,
    /// The idle rule says so. Only raised when it is quiet.
    IdleElapsed,
    /// No mongod runs any more; what it wrote is safe here, and is to be uploaded.
    Slept,
    /// All of it is in the store; if the branch still sleeps, its head may be given back.
    Uploaded,
    /// It could not be uploaded.
    UploadFailed,
    /// The writes of this life are in the head version.
    Saved,
    /// They are not; `local` tells whether they are still in the working directory, or there is
    /// none any more, or never was.
    SaveFailed {
        /// What the working directory holds.
        local: Local,
    },
    /// Another server has taken the branch over.
    Lost,
    /// mongod ended by itself.
    Died,
    /// `delete`.
    Delete,
    /// `undelete`.
    Undelete,
    /// Put a working directory that cannot be read aside, and go on from the last version.
    GoBack,
    /// Go on with what can be read of it.
    Salvage,
}

/// Whether a working directory holds writes that no version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// There is none.
    Nothing,
    /// There is one.
    Unsaved,
    /// There is one, and it cannot be read in full.
    Damaged,
}

/// What has to be done on a transition; each is performed by `cell`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Mount the volume and start mongod; ends in `WakeDone` or `WakeFailed`.
    Wake,
    /// Notice idleness and death of the mongod that just became ready.
    Watch,
    /// Drain, stop mongod if there is one, save; ends in `Slept`, `Saved` or `SaveFailed`.
    Save,
    /// Upload what the lazy mount holds; ends in `Uploaded` or `UploadFailed`.
    Upload,
    /// Put the working directory aside; ends in `Saved` or `SaveFailed`.
    SetAside,
    /// Read of it what can be read; ends in `Slept` or `SaveFailed`.
    ReadWhatIsSound,
    /// As `Save`, with a label and even where nothing is unsaved.
    SaveSnapshot,
    /// As `Save`, and mark the head deleted.
    SaveAndDelete,
    /// Stop mongod at once, and make its writes a branch of their own; ends in `SaveFailed`.
    GiveUp,
    /// Save after a pause, unless a command wakes the branch first.
    RetryLater,
}

/// An event that has no meaning in a state.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum IllegalTransition {
    /// It will have one when the present transition has ended.
    #[error("the branch is {0:?}: wait until that is over")]
    Busy(State),
    /// The branch was deleted, or is about to be.
    #[error("the branch is deleted")]
    Deleted,
    /// Somebody must decide about its working directory first.
    #[error("the branch is held")]
    Held,
    /// A decision about a branch that is not held.
    #[error("the branch is not held")]
    NotHeld,
    /// `undelete` of a branch that lives.
    #[error("the branch is not deleted")]
    NotDeleted,
    /// A report from a task that should not exist: a defect, kept inside this branch.
    #[error("{1:?} in state {0:?}")]
    Stray(State, Event),
}

/// The whole lifecycle. An event that asks for what already is changes nothing.
pub fn next(state: State, event: Event) -> Result<(State, Option<Effect>), IllegalTransition> {
    use Event as E;
    use IllegalTransition::{Busy, NotDeleted, NotHeld, Stray};
    use State as S;
    let stay = Ok((state, None));
    match (state, event) {
        (S::Suspended | S::Unsaved, E::Demand) => Ok((S::Waking, Some(Effect::Wake))),
        (S::Waking | S::Running, E::Demand) => stay,
        (S::Suspending, E::Demand) => Err(Busy(state)),

        (S::Waking, E::WakeDone) => Ok((S::Running, Some(Effect::Watch))),
        (S::Waking, E::WakeFailed { local: Local::Nothing }) => Ok((S::Suspended, None)),
        (S::Waking, E::WakeFailed { local: Local::Unsaved }) => Ok((S::Unsaved, None)),
        (S::Waking, E::WakeFailed { local: Local::Damaged }) => Ok((S::Held, None)),

        (S::Running | S::Unsaved, E::Suspend) => Ok((S::Suspending, Some(Effect::Save))),
        (S::Suspended, E::Suspend) => stay,
        (S::Waking | S::Suspending, E::Suspend) => Err(Busy(state)),

        (S::Suspended | S::Running | S::Unsaved, E::Snapshot) => {
            Ok((S::Suspending, Some(Effect::SaveSnapshot)))
        }
        (S::Waking | S::Suspending, E::Snapshot) => Err(Busy(state)),

        (S::Running, E::IdleElapsed) => Ok((S::Suspending, Some(Effect::Save))),
        // The timer's life is over: a suspend or a death was faster.
        (_, E::IdleElapsed) => stay,

        (S::Suspending, E::Slept) => Ok((S::Unsaved, Some(Effect::Upload))),
        (S::Unsaved, E::Uploaded) => Ok((S::Suspending, None)),
        (S::Unsaved, E::UploadFailed) => Ok((S::Unsaved, Some(Effect::RetryLater))),
        // It woke up meanwhile, or is on its way elsewhere.
        (_, E::Uploaded | E::UploadFailed) => stay,

        (S::Suspending, E::Saved) => Ok((S::Suspended, None)),
        (S::Deleting, E::Saved) => Ok((S::Deleted, None)),
        (S::Suspending | S::Deleting, E::SaveFailed { local: Local::Unsaved }) => {
            Ok((S::Unsaved, Some(Effect::RetryLater)))
        }
        (S::Suspending | S::Deleting, E::SaveFailed { local: Local::Nothing }) => {
            Ok((S::Suspended, None))
        }

        (S::Suspending | S::Deleting, E::SaveFailed { local: Local::Damaged }) => {
            Ok((S::Held, None))
        }
        (S::Held, E::GoBack) => Ok((S::Suspending, Some(Effect::SetAside))),
        (S::Held, E::Salvage) => Ok((S::Suspending, Some(Effect::ReadWhatIsSound))),
        (_, E::GoBack | E::Salvage) => Err(NotHeld),
        (S::Held, E::Demand | E::Suspend | E::Snapshot | E::Delete) => Err(IllegalTransition::Held),

        (S::Running, E::Lost) => Ok((S::Suspending, Some(Effect::GiveUp))),
        // Whatever is under way finds it out when it comes to the head.
        (_, E::Lost) => stay,

        (S::Running, E::Died) => Ok((S::Unsaved, Some(Effect::RetryLater))),
        // Whoever stops mongod sees its end too; the watch on it has nothing to add.
        (_, E::Died) => stay,

        (S::Suspended | S::Running | S::Unsaved, E::Delete) => {
            Ok((S::Deleting, Some(Effect::SaveAndDelete)))
        }
        (S::Waking | S::Suspending | S::Deleting, E::Delete) => Err(Busy(state)),
        (S::Deleted, E::Delete) => stay,

        (S::Deleted, E::Undelete) => Ok((S::Suspended, None)),
        (S::Deleting, E::Undelete) => Err(Busy(state)),
        (_, E::Undelete) => Err(NotDeleted),

        (S::Deleting | S::Deleted, E::Demand | E::Suspend | E::Snapshot) => {
            Err(IllegalTransition::Deleted)
        }
        (_, E::WakeDone | E::WakeFailed { .. } | E::Slept | E::Saved | E::SaveFailed { .. }) => {
            Err(Stray(state, event))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 8] = [
        State::Suspended,
        State::Waking,
        State::Running,
        State::Suspending,
        State::Unsaved,
        State::Held,
        State::Deleting,
        State::Deleted,
    ];
    const EVENTS: [Event; 21] = [
        Event::Demand,
        Event::WakeDone,
        Event::WakeFailed { local: Local::Nothing },
        Event::WakeFailed { local: Local::Unsaved },
        Event::Suspend,
        Event::IdleElapsed,
        Event::Saved,
        Event::SaveFailed { local: Local::Nothing },
        Event::SaveFailed { local: Local::Unsaved },
        Event::Lost,
        Event::Died,
        Event::Delete,
        Event::Undelete,
        Event::Snapshot,
        Event::Slept,
        Event::Uploaded,
        Event::UploadFailed,
        Event::WakeFailed { local: Local::Damaged },
        Event::SaveFailed { local: Local::Damaged },
        Event::GoBack,
        Event::Salvage,
    ];

    /// One letter a cell: the first of the next state (s Suspended, w Waking, r Running, u Unsaved,
    /// g Suspending, p the same for a snapshot, l the same because it is lost, d Deleting, a the same to put
    /// aside, v to salvage, t Unsaved with an upload; a capital: a move without an effect, G to Suspending,
    /// D to Deleted), `.` stays as it is, `b` busy, `x` deleted, `n` not deleted, `h` held, `k` not held, `!` stray.
    #[rustfmt::skip]
    const TABLE: [(State, &str); 8] = [
        //                   Demand
        //                   | WakeDone
        //                   | | Failed, nothing local
        //                   | | | Failed, unsaved
        //                   | | | | Suspend
        //                   | | | | | IdleElapsed
        //                   | | | | | | Saved
        //                   | | | | | | | Failed, nothing left
        //                   | | | | | | | | Failed, unsaved
        //                   | | | | | | | | | Lost
        //                   | | | | | | | | | | Died
        //                   | | | | | | | | | | | Delete
        //                   | | | | | | | | | | | | Undelete
        //                   | | | | | | | | | | | | | Snapshot
        //                   | | | | | | | | | | | | | | Slept
        //                   | | | | | | | | | | | | | | | Uploaded
        //                   | | | | | | | | | | | | | | | | UploadFailed
        //                   | | | | | | | | | | | | | | | | | Wake failed, damaged
        //                   | | | | | | | | | | | | | | | | | | Save failed, damaged
        //                   | | | | | | | | | | | | | | | | | | | GoBack
        //                   | | | | | | | | | | | | | | | | | | | | Salvage
        (State::Suspended,  "w ! ! ! . . ! ! ! . . d n p ! . . ! ! k k"),
        (State::Waking,     ". r S U b . ! ! ! . . b n b ! . . H ! k k"),
        (State::Running,    ". ! ! ! g g ! ! ! l u d n p ! . . ! ! k k"),
        (State::Suspending, "b ! ! ! b . S S u . . b n b t . . ! H k k"),
        (State::Unsaved,    "w ! ! ! g . ! ! ! . . d n p ! G u ! ! k k"),
        (State::Held,       "h ! ! ! h . ! ! ! . . h n h ! . . ! ! a v"),
        (State::Deleting,   "x ! ! ! x . D S u . . b b x ! . . ! H k k"),
        (State::Deleted,    "x ! ! ! x . ! ! ! . . . S x ! . . ! ! k k"),
    ];

    fn letter(state: State, event: Event) -> char {
        match next(state, event) {
            Ok((to, None)) if to == state => '.',
            Ok((State::Waking, Some(Effect::Wake))) => 'w',
            Ok((State::Running, Some(Effect::Watch))) => 'r',
            Ok((State::Suspending, Some(Effect::Save))) => 'g',
            Ok((State::Suspending, Some(Effect::GiveUp))) => 'l',
            Ok((State::Suspending, Some(Effect::SaveSnapshot))) => 'p',
            Ok((State::Deleting, Some(Effect::SaveAndDelete))) => 'd',
            Ok((State::Unsaved, Some(Effect::RetryLater))) => 'u',
            Ok((State::Unsaved, Some(Effect::Upload))) => 't',
            Ok((State::Suspending, Some(Effect::SetAside))) => 'a',
            Ok((State::Suspending, Some(Effect::ReadWhatIsSound))) => 'v',
            Ok((State::Suspending, None)) => 'G',
            Ok((State::Held, None)) => 'H',
            Ok((State::Unsaved, None)) => 'U',
            Ok((State::Suspended, None)) => 'S',
            Ok((State::Deleted, None)) => 'D',
            Ok(other) => panic!("{state:?} x {event:?} leads to {other:?}"),
            Err(IllegalTransition::Busy(_)) => 'b',
            Err(IllegalTransition::Deleted) => 'x',
            Err(IllegalTransition::NotDeleted) => 'n',
            Err(IllegalTransition::Held) => 'h',
            Err(IllegalTransition::NotHeld) => 'k',
            Err(IllegalTransition::Stray(..)) => '!',
        }
    }

    #[test]
    fn every_state_meets_every_event() {
        for (state, row) in TABLE {
            let found: Vec<_> = EVENTS.map(|event| letter(state, event).to_string()).into();
            assert_eq!(found.join(" "), row, "{state:?}");
        }
        assert!(STATES.iter().all(|state| TABLE.iter().any(|(listed, _)| listed == state)));
    }

    #[test]
    fn a_state_with_unsaved_writes_never_becomes_suspended_but_by_saving() {
        for state in [State::Running, State::Unsaved, State::Suspending] {
            // That nothing is local is only said where nothing is.
            let saved = [Event::Saved, Event::SaveFailed { local: Local::Nothing }];
            for event in EVENTS.into_iter().filter(|event| !saved.contains(event)) {
                let to = next(state, event).map(|(to, _)| to);
                assert_ne!(to, Ok(State::Suspended), "{state:?} x {event:?}");
                assert_ne!(to, Ok(State::Deleted), "{state:?} x {event:?}");
            }
        }
    }
}
