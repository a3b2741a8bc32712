//! Why a lab cannot go on, as one message for the person who ran it.

use std::fmt;

/// A message that says what failed, why, and what to try.
#[derive(Debug, Clone)]
pub struct LabError(String);

impl LabError {
    /// An error with its whole message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for LabError {}

/// Adds to an error what was being done when it happened.
pub(crate) trait Doing<T> {
    /// Turns the error into a [`LabError`] that starts with `what`.
    fn doing(self, what: impl fmt::Display) -> Result<T, LabError>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, LabError> {
        self.map_err(|error| LabError(format!("cannot {what}: {error}")))
    }
}
