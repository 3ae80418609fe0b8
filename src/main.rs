//! The binary `argon`: parse, start logging, run.

fn main() {}
