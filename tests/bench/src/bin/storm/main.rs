//! A storm: the hosts of a whole fleet at one real coordinator. Each is the real agent with real TLS,
//! all in this process; only packets, interfaces and disks are missing. They join, the coordinator is
//! killed and started again, a policy is applied; it is measured how long it takes until all are back
//! or enforce it, and what it costs the coordinator. Called by `cargo xtask storm`.

#![allow(
    clippy::print_stdout,
    reason = "a command-line tool for people talks by printing"
)]

mod coordinator;
mod host;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use runtime::process::{finish, raise_file_limit};

use coordinator::{Coordinator, Cost};

/// Hosts of one group see each other; a fleet where all see all is another measurement.
const GROUP: usize = 20;

/// Puts the hosts of a fleet at one coordinator.
#[derive(Parser)]
#[command(name = "storm")]
struct Arguments {
    /// How many hosts
    #[arg(long, default_value_t = 2000)]
    hosts: usize,
    /// The coordinator's program
    #[arg(long, value_name = "FILE")]
    coordinator: PathBuf,
    /// How long each step may take, in seconds
    #[arg(long, default_value_t = 600)]
    patience: u64,
}

fn main() -> ExitCode {
    finish("storm", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), String> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<(), String> {
    let hosts = arguments.hosts;
    let patience = Duration::from_secs(arguments.patience);
    let mut coordinator = Coordinator::new(&arguments.coordinator)?;
    coordinator.start().await?;
    coordinator.apply(&policy(hosts, 22)).await?;
    println!(
        "| {hosts} hosts | until all are there | coordinator: CPU | its memory now | at most |"
    );
    println!("|---|---|---|---|---|");

    let tokens = coordinator.tokens(hosts.div_ceil(GROUP)).await?;
    let step = Step::begin(&coordinator)?;
    for number in 0..hosts {
        let token = tokens[number / GROUP].clone();
        tokio::spawn(host::run(number, token));
    }
    coordinator.until_online(hosts, patience).await?;
    step.end("join, all at once", &coordinator)?;

    let step = Step::begin(&coordinator)?;
    coordinator.apply(&policy(hosts, 2222)).await?;
    coordinator.until_in_force(hosts, patience).await?;
    step.end("a policy is applied, and enforced by all", &coordinator)?;

    coordinator.kill();
    coordinator.start().await?;
    let step = Step::after_start();
    coordinator.until_online(hosts, patience).await?;
    step.end("the coordinator was killed, all come back", &coordinator)?;

    coordinator.stop().await?;
    coordinator.start().await?;
    let step = Step::after_start();
    coordinator.until_online(hosts, patience).await?;
    step.end(
        "it was restarted in good order, all come back",
        &coordinator,
    )
}

/// Each group's hosts reach each other at a port.
fn policy(hosts: usize, port: u16) -> String {
    let mut text = format!("fleet: {}\nallow:\n", coordinator::FLEET);
    for group in 0..hosts.div_ceil(GROUP) {
        text += &format!(
            "  - {{ id: g{group}, from: \"group=g{group}\", to: \"group=g{group}\", tcp: [{port}] }}\n"
        );
    }
    text
}

/// What is measured between two moments.
struct Step {
    began: Instant,
    spent: Duration,
}

impl Step {
    fn begin(coordinator: &Coordinator) -> Result<Self, String> {
        let Cost { cpu, .. } = coordinator.cost()?;
        Ok(Self {
            began: Instant::now(),
            spent: cpu,
        })
    }

    /// A program that has just been started: all that it spent counts.
    fn after_start() -> Self {
        Self {
            began: Instant::now(),
            spent: Duration::ZERO,
        }
    }

    fn end(self, what: &str, coordinator: &Coordinator) -> Result<(), String> {
        let took = self.began.elapsed().as_secs_f64();
        let cost = coordinator.cost()?;
        let cpu = cost.cpu.saturating_sub(self.spent).as_secs_f64();
        let mebibytes = |bytes: u64| bytes >> 20;
        println!(
            "| {what} | {took:.1} s | {cpu:.1} s | {} MiB | {} MiB |",
            mebibytes(cost.memory_bytes),
            mebibytes(cost.memory_bytes_max)
        );
        Ok(())
    }
}
