//! `fuzz::targets::packet_headers` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::packet_headers::target(bytes));
