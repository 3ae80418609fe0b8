//! libFuzzer's program for the target `app_name`.
#![no_main]

#[path = "../../src/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("app_name", bytes));
