//! `fuzz::targets::admin_json` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::admin_json::target(bytes));
