//! Where the workspace is on this machine.

use std::env;
use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure};

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask
        .ancestors()
        .nth(2)
        .expect("xtask lives two directories below the workspace root")
        .to_path_buf()
}

/// `target` of the program that runs, which is `target/PROFILE/xtask`.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let executable = env::current_exe().doing("find this program's own file")?;
    let target = executable.ancestors().nth(2).map(Path::to_path_buf);
    target.ok_or_else(|| {
        Failure::new(format!(
            "{} is in no target directory",
            executable.display()
        ))
    })
}
