//! Starting and stopping a daemon: signals, readiness, exit codes.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::service_manager;

/// Exit codes of the daemons and of `meshctl`.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed.
    pub const FAILED: u8 = 1;
    /// Not understood.
    pub const USAGE: u8 = 2;
    /// The daemon or coordinator is not reachable.
    pub const UNREACHABLE: u8 = 3;
    /// The caller may not do this.
    pub const DENIED: u8 = 4;
    /// Checked and found wanting.
    pub const WANTING: u8 = 5;
}

/// SIGTERM and SIGINT, heard from the moment that this exists: make it before anybody is told that
/// the daemon is ready, or a signal in between ends the process without a farewell.
#[derive(Debug)]
pub struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// Begins to listen.
    ///
    /// # Errors
    /// The signal handlers cannot be set.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of the two and returns its name.
    pub async fn heard(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits for SIGTERM or SIGINT and returns its name. See `Termination` for signals that come early.
///
/// # Errors
/// The signal handlers cannot be set.
pub async fn termination() -> io::Result<&'static str> {
    Ok(Termination::listen()?.heard().await)
}

/// Tells systemd that the daemon is ready, where systemd asked to be told.
pub fn notify_ready(status: &str) {
    service_manager::ready(status);
}

/// Tells systemd that the daemon is stopping.
pub fn notify_stopping() {
    service_manager::stopping();
}

/// Raises this process's soft limit of open files to the hard one: a connection needs a descriptor,
/// and the usual soft limit of 1024 is there for programs that use select(2).
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it was");
    }
}

/// Says that settings were checked and found good, which is all that was asked.
///
/// # Errors
/// It cannot be written.
pub fn say_that_settings_are_good() -> Result<(), String> {
    let written = writeln!(io::stdout(), "the settings make sense");
    written.map_err(|error| format!("cannot write to standard output: {error}"))
}

/// Shows the help or the version that was asked for, or what is wrong with the command line, and
/// returns the exit code that goes with it. Help that cannot be written is a failure, but for a
/// reader who has enough.
pub fn explain(program: &str, error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(why) if !error.use_stderr() && why.kind() != ErrorKind::BrokenPipe => finish(
            program,
            Err(format!("cannot write to standard output: {why}")),
        ),
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::FAILED)),
    }
}

/// Turns the outcome of a program into its exit code, telling standard error what failed.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program, logs may not be up"
)]
pub fn finish(program: &str, outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(message) => {
            eprintln!("{program}: {message}");
            ExitCode::from(exit::FAILED)
        }
    }
}
