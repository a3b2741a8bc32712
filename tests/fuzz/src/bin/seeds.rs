//! Writes the seeds of every target into `DIRECTORY/TARGET/`, from where libFuzzer starts:
//! `cargo run -p fuzz --bin seeds -- DIRECTORY`.

#![allow(clippy::print_stderr, reason = "a command-line tool for people")]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use fuzz::{TARGETS, corpus};

fn main() -> ExitCode {
    let Some(root) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("seeds: name the directory to write to, such as tests/fuzz/corpus");
        return ExitCode::from(2);
    };
    for target in TARGETS {
        if let Err(error) = corpus::write_seeds(target, &root.join(target.name)) {
            eprintln!("seeds: cannot write to {}: {error}", root.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
