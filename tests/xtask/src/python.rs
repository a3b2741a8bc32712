//! Packages of PyPI that this project needs for itself, each pinned by its hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::passes;
use crate::failure::{Doing, Failure};
use crate::workspace;

/// Says in the directory what was installed there.
const INSTALLED: &str = "installed.txt";

/// What the lab's clients and servers import.
const OF_LAB: &str = "tests/lab/clients/requirements.txt";

/// Installs what the lab needs.
pub(crate) fn install_for_lab() -> Result<(), Failure> {
    let directory = workspace::target()?.join("tools/python");
    install(&workspace::root().join(OF_LAB), &directory).map(drop)
}

/// Installs what a list of requirements with hashes pins into a directory, unless that is what is there
/// already; returns the directory.
pub(crate) fn install(requirements: &Path, directory: &Path) -> Result<PathBuf, Failure> {
    let wanted =
        fs::read_to_string(requirements).doing(format_args!("read {}", requirements.display()))?;
    let mark = directory.join(INSTALLED);
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(directory.to_owned());
    }
    if directory.exists() {
        fs::remove_dir_all(directory).doing(format_args!("empty {}", directory.display()))?;
    }
    let mut pip = Command::new("/usr/bin/python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(["--no-deps", "--require-hashes", "--only-binary=:all:"])
    .args(["--root-user-action=ignore", "--target"])
    .arg(directory)
    .arg("--requirement")
    .arg(requirements);
    passes(pip)?;
    fs::write(&mark, wanted).doing(format_args!("write {}", mark.display()))?;
    Ok(directory.to_owned())
}
