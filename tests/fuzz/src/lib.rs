//! Fuzz targets: one function per kind of bytes that come from elsewhere, each with what must hold
//! whatever the bytes are.
//!
//! - `targets/` has the functions, and with each the *seeds*: good inputs, made by the real code, so
//!   that they follow the formats when these change.
//! - `corpus/TARGET/` has committed inputs: seeds of the past, inputs by which libFuzzer reached new
//!   code, and every input that ever broke something.
//! - `tests/replay.rs` runs all of them, and damage done to them, as ordinary tests.
//! - `libfuzzer/` is the same functions under libFuzzer: `cargo xtask fuzz`.

#![forbid(unsafe_code)]

pub mod corpus;
mod kernel;
mod live;
mod member;
mod mutation;
mod packets;
pub mod replay;
mod small_fleet;
pub mod targets;

use targets::{
    admin_json, agent_messages, bequests, certificates, control_messages, conversations, datagrams,
    dns_queries, join_tokens, overlay_packets, packet_headers, packet_runs, policy_changes,
    policy_documents, service_calls, service_requests, settings_files, super_packets,
    trust_payloads, wireguard_messages,
};

/// One kind of bytes that come from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Names the corpus' directory and the program under libFuzzer.
    pub name: &'static str,
    /// Takes any bytes; panics when something does not hold that must.
    pub run: fn(&[u8]),
    /// Makes good inputs.
    pub seeds: fn() -> Vec<Seed>,
    /// How often a replay damages an input.
    pub mutations: usize,
}

/// A good input with a name.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Unique in its target; a file name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

macro_rules! targets {
    ($($module:ident: $mutations:literal,)*) => {
        /// All targets, by name.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($module),
            run: $module::target,
            seeds: $module::seeds,
            mutations: $mutations,
        },)*];
    };
}

targets! {
    admin_json: 8000,
    agent_messages: 500,
    bequests: 6000,
    certificates: 3000,
    control_messages: 6000,
    conversations: 1500,
    datagrams: 1500,
    dns_queries: 3000,
    join_tokens: 6000,
    overlay_packets: 2000,
    packet_headers: 50_000,
    packet_runs: 3000,
    policy_changes: 1500,
    policy_documents: 1500,
    service_calls: 400,
    service_requests: 20_000,
    settings_files: 3000,
    super_packets: 1000,
    trust_payloads: 3000,
    wireguard_messages: 3000,
}
