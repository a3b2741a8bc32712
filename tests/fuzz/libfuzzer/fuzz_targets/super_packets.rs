//! `fuzz::targets::super_packets` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::super_packets::target(bytes));
