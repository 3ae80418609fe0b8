//! libFuzzer's program for the target `skim`.
#![no_main]

#[path = "../../src/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("skim", bytes));
