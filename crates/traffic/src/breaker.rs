//! When an endpoint is left alone, and how it comes back: after some failures no calls for a time,
//! then one, and all again if that one succeeds.

use std::time::Duration;

use model::time::Instant;

use crate::dice::Dice;
use crate::seconds::{Seconds, WINDOW_SECS};
use crate::settings::BreakerSettings;

/// One endpoint's record of late, and what follows from it.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: BreakerState,
    consecutive: u32,
    /// Calls that succeeded, and calls that failed.
    calls: Seconds,
    /// How often the penalty was doubled.
    doublings: u32,
    /// When it opened or closed last; what calls that began before say is old.
    since: Instant,
}

/// Whether an endpoint gets calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It does.
    Closed,
    /// It does not, and gets one as a probe from `until` on.
    Open {
        /// When the penalty ends.
        until: Instant,
    },
    /// It has one: what comes of it decides.
    Probing,
}

/// What opened a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tripped {
    /// So many failures in a row.
    Consecutive(u32),
    /// Too few of the calls of the last ten seconds succeeded.
    SuccessRate {
        /// So many of a hundred.
        percent: u32,
        /// Of so many calls.
        calls: u32,
    },
    /// The probe failed.
    Probe,
}

impl Breaker {
    /// Makes a closed one.
    pub fn new(now: Instant) -> Self {
        Self {
            state: BreakerState::Closed,
            consecutive: 0,
            calls: Seconds::default(),
            doublings: 0,
            since: now,
        }
    }

    /// Returns whether the endpoint gets calls.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether the endpoint gets calls as others do.
    pub fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// Returns when the endpoint may be probed, if it waits for that.
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            BreakerState::Open { until } => Some(until),
            BreakerState::Closed | BreakerState::Probing => None,
        }
    }

    /// Takes in that a call which began at `started` succeeded. Returns whether that closed it.
    pub fn succeeded(&mut self, started: Instant, now: Instant) -> bool {
        if started < self.since {
            return false;
        }
        if !self.is_closed() {
            self.close(now);
            return true;
        }
        self.consecutive = 0;
        self.calls.add(1, 0, now);
        false
    }

    /// Takes in that a call which began at `started` failed. Returns why the breaker should open;
    /// whether it may is for its owner to say, by [`Self::open`] or [`Self::spare`].
    pub fn failed(
        &mut self,
        started: Instant,
        settings: &BreakerSettings,
        now: Instant,
    ) -> Option<Tripped> {
        if started < self.since || !self.is_closed() {
            return None;
        }
        self.consecutive += 1;
        self.calls.add(0, 1, now);
        if self.consecutive >= settings.consecutive_failures {
            return Some(Tripped::Consecutive(self.consecutive));
        }
        let sums = self.calls.sums(now);
        let calls = sums.first + sums.second;
        let enough = calls >= settings.requests_min;
        let percent = (u64::from(sums.first) * 100 / u64::from(calls.max(1))) as u32;
        (enough && percent < settings.success_percent_min)
            .then_some(Tripped::SuccessRate { percent, calls })
    }

    /// Opens it, longer than last time if it has not been closed for as long as it remembers.
    /// Returns for how long.
    pub fn open(&mut self, settings: &BreakerSettings, dice: &mut Dice, now: Instant) -> Duration {
        let relapse = now - self.since < Duration::from_secs(WINDOW_SECS as u64);
        let again = !self.is_closed() || (relapse && self.doublings > 0);
        let doublings = if again { self.doublings } else { 0 };
        let penalty = settings
            .penalty_min
            .saturating_mul(1 << doublings.min(30))
            .min(settings.penalty_max);
        let penalty = penalty + dice.up_to(penalty * settings.jitter_percent / 100);
        self.doublings = doublings + 1;
        self.state = BreakerState::Open {
            until: now + penalty,
        };
        self.since = now;
        self.start_over();
        penalty
    }

    /// Leaves it closed although it should open; it takes as many failures again to ask again.
    pub fn spare(&mut self) {
        self.start_over();
    }

    /// Takes the next call as the probe.
    pub fn begin_probe(&mut self, now: Instant) {
        debug_assert!(
            self.probe_at().is_some_and(|at| at <= now),
            "the penalty is over"
        );
        self.state = BreakerState::Probing;
        self.since = now;
    }

    /// Takes back a probe that said nothing: another call may be one at once.
    pub fn release_probe(&mut self, now: Instant) {
        if self.state == BreakerState::Probing {
            self.state = BreakerState::Open { until: now };
        }
    }

    /// Closes it.
    pub fn close(&mut self, now: Instant) {
        self.state = BreakerState::Closed;
        self.since = now;
        self.start_over();
    }

    fn start_over(&mut self) {
        self.consecutive = 0;
        self.calls.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn without_jitter() -> BreakerSettings {
        BreakerSettings {
            jitter_percent: 0,
            ..BreakerSettings::default()
        }
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let (mut breaker, settings) = (Breaker::new(at(0)), without_jitter());
        for _ in 0..4 {
            assert_eq!(breaker.failed(at(1), &settings, at(1)), None);
        }
        breaker.succeeded(at(1), at(1));
        for _ in 0..4 {
            assert_eq!(breaker.failed(at(2), &settings, at(2)), None);
        }
        let tripped = breaker.failed(at(2), &settings, at(2));
        assert_eq!(tripped, Some(Tripped::Consecutive(5)));
    }

    #[test]
    fn a_rate_under_eighty_percent_opens_it_once_there_are_ten_calls() {
        let (mut breaker, settings) = (Breaker::new(at(0)), without_jitter());
        let mut tripped = Vec::new();
        for call in 0..12 {
            if call % 4 == 3 {
                tripped.push(breaker.failed(at(call), &settings, at(call)));
            } else {
                breaker.succeeded(at(call), at(call));
            }
        }
        let expected = Tripped::SuccessRate {
            percent: 75,
            calls: 12,
        };
        assert_eq!(tripped, [None, None, Some(expected)]);
    }

    #[test]
    fn failures_of_more_than_ten_seconds_ago_do_not_count() {
        let (mut breaker, settings) = (Breaker::new(at(0)), without_jitter());
        for _ in 0..4 {
            breaker.failed(at(0), &settings, at(0));
        }
        for _ in 0..8 {
            breaker.succeeded(at(10_000), at(10_000));
        }
        assert_eq!(breaker.failed(at(10_001), &settings, at(10_001)), None);
        assert_eq!(
            breaker.failed(at(10_002), &settings, at(10_002)),
            None,
            "8 of 10"
        );
    }

    #[test]
    fn penalties_double_up_to_a_minute_and_begin_anew_after_ten_good_seconds() {
        let (mut breaker, settings) = (Breaker::new(at(0)), without_jitter());
        let mut dice = Dice::from_seed([0; 32]);
        let mut now = at(20_000);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let penalty = breaker.open(&settings, &mut dice, now);
            assert_eq!(penalty, Duration::from_secs(expected));
            now += penalty;
            breaker.begin_probe(now);
        }
        assert!(breaker.succeeded(now, now));
        now += Duration::from_secs(9);
        let relapse = breaker.clone().open(&settings, &mut dice, now);
        assert_eq!(relapse, Duration::from_secs(60));
        now += Duration::from_secs(1);
        assert_eq!(
            breaker.open(&settings, &mut dice, now),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn jitter_lengthens_a_penalty_by_half_at_most() {
        let settings = BreakerSettings::default();
        let mut dice = Dice::from_seed([3; 32]);
        let penalties: Vec<_> = (0..100)
            .map(|_| Breaker::new(at(0)).open(&settings, &mut dice, at(60_000)))
            .collect();
        let (low, high) = (penalties.iter().min(), penalties.iter().max());
        assert!(*low.expect("100") < Duration::from_millis(1050), "{low:?}");
        assert!(*low.expect("100") >= Duration::from_secs(1), "{low:?}");
        assert!(
            *high.expect("100") > Duration::from_millis(1450),
            "{high:?}"
        );
        assert!(
            *high.expect("100") <= Duration::from_millis(1500),
            "{high:?}"
        );
    }

    #[test]
    fn calls_from_before_it_opened_neither_close_nor_open_it() {
        let (mut breaker, settings) = (Breaker::new(at(0)), without_jitter());
        let mut dice = Dice::from_seed([0; 32]);
        breaker.open(&settings, &mut dice, at(10_000));
        assert!(!breaker.succeeded(at(9_999), at(10_500)));
        breaker.begin_probe(at(11_000));
        assert!(breaker.succeeded(at(11_000), at(11_010)));
        for _ in 0..20 {
            assert_eq!(breaker.failed(at(9_999), &settings, at(11_020)), None);
        }
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_the_next_call_to_be_one() {
        let (mut breaker, settings) = (Breaker::new(at(0)), without_jitter());
        let mut dice = Dice::from_seed([0; 32]);
        breaker.open(&settings, &mut dice, at(0));
        breaker.begin_probe(at(1_000));
        assert_eq!(breaker.probe_at(), None, "one at a time");
        breaker.release_probe(at(1_200));
        assert_eq!(breaker.probe_at(), Some(at(1_200)));
    }
}
