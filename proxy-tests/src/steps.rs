//! Visible steps with timings: what is done, how long it took, what was seen, what that proves.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Prints steps as they happen, on stdout.
#[derive(Debug)]
pub struct Steps {
    count: u32,
    started: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { count: 0, started: Instant::now() }
    }
}

impl Steps {
    /// Does one step and prints its number, name and time, what was seen, and what that proves.
    /// The work gives its result and what was seen.
    pub async fn step<T>(
        &mut self,
        name: &str,
        proves: &str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        self.count += 1;
        let label = format!("{:2}  {name}", self.count);
        print!("{label} ");
        std::io::stdout().flush().ok();
        let started = Instant::now();
        let result = work.await;
        let took = readable(started.elapsed());
        let dots = ".".repeat(84usize.saturating_sub(label.chars().count() + took.len()).max(2));
        match &result {
            Ok((_, seen)) => println!("{dots} {took}\n      seen   {seen}\n      so     {proves}"),
            Err(_) => println!("{dots} {took}\n      FAILED"),
        }
        Ok(result.with_context(|| format!("step {}: {name}", self.count))?.0)
    }

    /// How many steps were done.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Time since this was made.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A time for people: whole milliseconds, seconds with one digit from ten seconds on.
pub fn readable(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
