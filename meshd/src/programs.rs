//! Other programs of the host that the daemon runs (`nft`, `resolvconf`): each has a bounded time,
//! and is ended when it hangs, so that none can hold the daemon up.

use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may take. `resolvconf` restarts daemons on some hosts.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Runs a program with `input` on its standard input.
///
/// # Errors
/// It cannot be run, or does not end within 10 s; it is ended then.
pub async fn run(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    input: &str,
) -> io::Result<Output> {
    run_for(TIME_MAX, program.as_ref(), arguments, input).await
}

async fn run_for(
    time_max: Duration,
    program: &OsStr,
    arguments: &[&str],
    input: &str,
) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let running = async {
        // A program that reads nothing closes its end first.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    match tokio::time::timeout(time_max, running).await {
        Ok(ended) => ended,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it did not end within {} s", time_max.as_secs()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_gets_its_input_and_its_output_is_kept() {
        let output = run("cat", &[], "hello").await.unwrap();
        assert_eq!(output.stdout, b"hello");
        let nobody = run("/nonexistent", &[], "").await.unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended() {
        let hung = run_for(Duration::ZERO, OsStr::new("cat"), &["/dev/zero"], "").await;
        assert_eq!(hung.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
