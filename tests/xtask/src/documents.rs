//! Documents that are written from the code itself. A test of the crate that they tell of knows how,
//! checks in every run that they are not stale, and writes them when it is told to.

use crate::cargo::{cargo, passes};
use crate::failure::Failure;

/// Tests that write documents, as arguments of `cargo test`.
const WRITERS: &[&str] = &[
    "-p policy --test reference",
    "-p meshctl --test documents",
    "-p meshd --test manual --test settings_file --test metrics",
    "-p coordinator --test documents --test settings_file --test metrics",
];
/// Tells such a test to write instead of to compare.
const WRITE: &str = "MESH_GENERATE";

/// Writes every document anew.
pub(crate) fn write() -> Result<(), Failure> {
    for writer in WRITERS {
        let mut test = cargo(&format!("test --locked --quiet {writer}"));
        test.env(WRITE, "yes");
        passes(test)?;
    }
    Ok(())
}
