//! `fuzz::targets::certificates` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::certificates::target(bytes));
