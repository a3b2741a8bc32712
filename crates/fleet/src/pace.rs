//! When work is done that nobody asked for and that goes on in portions: what hosts say is stored
//! together, what all of them are told is told a little at a time, and what failed is tried again.

use std::time::Duration;

use model::time::{Instant, Now};

/// The portions of one kind of work: at most one is under way, and between two there is a pause.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    due: Option<Instant>,
    is_under_way: bool,
    not_before: Option<Instant>,
}

impl Pace {
    /// Returns when the next portion is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Asks for a portion within so long. While one is under way this does nothing: whoever ends it
    /// looks what is left.
    pub(crate) fn ask(&mut self, within: Duration, now: Now) {
        if self.is_under_way {
            return;
        }
        let due = now.monotonic + within;
        let due = self.not_before.map_or(due, |it| it.max(due));
        self.due = Some(self.due.map_or(due, |it| it.min(due)));
    }

    /// Returns whether a portion is due; it is told once.
    pub(crate) fn take_due(&mut self, now: Now) -> bool {
        self.due.take_if(|due| *due <= now.monotonic).is_some()
    }

    /// Notes that a portion is under way.
    pub(crate) fn begin(&mut self) {
        self.is_under_way = true;
    }

    /// Notes that it is done, or has failed; the next one has to wait so long.
    pub(crate) fn end(&mut self, pause: Duration, now: Now) {
        self.is_under_way = false;
        self.not_before = Some(now.monotonic + pause);
    }
}

#[cfg(test)]
mod tests {
    use model::time::UnixTime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Now {
        Now {
            monotonic: Instant::from_start(Duration::from_secs(secs)),
            unix: UnixTime::from_secs(secs),
        }
    }

    #[test]
    fn the_earliest_wish_counts_and_is_told_once() {
        let mut pace = Pace::default();
        pace.ask(SECOND * 9, at(0));
        pace.ask(SECOND * 2, at(0));
        pace.ask(SECOND * 5, at(0));
        assert!(!pace.take_due(at(1)));
        assert!(pace.take_due(at(2)));
        assert!(!pace.take_due(at(3)));
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn one_portion_is_under_way_and_the_next_has_to_wait() {
        let mut pace = Pace::default();
        pace.begin();
        pace.ask(SECOND, at(0));
        assert_eq!(pace.deadline(), None, "who ends it asks again");
        pace.end(SECOND * 3, at(10));
        pace.ask(SECOND, at(10));
        assert!(!pace.take_due(at(12)));
        assert!(pace.take_due(at(13)));
    }
}
