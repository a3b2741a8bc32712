//! `cargo xtask fuzz`: the targets of tests/fuzz under libFuzzer, one after the other.
//!
//! What libFuzzer finds on the way stays in `target/fuzz/found/TARGET/`, so that the next run goes
//! on from there; an input that breaks a target stops the command and is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{cargo, has_subcommand, passes};
use crate::failure::{Doing, Failure};
use crate::workspace;

const PROGRAMS: &str = "tests/fuzz/libfuzzer";
const CORPUS: &str = "tests/fuzz/corpus";
/// Build products and what was found, below the workspace.
const OUTPUT: &str = "target/fuzz";

/// An input that takes longer is a failure, as one that breaks.
const INPUT_SECONDS_MAX: u32 = 20;
/// Longer inputs are not tried: the bounds of large ones have tests of their own.
const INPUT_BYTES_MAX: u32 = 8192;

/// Runs the targets of these names, or all, each for so many seconds.
pub(crate) fn run(seconds: u32, names: &[String]) -> Result<(), Failure> {
    let all = targets()?;
    let chosen = match names {
        [] => all,
        names => known(names, &all)?,
    };
    if !has_subcommand("fuzz") {
        passes(cargo("install --locked --quiet cargo-fuzz"))?;
    }
    let root = workspace::root();
    fs::copy(
        root.join("Cargo.lock"),
        root.join(PROGRAMS).join("Cargo.lock"),
    )
    .doing("copy Cargo.lock to the programs under libFuzzer")?;
    let found = root.join(OUTPUT).join("found");
    let mut seeds = cargo("run --locked --quiet --package fuzz --bin seeds --");
    seeds.arg(&found);
    passes(seeds)?;
    for target in chosen {
        println!("== fuzz {target}");
        passes(fuzz(&target, seconds, &found.join(&target)))?;
    }
    Ok(())
}

/// The names of all targets: each is a program.
fn targets() -> Result<Vec<String>, Failure> {
    let directory = workspace::root().join(PROGRAMS).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).doing("list the fuzz targets")? {
        let path: PathBuf = entry.doing("list the fuzz targets")?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn known(names: &[String], all: &[String]) -> Result<Vec<String>, Failure> {
    match names.iter().find(|name| !all.contains(name)) {
        Some(name) => Err(Failure::new(format!(
            "there is no fuzz target {name}; there are {}",
            all.join(", ")
        ))),
        None => Ok(names.to_vec()),
    }
}

/// No sanitizer: our crates have no unsafe code, and it would need a nightly compiler.
fn fuzz(target: &str, seconds: u32, found: &Path) -> Command {
    let root = workspace::root();
    let mut command = cargo("fuzz run --sanitizer none");
    command
        .args(["--fuzz-dir", PROGRAMS, "--target-dir", OUTPUT, target])
        .arg(found)
        .arg(root.join(CORPUS).join(target))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .args(["-print_final_stats=1", "-verbosity=0"]);
    command
}
