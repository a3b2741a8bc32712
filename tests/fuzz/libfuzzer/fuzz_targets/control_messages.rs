//! `fuzz::targets::control_messages` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::control_messages::target(bytes));
