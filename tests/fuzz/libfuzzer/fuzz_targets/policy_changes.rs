//! `fuzz::targets::policy_changes` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::policy_changes::target(bytes));
