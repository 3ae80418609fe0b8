//! Fuzzing without a fuzzer: every target on its committed corpus and on as many changed inputs,
//! the same in every run, so that `cargo verify` can do it. `proxy-tests/fuzz/README.md` says how
//! to let libFuzzer search.

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::machine::{repository, target};
use mutate::{Random, mutate};

pub mod mutate;
pub mod targets;

/// A folder of `proxy-tests/fuzz`.
pub fn folder(name: &str) -> PathBuf {
    repository().join("proxy-tests/fuzz").join(name)
}

/// The committed inputs of a target, in the order of their names.
pub fn corpus(name: &str) -> Result<Vec<Vec<u8>>> {
    let folder = folder("corpus").join(name);
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    ensure!(!paths.is_empty(), "{} is empty", folder.display());
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("read {}", path.display()));
    paths.iter().map(read).collect()
}

/// Runs a target on its corpus, and on `iterations` inputs made of it with this seed. The first
/// input on which it panics is kept in a file, which the error names.
pub fn search(name: &str, target: fn(&[u8]), seed: u64, iterations: u32) -> Result<()> {
    let corpus = corpus(name)?;
    for (number, input) in corpus.iter().enumerate() {
        try_one(name, target, input, &format!("corpus-{number}"))?;
    }
    let mut random = Random::new(seed);
    for iteration in 0..iterations {
        let input = mutate(&corpus, &mut random);
        try_one(name, target, &input, &format!("seed-{seed}-iteration-{iteration}"))?;
    }
    Ok(())
}

fn try_one(name: &str, target: fn(&[u8]), input: &[u8], which: &str) -> Result<()> {
    if catch_unwind(|| target(input)).is_ok() {
        return Ok(());
    }
    let folder = self::target().join("fuzz-failures");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(format!("{name}-{which}"));
    fs::write(&path, input).with_context(|| format!("write {}", path.display()))?;
    bail!("target {name} panicked on {which}; the input is {}", path.display())
}
