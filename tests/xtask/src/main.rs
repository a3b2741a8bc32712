//! The project's own commands: `cargo xtask demo | test | python | fuzz | bench | bench-services | micro |
//! storm | figures | generate | package`.
//!
//! Every command is a module; what they share is where the workspace is and how a program is run.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for people talks by printing"
)]

mod bench;
mod cargo;
mod demo;
mod documents;
mod failure;
mod figures;
mod fuzz;
mod generate;
mod micro;
mod package;
mod python;
mod storm;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tells the story of a fleet in network namespaces, with the real programs. Needs root.
    Demo {
        /// Leaves the fleet running at the end, and says how to talk to it.
        #[arg(long)]
        keep: bool,
        /// Removes the fleets that were left running.
        #[arg(long, conflicts_with = "keep")]
        remove: bool,
    },
    /// Runs every check and test. Needs root, for the network namespaces.
    Test {
        /// Also runs the tests that take long.
        #[arg(long)]
        long: bool,
        /// For how many minutes whole fleets are simulated from fresh seeds.
        #[arg(long, default_value_t = 10, requires = "long")]
        minutes: u32,
    },
    /// Installs the packages of Python that clients and servers in the lab import, into target/tools.
    Python,
    /// Looks for inputs that break a parser, with libFuzzer. What it finds is in target/fuzz.
    Fuzz {
        /// For how long each target runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Names of targets; all when there is none.
        targets: Vec<String>,
    },
    /// Measures our tunnel beside others and prints a Markdown table. Needs root.
    Bench {
        /// Passed on: `--output DIRECTORY`, `--rounds N`, `--seconds N`, `--only NAME…`, `--figures FIGURE…`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures calls of services between two hosts beside other proxies, and prints a Markdown table. Needs
    /// root.
    BenchServices {
        /// Passed on, as for `bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures what the parts of the data path cost on one core, without a kernel, and prints
    /// Markdown tables.
    Micro {
        /// Passed on: `--only PART`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Puts the hosts of a fleet at one coordinator, kills it, and measures until all are back.
    Storm {
        /// How many hosts.
        #[arg(long, default_value_t = 2000)]
        hosts: usize,
        /// With optimised programs, as users get them.
        #[arg(long)]
        release: bool,
    },
    /// Measures with the packages on whole machines what it costs to install, start, keep and upgrade
    /// the daemons, and prints a Markdown table. Needs root, and `cargo xtask package` before.
    Figures(figures::Measuring),
    /// Makes the .deb and .rpm of both daemons, into target/packages.
    Package(package::Packaging),
    /// Writes the Rust code of the protobuf messages and services, and the documents that are written
    /// from code: manual pages, the reference of the commands.
    Generate {
        /// Only says whether the committed Rust code is stale (exit code 1).
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo { remove: true, .. } => demo::remove(),
        Command::Demo { keep, .. } => demo::run(keep),
        Command::Test { long: false, .. } => test::run(None),
        Command::Test { minutes, .. } => test::run(Some(minutes)),
        Command::Python => python::install_for_lab(),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::BenchServices { arguments } => bench::run_services(&arguments),
        Command::Micro { arguments } => micro::run(&arguments),
        Command::Storm { hosts, release } => storm::run(hosts, release),
        Command::Figures(what) => figures::run(what),
        Command::Package(what) => package::run(&what),
        Command::Generate { check: false } => generate::write().and_then(|()| documents::write()),
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
