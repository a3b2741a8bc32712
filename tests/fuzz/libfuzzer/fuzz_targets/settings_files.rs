//! `fuzz::targets::settings_files` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::settings_files::target(bytes));
