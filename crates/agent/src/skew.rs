//! How far this machine's wall clock is from the coordinator's: from what the coordinator said last,
//! and the time that has passed since. So the alarm also ends when somebody sets the clock.

use std::time::Duration;

use model::time::{Instant, Now, UnixTime};

/// A clock that differs more is an alarm.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// The coordinator's clock, as this host would read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoordinatorClock {
    said: UnixTime,
    at: Instant,
    is_alarming: bool,
}

/// What became of the difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    /// As before.
    Unchanged,
    /// Too large.
    Alarm(String),
    /// Small again.
    Over,
}

impl CoordinatorClock {
    /// Takes what the coordinator says that it is.
    pub(crate) const fn new(said: UnixTime, at: Instant) -> Self {
        Self {
            said,
            at,
            is_alarming: false,
        }
    }

    /// Returns by how much this machine's clock is ahead.
    pub(crate) fn ahead_secs(&self, now: Now) -> i64 {
        let theirs = (self.said + (now.monotonic - self.at))
            .since_epoch()
            .as_secs();
        let ours = now.unix.since_epoch().as_secs();
        ours.cast_signed().saturating_sub(theirs.cast_signed())
    }

    /// Compares the clocks; says what is news.
    pub(crate) fn compare(&mut self, now: Now) -> Skew {
        let theirs = (self.said + (now.monotonic - self.at)).since_epoch();
        let ours = now.unix.since_epoch();
        let skew = theirs.abs_diff(ours);
        let was_alarming = std::mem::replace(&mut self.is_alarming, skew > SKEW_MAX);
        match (was_alarming, self.is_alarming) {
            (false, true) => {
                let way = if ours > theirs { "ahead of" } else { "behind" };
                Skew::Alarm(format!(
                    "this machine's clock is {} minutes {way} the coordinator's; set it \
                     (`timedatectl set-ntp true`), else certificates will look expired or not \
                     valid yet",
                    skew.as_secs() / 60
                ))
            }
            (true, false) => Skew::Over,
            _ => Skew::Unchanged,
        }
    }
}
