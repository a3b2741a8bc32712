//! `cargo xtask bench`: builds what is measured, as users get it, and calls `tests/bench`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::cargo;
use crate::failure::{Doing, Failure};

/// Peers that crates.io has, in the versions that the documentation speaks of.
const INSTALLED: &[(&str, &str)] = &[
    ("boringtun-cli", "0.7.1"),
    ("gotatun-cli", "0.10.2"),
    ("vpncloud", "2.3.0"),
];

/// Runs the bench with the arguments that the person gave.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let target = target_directory()?;
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
    let mut bench = Command::new(target.join("release/bench"));
    bench
        .arg("--ours")
        .arg(target.join("release"))
        .arg("--tools")
        .arg(tools.join("bin"))
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

/// `target` of the program that runs, which is `target/PROFILE/xtask`.
fn target_directory() -> Result<PathBuf, Failure> {
    let executable = env::current_exe().doing("find this program's own file")?;
    executable
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .ok_or_else(|| {
            Failure::new(format!(
                "{} is in no target directory",
                executable.display()
            ))
        })
}
