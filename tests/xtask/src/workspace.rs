//! Where the workspace is on this machine.

use std::path::PathBuf;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask
        .ancestors()
        .nth(2)
        .expect("xtask lives two directories below the workspace root")
        .to_path_buf()
}
