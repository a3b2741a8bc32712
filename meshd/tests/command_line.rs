//! What is asked of the program on its command line, without a daemon that runs.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::fs::File;
use std::process::Command;

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for question in ["--help", "--version", "--check"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshd"));
        command
            .env_clear()
            .args([question, "--config", "/dev/null"]);
        let output = command.stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{question}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("standard output"), "{question}: {told}");
    }
}
