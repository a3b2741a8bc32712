//! `mesh-coordinator`: reads the settings, starts the logs, runs the daemon.

use std::process::ExitCode;

use clap::Parser;
use coordinator::daemon;
use coordinator::settings::{Flags, Settings};
use runtime::process::finish;

fn main() -> ExitCode {
    finish("mesh-coordinator", start(Flags::parse()))
}

fn start(flags: Flags) -> Result<(), String> {
    let settings = Settings::load(flags)?;
    runtime::logs::start(settings.log_format, &settings.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(daemon::run(settings))
}
