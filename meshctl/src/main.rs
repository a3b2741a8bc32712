//! `meshctl`: reads the command line, runs the command, says how it ended.

use std::process::ExitCode;

use clap::Parser;
use meshctl::arguments::Arguments;
use meshctl::commands;
use meshctl::failure::Failure;
use meshctl::output::{Color, Output};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && std::env::args().any(|it| it == "--json") => {
            let failure = Failure::Usage(error.to_string());
            return end(&failure, &Output::new(true, Color::Never));
        }
        Err(error) => error.exit(),
    };
    let output = Output::new(arguments.json, arguments.color);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return end(&Failure::Failed(format!("cannot start: {error}")), &output),
    };
    match runtime.block_on(commands::run(arguments, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure, &output),
    }
}

/// Says why a command failed: to programs as the one document that they get, unless an answer that
/// tells it was shown already; to people on standard error.
#[expect(
    clippy::print_stderr,
    reason = "errors of a command go to standard error"
)]
fn end(failure: &Failure, output: &Output) -> ExitCode {
    let message = failure.to_string();
    if output.is_json() && !output.has_shown() {
        output.show("Error", &failure.report(), |_| message);
    } else if !message.is_empty() {
        eprintln!("meshctl: {message}");
    }
    failure.exit_code()
}
