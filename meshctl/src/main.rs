//! `meshctl`: reads the command line, runs the command, says how it ended.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use meshctl::arguments::Arguments;
use meshctl::commands;
use meshctl::failure::Failure;
use meshctl::output::{Color, Output};
use runtime::process::explain;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && std::env::args().any(|it| it == "--json") => {
            let failure = Failure::Usage(error.to_string());
            return end(&failure, &Output::new(true, Color::Never));
        }
        Err(error) => return explain("meshctl", &error),
    };
    let output = Output::new(arguments.json, arguments.color);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return end(&Failure::Failed(format!("cannot start: {error}")), &output),
    };
    let done = runtime.block_on(commands::run(arguments, &output));
    match (done, output.finish()) {
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
        (Ok(()), Err(lost)) => end(&lost, &output),
        (Err(failure), Ok(())) => end(&failure, &output),
        (Err(failure), Err(lost)) => {
            say(&lost.to_string());
            end(&failure, &output)
        }
    }
}

/// Says why a command failed: to programs as the one document that they get, unless an answer that
/// tells it was shown already; to people on standard error.
fn end(failure: &Failure, output: &Output) -> ExitCode {
    let message = failure.to_string();
    if output.is_json() && !output.has_shown() {
        output.show("Error", &failure.report(), |_| message.clone());
        if output.finish().is_err() {
            say(&message);
        }
    } else if !message.is_empty() {
        say(&message);
    }
    failure.exit_code()
}

fn say(message: &str) {
    // Nobody reads standard error: the exit code still tells.
    let _ = writeln!(io::stderr(), "meshctl: {message}");
}
