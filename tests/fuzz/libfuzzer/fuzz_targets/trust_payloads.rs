//! `fuzz::targets::trust_payloads` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::trust_payloads::target(bytes));
