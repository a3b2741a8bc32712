//! `fuzz::targets::service_requests` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::service_requests::target(bytes));
