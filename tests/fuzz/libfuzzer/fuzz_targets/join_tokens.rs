//! `fuzz::targets::join_tokens` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::join_tokens::target(bytes));
