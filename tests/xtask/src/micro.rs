//! `cargo xtask micro`: builds the micro-benchmarks as users get the programs, and runs them.

use crate::cargo::{cargo, passes};
use crate::failure::Failure;

/// Runs them with the arguments that the person gave.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let built = "run --locked --quiet --release --package bench --bin micro --";
    let mut micro = cargo(built);
    micro.args(arguments);
    passes(micro)
}
