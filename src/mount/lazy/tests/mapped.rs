//! A file that stays mapped while it is written by other means too, punched, synced and sealed: what the
//! mapping shows, what the descriptor reads and what the seal holds are one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::super::{Access, LazyMount};
use super::mapping::Mapping;
use super::random::seeds;
use super::source::{Memory, Random, pattern, read_all, works};

/// The end lies within a page, and within a block.
const BYTES: usize = 4 * 65_536 + 5_001;
const PAGE: usize = 4096;

/// Bytes at an address that direct reads and writes take.
#[repr(align(4096))]
struct Aligned([u8; 4 * PAGE]);

struct Run {
    runtime: Runtime,
    random: Random,
    source: Arc<Memory>,
    versions: u8,
    mount: LazyMount,
    root: PathBuf,
    file: File,
    direct: File,
    mapping: Mapping,
    model: Vec<u8>,
}

impl Run {
    fn new(folder: &Path, seed: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        let model = pattern(seed, BYTES);
        let source = Arc::new(Memory::new(1, &[], &[("file", model.clone())]));
        let root = folder.join("mnt");
        let mount = {
            let _entered = runtime.enter();
            let overlay = folder.join("overlay");
            LazyMount::create(Access::Server, source.clone(), &overlay, &root).unwrap()
        };
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(flags).open(root.join("file")).unwrap()
        };
        let (file, direct) = (open(0), open(libc::O_DIRECT));
        let mapping = Mapping::new(&file, 0, BYTES).unwrap();
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let versions = 1;
        Self { runtime, random, source, versions, mount, root, file, direct, mapping, model }
    }

    /// A part of the file, often whole pages.
    fn part(&mut self) -> (usize, usize) {
        let offset = self.random.next() as usize % BYTES;
        let length = 1 + self.random.next() as usize % 20_000;
        match self.random.next() % 3 {
            0 => (offset / PAGE * PAGE, PAGE.min(BYTES - offset / PAGE * PAGE)),
            _ => (offset, length.min(BYTES - offset)),
        }
    }

    fn step(&mut self) -> String {
        let (offset, length) = self.part();
        let end = offset + length;
        let kind = self.random.next() % 12;
        match kind {
            0..3 => {
                let bytes = pattern(self.random.next(), length);
                self.mapping.write(offset, &bytes).unwrap();
                self.model[offset..end].copy_from_slice(&bytes);
            }
            3 | 4 => {
                let bytes = pattern(self.random.next(), length);
                self.file.write_all_at(&bytes, offset as u64).unwrap();
                self.model[offset..end].copy_from_slice(&bytes);
            }
            5 => assert!(self.mapping.read(offset, length).unwrap() == self.model[offset..end]),
            6 => {
                let mut found = vec![0; length];
                self.file.read_exact_at(&mut found, offset as u64).unwrap();
                assert!(found == self.model[offset..end]);
            }
            7 => self.punch(offset, length),
            8 => self.past_the_kernel(offset / PAGE * PAGE),
            9 => {
                let how = [libc::MS_SYNC, libc::MS_ASYNC, libc::MS_SYNC | libc::MS_INVALIDATE];
                self.mapping.sync(how[self.random.next() as usize % how.len()]).unwrap();
            }
            10 => self.file.sync_data().unwrap(),
            _ => self.seal(),
        }
        let behind = self.mapping.read(BYTES, BYTES.next_multiple_of(PAGE) - BYTES).unwrap();
        assert!(behind.iter().all(|byte| *byte == 0), "behind the end");
        format!("kind {kind}, {length} bytes at {offset}")
    }

    fn punch(&mut self, offset: usize, length: usize) {
        let modes = [
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE,
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_ZERO_RANGE,
        ];
        let mode = modes[self.random.next() as usize % modes.len()];
        let descriptor = self.file.as_raw_fd();
        // SAFETY: the descriptor is open as long as `self` is.
        let punched = unsafe { libc::fallocate(descriptor, mode, offset as i64, length as i64) };
        assert_eq!(punched, 0, "{}", io::Error::last_os_error());
        self.model[offset..offset + length].fill(0);
    }

    /// Writes or reads whole pages without the kernel's keeping them.
    fn past_the_kernel(&mut self, offset: usize) {
        let mut pages = Box::new(Aligned([0; 4 * PAGE]));
        let length = pages.0.len().min((BYTES - offset) / PAGE * PAGE);
        let (part, range) = (&mut pages.0[..length], offset..offset + length);
        if self.random.next().is_multiple_of(2) {
            part.copy_from_slice(&pattern(self.random.next(), length));
            self.direct.write_all_at(part, offset as u64).unwrap();
            self.model[range].copy_from_slice(part);
        } else {
            self.direct.read_exact_at(part, offset as u64).unwrap();
            assert!(*part == self.model[range]);
        }
    }

    /// What comes after the seal is not in it; half of the versions that are made go below the mount.
    fn seal(&mut self) {
        let sealed = self.runtime.block_on(self.mount.seal()).unwrap();
        let then = self.model.clone();
        for _ in 0..3 {
            let (offset, length) = self.part();
            let bytes = pattern(self.random.next(), length);
            self.mapping.write(offset, &bytes).unwrap();
            self.model[offset..offset + length].copy_from_slice(&bytes);
            self.mapping.sync(libc::MS_SYNC).unwrap();
        }
        self.versions = self.versions.wrapping_add(1);
        let next = Memory::capture(self.versions, &self.source, &sealed);
        let next = self.runtime.block_on(next);
        assert!(next.files()[0].1 == then, "the seal holds something else");
        if self.random.next().is_multiple_of(2) {
            self.runtime.block_on(self.mount.rebase(&sealed, next.clone())).unwrap();
            self.source = next;
        }
    }
}

#[test]
fn a_mapped_file_is_one_whichever_way_it_is_looked_at() {
    if !works() {
        return;
    }
    for seed in seeds(4) {
        let temporary = tempfile::tempdir().unwrap();
        let mut run = Run::new(temporary.path(), seed);
        for step in 0..400 {
            let did = run.step();
            if step % 20 == 0 {
                let read = read_all(&run.root);
                assert!(read[0].1 == run.model, "seed {seed} step {step}: {did}");
                let mapped = run.mapping.read(0, BYTES).unwrap();
                assert!(mapped == run.model, "seed {seed} step {step}: mapped: {did}");
            }
        }
    }
}
