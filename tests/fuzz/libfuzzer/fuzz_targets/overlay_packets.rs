//! `fuzz::targets::overlay_packets` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::overlay_packets::target(bytes));
