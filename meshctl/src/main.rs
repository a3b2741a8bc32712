//! `meshctl`: reads the command line, runs the command, says how it ended.

use std::process::ExitCode;

use clap::Parser;
use meshctl::arguments::Arguments;
use meshctl::commands;

#[expect(
    clippy::print_stderr,
    reason = "errors of a command go to standard error"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("meshctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = failure.to_string();
            if !message.is_empty() {
                eprintln!("meshctl: {message}");
            }
            failure.exit_code()
        }
    }
}
