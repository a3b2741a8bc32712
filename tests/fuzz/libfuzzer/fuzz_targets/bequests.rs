//! `fuzz::targets::bequests` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::bequests::target(bytes));
