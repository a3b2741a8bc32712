//! `fuzz::targets::datagrams` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::datagrams::target(bytes));
