//! How many retries a service gets: a share of its calls, so that retries cannot multiply an
//! overload.

use model::time::Instant;

use crate::seconds::Seconds;
use crate::settings::BudgetSettings;

/// The retries and calls of the last ten seconds.
///
/// A retry counts from the moment it is promised, not from when its back-off ends: whoever counts
/// only those that were sent promises too many while all wait (envoy#30205).
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    /// Calls, and retries that were sent.
    sent: Seconds,
    /// Promised, and not sent yet.
    waiting: u32,
}

impl RetryBudget {
    /// Counts one call, not one attempt.
    pub fn call(&mut self, now: Instant) {
        self.sent.add(1, 0, now);
    }

    /// Whether there is room for one retry after `others` that may be asked for.
    pub fn has_room(&mut self, others: u32, settings: &BudgetSettings, now: Instant) -> bool {
        let sums = self.sent.sums(now);
        let share = u64::from(sums.first) * u64::from(settings.percent) / 100;
        let used = u64::from(sums.second) + u64::from(self.waiting);
        used + u64::from(others) < share + u64::from(settings.minimum_in_window)
    }

    /// Promises one retry, if there is room.
    pub fn promise(&mut self, settings: &BudgetSettings, now: Instant) -> bool {
        let room = self.has_room(0, settings, now);
        self.waiting += u32::from(room);
        room
    }

    /// Takes a promised retry out of its back-off: it is sent now.
    pub fn sent(&mut self, now: Instant) {
        debug_assert!(self.waiting > 0, "a retry is promised before it is sent");
        self.waiting = self.waiting.saturating_sub(1);
        self.sent.add(0, 1, now);
    }

    /// Takes a promise back: the caller went away during the back-off.
    pub fn withdrawn(&mut self) {
        debug_assert!(
            self.waiting > 0,
            "a retry is promised before it is withdrawn"
        );
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Returns the retries that wait in their back-off.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_quiet_service_has_three_retries_a_second_and_no_more() {
        let (mut budget, settings) = (RetryBudget::default(), BudgetSettings::default());
        let promised = (0..100)
            .filter(|_| budget.promise(&settings, at(0)))
            .count();
        assert_eq!(promised, 30, "ten seconds' worth");
    }

    #[test]
    fn retries_that_wait_count_and_one_that_is_withdrawn_does_not() {
        let settings = BudgetSettings {
            percent: 20,
            minimum_in_window: 0,
        };
        let mut budget = RetryBudget::default();
        (0..10).for_each(|_| budget.call(at(0)));
        assert!(budget.promise(&settings, at(0)));
        assert!(budget.promise(&settings, at(0)));
        assert!(!budget.promise(&settings, at(0)), "both wait");
        budget.withdrawn();
        assert!(budget.promise(&settings, at(0)));
        budget.sent(at(100));
        budget.sent(at(100));
        assert_eq!(budget.waiting(), 0);
        assert!(!budget.promise(&settings, at(100)), "both were sent");
        assert!(
            !budget.promise(&settings, at(10_000)),
            "the calls are forgotten too"
        );
    }

    proptest! {
        #[test]
        fn retries_of_any_ten_seconds_never_exceed_the_share_of_their_calls(
            steps in proptest::collection::vec((0u64..400, 0u8..4), 1..400)
        ) {
            let settings = BudgetSettings { percent: 20, minimum_in_window: 10 };
            let (mut budget, mut now) = (RetryBudget::default(), 0);
            let (mut calls, mut retries) = (Vec::new(), Vec::new());
            for (wait, step) in steps {
                now += wait;
                match step {
                    0 => { budget.call(at(now)); calls.push(now); }
                    1 if budget.waiting() > 0 => { budget.sent(at(now)); retries.push(now); }
                    2 if budget.waiting() > 0 => budget.withdrawn(),
                    _ => {
                        let within = |times: &[u64]| times.iter()
                            .filter(|time| **time / 1000 + 10 > now / 1000).count() as u64;
                        if budget.promise(&settings, at(now)) {
                            let used = within(&retries) + u64::from(budget.waiting());
                            prop_assert!(used <= within(&calls) / 5 + 10);
                        }
                    }
                }
            }
        }
    }
}
