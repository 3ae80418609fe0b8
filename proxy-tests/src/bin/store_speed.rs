//! How much of a link to the store does moving a whole branch use? `cargo run --release -p
//! proxy-tests --bin store_speed` captures and restores a directory of 2 GB through a store that
//! answers in 30 ms, at 200 MB/s for each request and 400 MB/s for all together, and prints a
//! table. `-- 512 100` takes 512 MB and a link of 100 MB/s.
//!
//! The objects lie in a directory, whose own time comes on top; the data hardly compresses, as
//! WiredTiger's own blocks, so that bytes on the link are about bytes on the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use argon::base::clock::{Clock, SystemClock};
use argon::base::ids::VersionId;
use argon::store::LocalStore;
use argon::store::throttle::{Pace, Throttled};
use argon::volume::{Capture, Cause, MongodVersion, Volumes};

const ANSWER: Duration = Duration::from_millis(30);
const STREAM_BYTES_PER_SECOND: f64 = 200e6;
const FILES: u64 = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().with_context(|| format!("`{text}` is no number")))
        .collect::<Result<_>>()?;
    let megabytes = numbers.first().copied().unwrap_or(2048);
    let link = numbers.get(1).copied().unwrap_or(400) as f64 * 1e6;
    ensure!(numbers.len() <= 2, "usage: store_speed [MEGABYTES [LINK_MB_PER_SECOND]]");

    let folder = tempfile::Builder::new().prefix("store-speed-").tempdir()?;
    let from = folder.path().join("from");
    make(&from, megabytes * 1_000_000)?;
    let inner = LocalStore::open(folder.path().join("store"))?;
    let pace = Pace { answer: ANSWER, stream: STREAM_BYTES_PER_SECOND, link };
    let clock = Arc::new(SystemClock::default());
    let volumes = Volumes::new(Arc::new(Throttled::new(Arc::new(inner), pace)), clock.clone());

    let request = Capture {
        id: VersionId::generate(clock.now()),
        parent: None,
        branch: None,
        cause: Cause::Suspend,
        mongod: MongodVersion { version: "6.0.5".to_owned(), fcv: "6.0".to_owned(), image: None },
        label: None,
    };
    println!(
        "| {megabytes} MB, link {} MB/s | s | MB/s on the link | of the link | peak memory |",
        link / 1e6
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut run = Run::begin()?;
    let version = volumes.capture(&from, request).await?;
    let stored = version.stored_bytes;
    run.end("capture", stored, link)?;
    fs::remove_dir_all(&from)?;
    run = Run::begin()?;
    volumes.restore(version.id, &folder.path().join("into")).await?;
    run.end("restore", stored, link)
}

/// Files of noise.
fn make(folder: &Path, bytes: u64) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0; 1 << 20];
    for number in 0..FILES {
        let mut file = File::create(folder.join(format!("collection-{number}.wt")))?;
        let mut left = bytes / FILES;
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                // xorshift64*
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
            }
            let part = left.min(block.len() as u64);
            file.write_all(&block[..part as usize])?;
            left -= part;
        }
    }
    Ok(())
}

/// A measurement of time and memory.
struct Run {
    begun: Instant,
}

impl Run {
    /// From here on the peak of memory counts anew: `man 5 proc_pid_clear_refs`.
    fn begin() -> Result<Self> {
        fs::write("/proc/self/clear_refs", "5").context("reset the peak of memory")?;
        Ok(Self { begun: Instant::now() })
    }

    fn end(self, what: &str, bytes: u64, link: f64) -> Result<()> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = bytes as f64 / seconds;
        let status = fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak: u64 = peak
            .and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok())
            .context("no VmHWM")?;
        println!(
            "| {what} | {seconds:.1} | {:.0} | {:.0} % | {} MB |",
            rate / 1e6,
            rate / link * 100.0,
            peak / 1024
        );
        Ok(())
    }
}
