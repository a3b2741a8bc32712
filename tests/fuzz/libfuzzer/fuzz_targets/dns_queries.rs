//! `fuzz::targets::dns_queries` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::dns_queries::target(bytes));
