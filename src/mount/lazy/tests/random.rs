//! Random operations on a mount and on a plain directory must give the same, whatever happens to the
//! mount in between: late and failing blocks, seals that are uploaded or given up, restarts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::overlay::Overlay;
use super::super::session::Tuning;
use super::super::{Durable, LazyMount, Reading, Sealed};
use super::source::{Files, Memory, Random, pattern, read_all, works};
use super::twin::{Op, Outcome, Profile, Side};

/// Everything of one run.
struct Run {
    runtime: Runtime,
    random: Random,
    seed: u64,
    overlay: PathBuf,
    source: Arc<Memory>,
    versions: u8,
    mount: Option<LazyMount>,
    ours: Side,
    plain: Side,
    /// A seal, and what the plain directory was at that time.
    sealed: Option<(Arc<Sealed>, Files)>,
}

/// How often something is done to the mount itself: once in so many operations.
#[derive(Clone, Copy)]
struct Pace {
    seal: u64,
    restart: u64,
    fail: u64,
}

/// Half of all runs have the kernel write back what it keeps, as where it can write nothing by itself.
fn tuning(seed: u64) -> Tuning {
    let tuning = Tuning::default();
    Tuning { direct: tuning.direct && seed.is_multiple_of(2), ..tuning }
}

fn first_version() -> Memory {
    let files = [
        ("f0", pattern(1, 200_001)),
        ("f1", pattern(2, 3_000)),
        ("d0/f0", pattern(3, 65_536)),
        ("d0/d2/f1", pattern(4, 131_072 + 4096)),
        ("d1/f2", Vec::new()),
    ];
    Memory::new(1, &["d0", "d0/d2", "d1"], &files)
}

impl Run {
    fn new(root: &Path, seed: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let source = Arc::new(first_version());
        let (overlay, mnt, plain) = (root.join("overlay"), root.join("mnt"), root.join("plain"));
        for folder in ["d0/d2", "d1"] {
            fs::create_dir_all(plain.join(folder)).unwrap();
        }
        for (name, content) in source.files() {
            fs::write(plain.join(&name), content).unwrap();
        }
        set_modes(&plain);
        let mount = {
            let _entered = runtime.enter();
            let overlay = Overlay::create(source.clone(), &overlay, Durable::AtOnce).unwrap();
            LazyMount::mount(overlay, &mnt, tuning(seed)).unwrap()
        };
        let (ours, plain) = (Side::new(&mnt), Side::new(&plain));
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mount = Some(mount);
        Self {
            runtime,
            random,
            seed,
            overlay,
            source,
            versions: 1,
            mount,
            ours,
            plain,
            sealed: None,
        }
    }

    fn mount(&self) -> &LazyMount {
        self.mount.as_ref().unwrap()
    }

    fn go(&mut self, steps: u64, profile: Profile, pace: Pace) {
        for step in 0..steps {
            let due = |random: &mut Random, one_in: u64| {
                one_in > 0 && random.next().is_multiple_of(one_in)
            };
            if due(&mut self.random, pace.fail) {
                self.source.fails.store(true, Ordering::Relaxed);
            }
            let op = Op::draw(&mut self.random, profile);
            let expected = self.plain.run(&op);
            let found = self.run_ours(&op);
            assert_same(&found, &expected, &format!("seed {} step {step} {op:?}", self.seed));
            if due(&mut self.random, pace.seal) {
                self.source.fails.store(false, Ordering::Relaxed);
                self.seal_or_settle(step);
            }
            if due(&mut self.random, pace.restart) {
                self.restart(step);
            }
            if step % 64 == 63 {
                self.compare(step);
            }
        }
        self.compare(steps);
        self.restart(steps);
    }

    /// What fails because a block cannot be had is tried again when it can.
    fn run_ours(&mut self, op: &Op) -> Outcome {
        let outcome = self.ours.run(op);
        if outcome == Err(libc::EIO) && self.source.fails.swap(false, Ordering::Relaxed) {
            return self.ours.run(op);
        }
        outcome
    }

    fn compare(&mut self, step: u64) {
        self.source.fails.store(false, Ordering::Relaxed);
        compare(&read_all(&self.ours.root), &read_all(&self.plain.root), &self.context(step));
        assert_eq!(modes(&self.ours.root), modes(&self.plain.root), "{}", self.context(step));
    }

    fn context(&self, step: u64) -> String {
        format!("seed {} step {step}", self.seed)
    }

    fn seal_or_settle(&mut self, step: u64) {
        let Some((sealed, files)) = self.sealed.take() else {
            let sealed = self.runtime.block_on(self.mount().seal()).unwrap();
            let tree = super::super::Changes::tree(&*sealed);
            let mut found: Vec<_> =
                tree.files().iter().map(|f| (f.path.as_str().to_owned(), f.mode)).collect();
            found.extend(tree.directories().iter().map(|d| (d.path.as_str().to_owned(), d.mode)));
            found.sort();
            let (files, modes) = (read_all(&self.plain.root), modes(&self.plain.root));
            assert_eq!(found, modes, "{}", self.context(step));
            self.sealed = Some((sealed, files));
            return;
        };
        if self.random.next().is_multiple_of(3) {
            // Given up, perhaps half read.
            return;
        }
        self.versions = self.versions.wrapping_add(1);
        let next = Memory::capture(self.versions, &self.source, &sealed);
        let next = self.runtime.block_on(next);
        compare(&next.files(), &files, &format!("{}: sealed", self.context(step)));
        if self.random.next().is_multiple_of(4) {
            return;
        }
        let rebased = self.mount().rebase(&sealed, next.clone());
        self.runtime.block_on(rebased).unwrap();
        self.source = next;
        self.compare(step);
    }

    fn restart(&mut self, step: u64) {
        self.source.fails.store(false, Ordering::Relaxed);
        self.ours.close_all();
        self.plain.close_all();
        self.sealed = None;
        let mount = self.mount.take().unwrap();
        self.runtime.block_on(mount.unmount()).unwrap();
        drop(mount);
        let _entered = self.runtime.enter();
        let recovered = Overlay::recover(self.source.clone(), &self.overlay, Reading::Whole)
            .and_then(|overlay| LazyMount::mount(overlay, &self.ours.root, tuning(self.seed)));
        self.mount =
            Some(recovered.unwrap_or_else(|error| panic!("{}: {error}", self.context(step))));
        self.compare(step);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.sealed = None;
        self.ours.close_all();
        self.mount = None;
    }
}

pub(super) fn set_modes(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let tree = crate::mount::walk(root).unwrap();
    let directories = tree.directories().iter().map(|d| (&d.path, 0o700));
    for (path, mode) in directories.chain(tree.files().iter().map(|f| (&f.path, 0o600))) {
        fs::set_permissions(root.join(path.as_str()), fs::Permissions::from_mode(mode)).unwrap();
    }
}

pub(super) fn modes(root: &Path) -> Vec<(String, u32)> {
    let tree = crate::mount::walk(root).unwrap();
    let mut modes: Vec<_> =
        tree.files().iter().map(|f| (f.path.as_str().to_owned(), f.mode)).collect();
    modes.extend(tree.directories().iter().map(|d| (d.path.as_str().to_owned(), d.mode)));
    modes.sort();
    modes
}

fn assert_same(found: &Outcome, expected: &Outcome, context: &str) {
    if found == expected {
        return;
    }
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            let first = found.iter().zip(expected).position(|(a, b)| a != b);
            panic!("{context}: {} and {} bytes, differ at {first:?}", found.len(), expected.len());
        }
        _ => {
            panic!("{context}: {:?} instead of {:?}", found.as_ref().err(), expected.as_ref().err())
        }
    }
}

fn compare(found: &Files, expected: &Files, context: &str) {
    let names = |files: &Files| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{context}");
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        assert_same(&Ok(found.clone()), &Ok(expected.clone()), &format!("{context}: {name}"));
    }
}

/// How many seeds: more when asked for.
pub(super) fn seeds(few: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("ARGON_SEEDS").ok().and_then(|text| text.parse().ok());
    match std::env::var("ARGON_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..wanted.unwrap_or(few),
    }
}

fn check(few: u64, steps: u64, profile: Profile, pace: Pace) {
    if !works() {
        return;
    }
    for seed in seeds(few) {
        let temporary = tempfile::tempdir().unwrap();
        let mut run = Run::new(temporary.path(), seed);
        run.go(steps, profile, pace);
    }
}

#[test]
fn names_and_content_are_those_of_a_plain_directory() {
    check(4, 500, Profile::Names, Pace { seal: 0, restart: 150, fail: 20 });
}

#[test]
fn one_file_is_that_of_a_plain_directory() {
    check(4, 500, Profile::Content, Pace { seal: 0, restart: 150, fail: 20 });
}

#[test]
fn seals_hold_what_was_there_and_change_nothing() {
    check(4, 500, Profile::Names, Pace { seal: 15, restart: 200, fail: 0 });
    check(4, 500, Profile::Content, Pace { seal: 15, restart: 200, fail: 20 });
}

/// A file that its writer syncs page by page is sealed as it was at one instant.
#[test]
fn a_seal_is_one_instant() {
    use std::os::unix::fs::FileExt;
    const PAGES: u64 = 64;
    if !works() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let run = Run::new(temporary.path(), 1);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["f0", "made"] {
            let (path, done) = (run.ours.root.join(name), &done);
            scope.spawn(move || {
                let mut options = fs::OpenOptions::new();
                let file = options.write(true).create(true).truncate(false).open(path).unwrap();
                let mut count = 1_u64;
                while !done.load(Ordering::Relaxed) {
                    let page = [count; 512].map(u64::to_le_bytes).concat();
                    file.write_all_at(&page, (count % PAGES) * 4096).unwrap();
                    file.sync_data().unwrap();
                    count += 1;
                }
            });
        }
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(10));
            let sealed = run.runtime.block_on(run.mount().seal()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            let next = run.runtime.block_on(Memory::capture(9, &run.source, &sealed));
            for name in ["f0", "made"] {
                let files = next.files();
                let Some((_, content)) = files.iter().find(|(known, _)| known == name) else {
                    continue;
                };
                let content = &content[..content.len().min(PAGES as usize * 4096)];
                let counts: Vec<u64> = content
                    .chunks_exact(4096)
                    .map(|page| u64::from_le_bytes(*page.first_chunk().unwrap()))
                    .collect();
                let known = |count: u64| count < 1_000_000;
                let last = counts.iter().copied().filter(|count| known(*count)).max().unwrap_or(0);
                for (page, count) in counts.iter().enumerate() {
                    // The last that was written to this page up to `last`.
                    let behind = (last + PAGES - page as u64) % PAGES;
                    let expected = last.checked_sub(behind).filter(|count| *count > 0);
                    let expected = expected.filter(|_| last > 0);
                    match expected {
                        Some(expected) => {
                            assert_eq!(*count, expected, "{name} page {page} of {last}")
                        }
                        None => assert!(*count == 0 || !known(*count), "{name} page {page}"),
                    }
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
