//! libFuzzer's program for the target `hello`.
#![no_main]

#[path = "../../src/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("hello", bytes));
