//! `mesh-coordinator`: reads the settings, starts the logs, runs the daemon.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use coordinator::settings::{Flags, Settings};
use coordinator::{daemon, restore};
use runtime::process::{explain, finish, say_that_settings_are_good};

/// How long work that cannot be interrupted may take once the coordinator has stopped: enough for a
/// write to the disk.
const BLOCKED_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match Flags::try_parse() {
        Ok(flags) => finish("mesh-coordinator", start(flags)),
        Err(error) => explain("mesh-coordinator", &error),
    }
}

fn start(flags: Flags) -> Result<(), String> {
    let (task, flags) = flags.take_task();
    let only_check = flags.check;
    let settings = Settings::load(flags)?;
    runtime::logs::start(settings.log_format, &settings.log_level)?;
    if only_check {
        return say_that_settings_are_good();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    match task {
        None => {
            let outcome = runtime.block_on(daemon::run(settings));
            // Without it a policy that is being tested would hold up the stop.
            runtime.shutdown_timeout(BLOCKED_MAX);
            outcome
        }
        Some(task) => {
            let done = runtime.block_on(restore::run(task, &settings))?;
            // A closed pipe is the reader's way to say that it has enough.
            let _ = writeln!(io::stdout(), "{done}");
            Ok(())
        }
    }
}
