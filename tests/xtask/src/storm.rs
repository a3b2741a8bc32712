//! `cargo xtask storm`: builds the coordinator and the storm, and lets it loose.

use std::env;

use crate::cargo::{cargo, passes};
use crate::failure::{Doing, Failure};

/// Runs the storm, with the programs of this program's own profile unless `release` is asked for.
pub(crate) fn run(hosts: usize, release: bool) -> Result<(), Failure> {
    let profile = if release { " --release" } else { "" };
    let built = "build --locked --quiet --package coordinator --package bench --bins";
    passes(cargo(&format!("{built}{profile}")))?;
    let own = env::current_exe().doing("find this program's own file")?;
    let target = own.ancestors().nth(2);
    let target = target
        .ok_or_else(|| Failure::new(format!("{} is in no target directory", own.display())))?;
    let programs = target.join(if release { "release" } else { "debug" });
    let mut storm = std::process::Command::new(programs.join("storm"));
    storm
        .arg("--coordinator")
        .arg(programs.join("mesh-coordinator"))
        .args(["--hosts", &hosts.to_string()]);
    passes(storm)
}
