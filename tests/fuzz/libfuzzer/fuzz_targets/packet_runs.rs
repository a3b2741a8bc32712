//! `fuzz::targets::packet_runs` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::packet_runs::target(bytes));
