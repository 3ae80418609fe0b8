//! A spinner on stderr for what takes over a second.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less than this shows no spinner.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Spins until it is dropped, on a terminal alone.
pub(super) struct Spinner {
    bar: ProgressBar,
    stop: Option<Sender<()>>,
    starting: Option<JoinHandle<()>>,
}

impl Spinner {
    pub(super) fn new(message: impl Into<String>) -> Self {
        // Without a style it is a bar of 0 of 0, and no message.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
            .with_style(ProgressStyle::default_spinner())
            .with_message(message.into());
        let (stop, stopped) = mpsc::channel();
        let shown = bar.clone();
        let starting = std::thread::spawn(move || {
            if stopped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // On what is no terminal this draws nothing.
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(TICK);
            }
        });
        Self { bar, stop: Some(stop), starting: Some(starting) }
    }

    pub(super) fn say(&self, message: String) {
        self.bar.set_message(message);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(starting) = self.starting.take() {
            // It cannot have panicked in a way that matters here.
            let _ = starting.join();
        }
        self.bar.finish_and_clear();
    }
}
