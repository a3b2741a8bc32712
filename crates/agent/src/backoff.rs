//! How long to wait before trying again: twice as long each time up to a cap, with full jitter, so
//! that a fleet that lost its coordinator does not come back in one wave.

use std::time::Duration;

use crate::dice::Dice;

/// Waits of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

/// No wait is shorter, so that luck with the dice never makes a spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

impl Backoff {
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// Counts a failure and returns how long to wait after it.
    pub(crate) fn next_wait(&mut self, dice: &mut Dice) -> Duration {
        let bound = self
            .base
            .saturating_mul(1 << self.failures.min(20))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        dice.up_to(bound).max(SHORTEST_WAIT)
    }

    /// Returns how often it failed since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over_after_success() {
        let mut dice = Dice::from_seed([3; 32]);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut longest = Duration::ZERO;
        for failure in 0..200u32 {
            let wait = backoff.next_wait(&mut dice);
            let bound = Duration::from_secs(1 << failure.min(5)).min(Duration::from_secs(30));
            assert!(
                wait >= SHORTEST_WAIT && wait <= bound,
                "{failure}: {wait:?}"
            );
            longest = longest.max(wait);
        }
        assert!(
            longest > Duration::from_secs(25),
            "the jitter uses the whole range"
        );
        backoff.reset();
        assert!(backoff.next_wait(&mut dice) <= Duration::from_secs(1));
    }
}
