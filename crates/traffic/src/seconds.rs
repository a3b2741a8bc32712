//! What happened in each of the last ten seconds: exact, so that a burst that is over is forgotten
//! and one that hides in an average is not.

use model::time::Instant;

/// How many seconds are remembered, this one included.
pub(crate) const WINDOW_SECS: usize = 10;

/// Two counts of each of the last ten seconds, with their sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seconds {
    slots: [Counts; WINDOW_SECS],
    sums: Counts,
    /// The second that was written last, since the start of the clock.
    newest: u64,
}

/// Two counts that are kept together; what they mean is their owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) first: u32,
    pub(crate) second: u32,
}

impl Seconds {
    pub(crate) fn add(&mut self, first: u32, second: u32, now: Instant) {
        self.forget(now);
        let slot = &mut self.slots[(self.newest % WINDOW_SECS as u64) as usize];
        for counts in [slot, &mut self.sums] {
            counts.first = counts.first.saturating_add(first);
            counts.second = counts.second.saturating_add(second);
        }
    }

    pub(crate) fn sums(&mut self, now: Instant) -> Counts {
        self.forget(now);
        self.sums
    }

    pub(crate) fn clear(&mut self) {
        self.slots = Default::default();
        self.sums = Counts::default();
    }

    /// Moves on to the second of `now`; a clock that stands still or is asked about the past keeps
    /// counting in the newest second.
    fn forget(&mut self, now: Instant) {
        let second = now.since_start().as_secs();
        if second.saturating_sub(self.newest) >= WINDOW_SECS as u64 {
            self.clear();
            self.newest = second;
        }
        while self.newest < second {
            self.newest += 1;
            let slot = &mut self.slots[(self.newest % WINDOW_SECS as u64) as usize];
            self.sums.first -= slot.first;
            self.sums.second -= slot.second;
            *slot = Counts::default();
        }
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
    fn a_second_is_forgotten_when_ten_others_have_begun() {
        let mut seconds = Seconds::default();
        seconds.add(3, 1, at(500));
        seconds.add(2, 0, at(9_999));
        assert_eq!(
            seconds.sums(at(9_999)),
            Counts {
                first: 5,
                second: 1
            }
        );
        assert_eq!(
            seconds.sums(at(10_000)),
            Counts {
                first: 2,
                second: 0
            }
        );
        assert_eq!(seconds.sums(at(1_000_000)), Counts::default());
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_last_ten_seconds(
            steps in proptest::collection::vec((0u64..3_000, 0u32..5, 0u32..5), 1..200)
        ) {
            let (mut seconds, mut now, mut all) = (Seconds::default(), 0, Vec::new());
            for (wait, first, second) in steps {
                now += wait;
                seconds.add(first, second, at(now));
                all.push((now / 1000, first, second));
                let kept = || all.iter().filter(|(when, ..)| when + WINDOW_SECS as u64 > now / 1000);
                let expected = Counts {
                    first: kept().map(|(_, first, _)| first).sum(),
                    second: kept().map(|(_, _, second)| second).sum(),
                };
                prop_assert_eq!(seconds.sums(at(now)), expected);
            }
        }
    }
}
