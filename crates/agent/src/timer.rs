//! When the brain next needs the clock: the earliest of what its parts wait for.

use model::time::Instant;

/// A moment that something waits for, and what.
pub(crate) type Timeout = Option<(Instant, &'static str)>;

/// Returns the earliest of the timeouts; of equals the first.
pub(crate) fn earliest(timeouts: impl IntoIterator<Item = Timeout>) -> Timeout {
    timeouts.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// Returns whether a moment has come.
pub(crate) fn is_due(at: Instant, now: Instant) -> bool {
    at <= now
}
