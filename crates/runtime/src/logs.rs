//! Logs on standard error: text for people, JSON for machines. systemd keeps them.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line a message.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A library that would log every question that it answers; a filter that names it brings it back.
const QUIET: &str = "hickory_server=warn";

/// Starts logging for this process. `level` is `error`, `warn`, `info`, `debug`, `trace`, or a
/// filter such as `info,meshd::dns=debug`.
///
/// # Errors
/// The filter cannot be understood.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text if under_journal() => {
            let builder = builder.without_time().with_filter_reloading();
            keep(builder.reload_handle());
            builder.init();
        }
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            keep(builder.reload_handle());
            builder.init();
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            keep(builder.reload_handle());
            builder.init();
        }
    }
    Ok(())
}

/// Changes which lines are written by a process that logs already. `level` is as for `start`.
///
/// # Errors
/// The filter cannot be understood, or `start` has not been called; nothing is changed.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    match FILTER.get() {
        Some(replace) => replace(filter),
        None => Err("this process does not log yet".into()),
    }
}

type Replace = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Replaces the filter of this process's one subscriber.
static FILTER: OnceLock<Replace> = OnceLock::new();

fn keep<S: 'static>(handle: reload::Handle<EnvFilter, S>) {
    // A second subscriber would end the process in `init`.
    let _ = FILTER.set(Box::new(move |filter| {
        let replaced = handle.reload(filter);
        replaced.map_err(|error| format!("the log level stays as it was: {error}"))
    }));
}

/// What a filter that names parts only says of the rest.
const REST: &str = "info";

fn filter(level: &str) -> Result<EnvFilter, String> {
    let refused = |why: &str| {
        format!("log level {level:?} is not understood: {why}; try info, or info,meshd::dns=debug")
    };
    // Alone, a mistyped level would be the name of a part, and silence all others.
    let mut rest = REST;
    for word in level.split(',').filter(|word| !word.contains('=')) {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(refused(&format!(
                "{word:?} is none of error, warn, info, debug, trace, off"
            )));
        }
        rest = word;
    }
    let parts = level.split(',').filter(|word| word.contains('='));
    let all: Vec<&str> = [rest, QUIET].into_iter().chain(parts).collect();
    EnvFilter::try_new(all.join(",")).map_err(|error| refused(&error.to_string()))
}

/// The journal stamps lines itself.
fn under_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs_requests(level: &str) -> bool {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .finish();
        tracing::subscriber::with_default(
            subscriber,
            || tracing::enabled!(target: "hickory_server::server", tracing::Level::INFO),
        )
    }

    #[test]
    fn requests_are_logged_only_when_asked_for_by_name() {
        assert!(!logs_requests("info"));
        assert!(!logs_requests("debug"));
        assert!(logs_requests("info,hickory_server=info"));
    }

    #[test]
    fn a_level_that_is_none_says_what_to_try() {
        for level in ["loud=er=still", "inof", "", "info,meshd"] {
            let message = filter(level).unwrap_err();
            assert!(message.contains("try info"), "{message}");
        }
    }

    #[test]
    fn a_filter_of_one_part_silences_no_other() {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter("meshd::dns=debug").unwrap())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            assert!(tracing::enabled!(target: "agent", tracing::Level::INFO));
            assert!(!tracing::enabled!(target: "agent", tracing::Level::DEBUG));
            assert!(tracing::enabled!(target: "meshd::dns", tracing::Level::DEBUG));
        });
    }
}
