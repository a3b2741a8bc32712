//! Measures our tunnel beside others in one run: `cargo xtask bench` builds what it needs and
//! calls it. A Markdown table goes to standard output, progress to standard error.
//!
//! A *contender* joins two machines, a *figure* is what is measured of it, a *link* is what lies
//! between the machines. Every round goes through all contenders on all links, so that whatever
//! disturbs the machine for a while disturbs everybody.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for people talks by printing"
)]

mod contender;
mod figure;
mod ground;
mod link;
mod machine;
mod results;
mod rounds;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lab::LabError;

use contender::Contender;
use rounds::Plan;

/// Measures our tunnel beside others.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each TCP stream that count; one more goes before them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measures only this contender; repeatable.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where `mesh-wireguard` is, built with --release.
    #[arg(long, value_name = "DIRECTORY")]
    ours: PathBuf,
    /// Where the tools that cargo installed are: `boringtun-cli`.
    #[arg(long, value_name = "DIRECTORY")]
    tools: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), LabError> {
    let contenders = choose(arguments)?;
    tools::require()?;
    let plan = Plan {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    // First, so that a program that is missing is noticed at once.
    let machine = machine::describe(plan, &contenders)?;
    let results = rounds::run(&contenders, plan)?;
    let names: Vec<_> = contenders.iter().map(|one| one.name()).collect();
    println!("{machine}");
    println!("{}", table::render(&names, &results));
    Ok(())
}

/// All contenders, or those that were asked for.
fn choose(arguments: &Arguments) -> Result<Vec<Box<dyn Contender>>, LabError> {
    let mut contenders = contender::all(&arguments.ours, &arguments.tools);
    if arguments.only.is_empty() {
        return Ok(contenders);
    }
    let names: Vec<_> = contenders.iter().map(|one| one.name()).collect();
    for wanted in &arguments.only {
        if !names.contains(&wanted.as_str()) {
            return Err(LabError::new(format!(
                "there is no contender {wanted}; there are {}",
                names.join(", ")
            )));
        }
    }
    contenders.retain(|one| arguments.only.iter().any(|wanted| wanted == one.name()));
    Ok(contenders)
}
