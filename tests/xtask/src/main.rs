//! The project's own commands: `cargo xtask demo | test | generate`.
//!
//! Every command is a module; what they share is where the workspace is and how a program is run.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for people talks by printing"
)]

mod failure;
mod generate;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the Rust code of the protobuf messages and services.
    Generate {
        /// Only says whether the committed code is stale (exit code 1).
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome: Result<(), Failure> = match Arguments::parse().command {
        Command::Generate { check: false } => generate::write(),
        Command::Generate { check: true } => generate::check(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
