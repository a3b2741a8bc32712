//! `cargo xtask bench` and `bench-services`: build what is measured, as users get it, and call `tests/bench`.

mod envoy;

use std::path::Path;
use std::process::Command;

use crate::cargo::cargo;
use crate::failure::{Doing, Failure};
use crate::workspace;

/// Peers that crates.io has, in the versions that the documentation speaks of.
const INSTALLED: &[(&str, &str)] = &[
    ("boringtun-cli", "0.7.1"),
    ("gotatun-cli", "0.10.2"),
    ("vpncloud", "2.3.0"),
];

/// Runs the bench of tunnels with the arguments that the person gave.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let target = workspace::target()?;
    let tools = target.join("tools");
    passes(&mut cargo(
        "build --locked --release --package interop --bin mesh-wireguard",
    ))?;
    passes(&mut cargo(
        "build --locked --release --package bench --bin bench --bin bare-forwarder",
    ))?;
    for (name, version) in INSTALLED {
        install(name, version, &tools)?;
    }
    measure("tunnels", &target, arguments)
}

/// Runs the bench of services with the arguments that the person gave.
pub(crate) fn run_services(arguments: &[String]) -> Result<(), Failure> {
    let target = workspace::target()?;
    let programs = "--package meshd --package meshctl --package coordinator --package bench";
    passes(&mut cargo(&format!(
        "build --locked --release {programs} --bin meshd --bin meshctl --bin mesh-coordinator --bin bench"
    )))?;
    envoy::install(&target.join("tools"))?;
    measure("services", &target, arguments)
}

fn measure(what: &str, target: &Path, arguments: &[String]) -> Result<(), Failure> {
    let mut bench = Command::new(target.join("release/bench"));
    bench
        .arg(what)
        .arg("--ours")
        .arg(target.join("release"))
        .arg("--tools")
        .arg(target.join("tools/bin"))
        .args(arguments);
    passes(&mut bench)
}

/// Installs a peer once; cargo leaves one of the right version as it is.
fn install(name: &str, version: &str, tools: &Path) -> Result<(), Failure> {
    let mut command = cargo("install --locked --quiet");
    command.args([name, "--version", version, "--root"]);
    passes(command.arg(tools))
}

fn passes(command: &mut Command) -> Result<(), Failure> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().doing(format_args!("run `{shown}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{shown}` failed ({status})")))
}
