//! libFuzzer's program for the target `op_compressed`.
#![no_main]

#[path = "../../src/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("op_compressed", bytes));
