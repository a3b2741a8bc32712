//! `fuzz::targets::wireguard_messages` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::wireguard_messages::target(bytes));
