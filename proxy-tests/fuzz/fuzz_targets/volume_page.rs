//! libFuzzer's program for the target `volume_page`.
#![no_main]

#[path = "../../src/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("volume_page", bytes));
