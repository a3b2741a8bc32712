//! Why a command of the project stopped, as one message for the person who ran it.

use std::fmt;

/// A message that says what failed, why, and what to try.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure that needs no cause beyond its own words.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Adds to an error what was being done when it happened.
pub(crate) trait Doing<T> {
    /// Turns the error into a [`Failure`] that starts with `what`.
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("cannot {what}: {error}")))
    }
}
