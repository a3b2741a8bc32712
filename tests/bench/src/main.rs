//! Measures ours beside others in one run: `cargo xtask bench` and `cargo xtask bench-services` build what
//! they need and call it. Markdown tables go to standard output, progress to standard error.
//!
//! A *contender* joins two machines or carries a service between them, a *figure* is what is measured of it,
//! a *link* is what lies between the machines. Every round goes through all contenders on all links, so that
//! whatever disturbs the machine for a while disturbs everybody.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for people talks by printing"
)]

mod aims;
mod arguments;
mod daemons;
mod kind;
mod link;
mod machine;
mod output;
mod plot;
mod presentation;
mod results;
mod rounds;
mod services;
mod table;
mod tools;
mod tunnels;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arguments::Arguments;

/// Measures ours beside others.
#[derive(Parser)]
#[command(name = "bench")]
struct Bench {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand)]
enum Of {
    /// Tunnels between two machines.
    Tunnels(Arguments),
    /// Pairs of proxies that carry the calls of a service between two machines.
    Services(Arguments),
}

fn main() -> ExitCode {
    let outcome = match Bench::parse().of {
        Of::Tunnels(arguments) => tunnels::run(arguments),
        Of::Services(arguments) => services::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
