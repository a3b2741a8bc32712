//! Cargo as a subordinate: without the settings that are meant for this program.

use std::env;
use std::process::Command;

use crate::failure::{Doing, Failure};
use crate::workspace;

/// What cargo tells the program that it runs. Passed on, these make build scripts run again.
const OURS: &[&str] = &[
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
];

/// A cargo command in the workspace's root.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace::root())
        .args(arguments.split_whitespace());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if OURS.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// Builds the programs of the product, into the directory that this program came from.
pub(crate) fn build_programs() -> Result<(), Failure> {
    let status = cargo("build --locked --workspace --bins")
        .status()
        .doing("run cargo")?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        "the programs do not build; see the compiler's messages above",
    ))
}

/// Whether cargo has a subcommand of that name.
pub(crate) fn has_subcommand(name: &str) -> bool {
    let asked = cargo(name).arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

/// Runs a command to its end, its output going where ours goes.
pub(crate) fn passes(mut command: Command) -> Result<(), Failure> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().doing(format_args!("run `{shown}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("run it alone with `{shown}`")))
}
