//! Ctrl-C: say that the work goes on, and leave no half file behind.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

/// What an interrupt would break into, one thing at a time.
#[derive(Clone, Debug)]
enum Interrupted {
    Nothing,
    /// Says how to follow it.
    Following(String),
    /// A file that is not whole yet.
    Writing(PathBuf),
}

static INTERRUPTED: Mutex<Interrupted> = Mutex::new(Interrupted::Nothing);

/// Stands for the time during which something would be interrupted.
#[derive(Debug)]
pub(super) struct Watch(());

/// Handles SIGINT from now on. Where that is not possible the signal ends the process as ever.
pub(super) fn install() {
    if let Ok(mut signals) = Signals::new([SIGINT]) {
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                end();
            }
        });
    }
}

/// Until the watch is dropped an interrupt tells people to follow the work with `command`.
pub(super) fn while_following(command: String) -> Watch {
    set(Interrupted::Following(command));
    Watch(())
}

/// Until the watch is dropped an interrupt removes the file `path`.
pub(super) fn while_writing(path: &Path) -> Watch {
    set(Interrupted::Writing(path.to_owned()));
    Watch(())
}

impl Drop for Watch {
    fn drop(&mut self) {
        set(Interrupted::Nothing);
    }
}

fn set(interrupted: Interrupted) {
    *INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner) = interrupted;
}

fn end() -> ! {
    let interrupted = INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let note = match interrupted {
        Interrupted::Nothing => String::new(),
        Interrupted::Following(command) => {
            format!(
                "\ninterrupted: the work goes on in the server\nhint: follow it with {command}\n"
            )
        }
        Interrupted::Writing(path) => {
            let _ = std::fs::remove_file(path);
            "\ninterrupted: nothing was kept\n".to_owned()
        }
    };
    // A closed stderr is no reason to stay.
    let _ = std::io::stderr().write_all(note.as_bytes());
    std::process::exit(130);
}
