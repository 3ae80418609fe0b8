//! The fuzz targets on their corpora and on inputs made of them.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use proxy_tests::fuzz::targets::TARGETS;
use proxy_tests::fuzz::{folder, search};

/// Any number; fixed, so that two runs of the same code do the same. ARGON_FUZZ_SEED is another.
const SEED: u64 = 2026;

/// For each target: some seconds in all, unoptimised. ARGON_FUZZ_ITERATIONS may ask for more.
const ITERATIONS: u32 = 20_000;

/// What a variable says, where it is set.
fn variable<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    text.parse().ok().with_context(|| format!("{name} is `{text}`, which is no number"))
}

#[test]
fn no_target_finds_anything() -> Result<()> {
    let seed = variable("ARGON_FUZZ_SEED", SEED)?;
    let iterations = variable("ARGON_FUZZ_ITERATIONS", ITERATIONS)?;
    // Side by side: they share nothing.
    std::thread::scope(|scope| {
        let searches = TARGETS.map(|(name, target)| {
            (name, scope.spawn(move || search(name, target, seed, iterations)))
        });
        for (name, search) in searches {
            search.join().expect("the target's panics are caught").context(name)?;
        }
        Ok(())
    })
}

#[test]
fn a_target_that_panics_is_told_with_its_input() {
    fn panics(bytes: &[u8]) {
        assert!(bytes.len() < 100, "on purpose");
    }
    let error = search("op_msg", panics, SEED, ITERATIONS).unwrap_err().to_string();
    let path = error.rsplit(' ').next().expect("a text has a last word");
    let input = fs::read(path).expect("the input is kept where the error says");
    assert!(input.len() >= 100, "{error}");
    fs::remove_file(path).expect("it was just read");
}

#[test]
fn libfuzzer_has_the_same_targets() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let listed = |name: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(folder(name)).expect("the folder is part of the repository");
        let name = |entry: fs::DirEntry| entry.path().file_stem()?.to_str().map(str::to_owned);
        entries.filter_map(|entry| name(entry.expect("the folder can be read"))).collect()
    };
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("corpus"), names);
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("it is there");
    let binaries = manifest.lines().filter_map(|line| line.strip_prefix("name = "));
    let binaries: BTreeSet<String> = binaries.map(|name| name.replace('"', "")).collect();
    assert!(names.is_subset(&binaries), "{binaries:?}");
}
