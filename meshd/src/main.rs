//! `meshd`: reads the settings, starts the logs, runs the daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use meshd::settings::{Flags, Settings};
use meshd::{daemon, handover, linux, plan};
use runtime::process::{explain, finish, say_that_settings_are_good};

/// How long work of the slow side that cannot be interrupted may take once the daemon has stopped:
/// enough for a write to the disk.
const BLOCKED_MAX: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match Flags::try_parse() {
        Ok(flags) => finish("meshd", start(flags)),
        Err(error) => explain("meshd", &error),
    }
}

fn start(flags: Flags) -> Result<(), String> {
    let settings = Settings::load(flags.clone()).inspect_err(|why| {
        if flags.take_over {
            handover::refuse(why);
        }
    })?;
    runtime::logs::start(settings.log_format, &settings.log_level)?;
    if flags.check {
        return say_that_settings_are_good();
    }
    linux::allocator::keep_a_little();
    // The slow side only: packets have a thread of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    if flags.plan {
        return runtime.block_on(plan::print(&settings));
    }
    let outcome = runtime.block_on(daemon::run(settings, flags));
    // Without it a ping that waits for its answer would hold up the stop for as long as it may wait.
    runtime.shutdown_timeout(BLOCKED_MAX);
    outcome
}
