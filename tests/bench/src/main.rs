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

mod aims;
mod contender;
mod figure;
mod ground;
mod link;
mod machine;
mod output;
mod plot;
mod results;
mod rounds;
mod stream;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lab::LabError;

use figure::Figure;
use link::Link;
use output::Output;
use rounds::Plan;

/// Measures our tunnel beside others.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each TCP stream that count; one more goes before them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measures only these contenders.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Measures only these figures, and what is measured with them.
    #[arg(long, value_name = "FIGURE", num_args = 1..)]
    figures: Vec<String>,
    /// Measures only on these links: default, nic-like.
    #[arg(long, value_name = "LINK", num_args = 1..)]
    links: Vec<String>,
    /// Writes table.md, plot.svg and results.json there, anew after each round.
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Where `mesh-wireguard` and `bare-forwarder` are, built with --release.
    #[arg(long, value_name = "DIRECTORY")]
    ours: PathBuf,
    /// Where the tools that cargo installed are: `boringtun-cli`, `gotatun`, `vpncloud`.
    #[arg(long, value_name = "DIRECTORY")]
    tools: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), LabError> {
    let all = contender::all(&arguments.ours, &arguments.tools);
    let contenders = choose("contender", all, &arguments.only, |one| one.name())?;
    let figures = Figure::all().collect();
    let links = Link::ALL.to_vec();
    let plan = Plan {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        links: choose("link", links, &arguments.links, |link| link.key())?,
        figures: choose("figure", figures, &arguments.figures, |one| one.key())?,
    };
    tools::require()?;
    // First, so that a program that is missing is noticed at once.
    let machine = machine::describe(&plan, &contenders)?;
    let output = Output::new(arguments.output, machine, &plan.links, &contenders)?;
    let results = rounds::run(&contenders, &plan, |results| output.write(results))?;
    println!("{}", output.table(&results));
    Ok(())
}

/// All, or those that were asked for by their names.
fn choose<T>(
    kind: &str,
    mut all: Vec<T>,
    wanted: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>, LabError> {
    let names: Vec<_> = all.iter().map(&name).collect();
    for wanted in wanted {
        if !names.contains(&wanted.as_str()) {
            return Err(LabError::new(format!(
                "there is no {kind} \"{wanted}\"; there are: {}",
                names.join("; ")
            )));
        }
    }
    if !wanted.is_empty() {
        all.retain(|one| wanted.iter().any(|wanted| wanted == name(one)));
    }
    Ok(all)
}
