//! The dates of our handshakes. Peers refuse one that is not later than the last, so that dates
//! must grow even when the clock is set back, also across a restart: dates are reserved ahead,
//! the agent stores how far, and after a restart we go on from there.

use std::time::Duration;

use model::time::UnixTime;

/// How far ahead dates are reserved.
const RESERVED: Duration = Duration::from_secs(3600);
/// How much of it must be left.
const RESERVED_MIN: Duration = Duration::from_secs(1800);
/// More than a successor can have used in the few seconds that it has.
const LEAP: Duration = Duration::from_secs(60);
/// WireGuard dates are this coarse: 2^24 ns, so that two dates must be that far apart.
const STEP: Duration = Duration::from_nanos(1 << 24);

/// Dates handshakes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    last: UnixTime,
    reserved_until: UnixTime,
}

/// A date, and what to store because of it.
pub(crate) struct Stamp {
    pub(crate) date: UnixTime,
    /// Dates up to here may be used: store it.
    pub(crate) reserved_until: Option<UnixTime>,
}

impl Stamps {
    /// Dates will be later than `floor`.
    pub(crate) const fn new(floor: UnixTime) -> Self {
        Self {
            last: floor,
            reserved_until: floor,
        }
    }

    /// Raises the floor.
    pub(crate) fn raise(&mut self, floor: UnixTime) {
        self.last = self.last.max(floor);
        self.reserved_until = self.reserved_until.max(floor);
    }

    /// Returns the last date, and how far dates are reserved.
    pub(crate) const fn used(&self) -> (UnixTime, UnixTime) {
        (self.last, self.reserved_until)
    }

    /// Goes on from the last date of a daemon that uses no more of them, instead of from the end of
    /// what it had reserved.
    pub(crate) fn resume(&mut self, last: UnixTime, reserved_until: UnixTime) {
        self.last = last;
        self.reserved_until = reserved_until.max(last);
    }

    /// Leaves out dates that a successor may have used before it failed.
    pub(crate) fn leap(&mut self, clock: UnixTime) {
        self.last = self.last.max(clock) + LEAP;
    }

    /// Returns a date later than every one before.
    pub(crate) fn next(&mut self, clock: UnixTime) -> Stamp {
        self.last = clock.max(self.last + STEP);
        let is_short = self.last + RESERVED_MIN > self.reserved_until;
        let reserved_until = is_short.then(|| self.last + RESERVED);
        self.reserved_until = reserved_until.unwrap_or(self.reserved_until);
        Stamp {
            date: self.last,
            reserved_until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 86400;

    #[test]
    fn a_clock_set_back_a_year_still_gives_later_dates() {
        let now = UnixTime::from_secs(50 * YEAR);
        let mut stamps = Stamps::new(UnixTime::default());
        let first = stamps.next(now);
        let stored = first.reserved_until.unwrap();
        assert_eq!(first.date, now);
        let set_back = UnixTime::from_secs(49 * YEAR);
        let second = stamps.next(set_back);
        assert!(second.date > first.date);
        let restarted = Stamps::new(stored).next(set_back);
        assert!(restarted.date > second.date);
    }

    #[test]
    fn a_successor_goes_on_from_the_last_date_and_not_from_the_reservation() {
        let clock = UnixTime::from_secs(YEAR);
        let mut before = Stamps::new(UnixTime::default());
        let stored = before.next(clock).reserved_until.unwrap();
        let (last, reserved_until) = before.used();
        let mut after = Stamps::new(stored);
        after.resume(last, reserved_until);
        let date = after.next(clock).date;
        assert!(date > last && date < last + Duration::from_secs(1));
        before.leap(clock);
        assert!(before.next(clock).date > date + Duration::from_secs(59));
    }

    #[test]
    fn reservations_are_sparse_and_always_ahead() {
        let mut stamps = Stamps::new(UnixTime::default());
        let (mut stored, mut count) = (UnixTime::default(), 0);
        for second in 0..36_000 {
            let stamp = stamps.next(UnixTime::from_secs(YEAR + second));
            if let Some(until) = stamp.reserved_until {
                (stored, count) = (until, count + 1);
            }
            assert!(stamp.date < stored);
        }
        assert!((15..=25).contains(&count), "{count}");
    }
}
