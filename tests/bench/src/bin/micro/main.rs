//! What the parts of the data path cost on one core, without a kernel: sealing, the shard, look-ups,
//! handshakes, idle peers, policies, requests. `cargo xtask micro` builds it as users get it and runs it; a
//! Markdown table for each part goes to standard output. It judges nothing: whoever runs it knows the
//! machine.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for people talks by printing"
)]

mod burst;
mod flows;
mod handshakes;
mod idle;
mod measure;
mod packets;
mod pair;
mod parts;
mod policies;
mod requests;
mod shard;
mod tunnels;

use clap::{Parser, ValueEnum};

/// Measures the parts of the data path.
#[derive(Parser)]
#[command(name = "micro")]
struct Arguments {
    /// Measures only this part; repeatable.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Packets through a shard, either way, with each cipher.
    Shard,
    /// The replay window, the coalescer, checksums.
    Parts,
    /// Flows found, and decided by ten thousand rules.
    Flows,
    /// Handshakes, and floods of them.
    Handshakes,
    /// Peers that say nothing.
    Idle,
    /// Large policies checked, compiled, planned and decided.
    Policies,
    /// Requests decided at both ends of a call.
    Requests,
}

fn main() {
    let only = Arguments::parse().only;
    let parts: [(Part, fn()); 7] = [
        (Part::Shard, shard::measure),
        (Part::Parts, parts::measure),
        (Part::Flows, flows::measure),
        (Part::Handshakes, handshakes::measure),
        (Part::Idle, idle::measure),
        (Part::Policies, policies::measure),
        (Part::Requests, requests::measure),
    ];
    for (part, measure) in parts {
        if only.is_empty() || only.contains(&part) {
            measure();
            println!();
        }
    }
}
