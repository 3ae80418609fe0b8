//! libFuzzer's program for the target `volume_pack`.
#![no_main]

#[path = "../../src/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("volume_pack", bytes));
