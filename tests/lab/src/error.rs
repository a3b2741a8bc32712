//! Why a lab cannot go on, as one message for the person who ran it.

use std::cell::Cell;
use std::fmt;

thread_local! {
    /// Whether something went wrong in this thread, which is one test's or the demo's own.
    static SOMETHING_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a [`LabError`] was made in this thread: what a lab looks at when it ends, to show the
/// logs of its programs to whoever has to find the reason.
pub fn something_failed() -> bool {
    SOMETHING_FAILED.get()
}

/// A message that says what failed, why, and what to try.
#[derive(Debug, Clone)]
pub struct LabError(String);

impl LabError {
    /// An error with its whole message.
    pub fn new(message: impl Into<String>) -> Self {
        SOMETHING_FAILED.set(true);
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
        self.map_err(|error| LabError::new(format!("cannot {what}: {error}")))
    }
}
