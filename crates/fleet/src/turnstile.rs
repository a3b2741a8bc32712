//! How many may come in at one time. When a coordinator comes back, all its hosts do: so many are let
//! in at once, so many a second after that, and each of the others is told when its turn is.

use std::time::Duration;

use model::time::Instant;

/// How fast hosts are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// At once, after a quiet time.
    pub burst: u32,
    /// From then on; at least 1.
    pub per_sec: u32,
}

impl Admission {
    /// The time of one.
    fn pace(self) -> Duration {
        Duration::from_secs(1) / self.per_sec.max(1)
    }
}

/// Nobody is told to wait longer: who is so far behind asks again.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Nobody is told to wait shorter, so that nobody comes back before there is room.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Lets hosts in at a pace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turnstile {
    /// When all who were let in would have come in at the pace (the generic cell rate algorithm).
    paid_until: Option<Instant>,
    /// The last turn that was given to somebody who had to go away.
    promised_until: Option<Instant>,
}

impl Turnstile {
    /// Lets one in.
    ///
    /// # Errors
    /// After how long it is this one's turn.
    pub(crate) fn enter(&mut self, admission: Admission, now: Instant) -> Result<(), Duration> {
        let pace = admission.pace();
        let paid = self.paid_until.map_or(now, |until| until.max(now));
        if paid.saturating_since(now) <= pace * admission.burst.saturating_sub(1) {
            self.paid_until = Some(paid + pace);
            return Ok(());
        }
        let promised = self.promised_until.map_or(now, |until| until.max(now)) + pace;
        let wait = promised.saturating_since(now);
        if wait < WAIT_MAX {
            self.promised_until = Some(promised);
        }
        Err(wait.clamp(WAIT_MIN, WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Admission = Admission {
        burst: 10,
        per_sec: 5,
    };

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_comes_in_and_then_so_many_a_second() {
        let mut turnstile = Turnstile::default();
        let mut enter = |millis| turnstile.enter(SLOW, at(millis)).is_ok();
        assert_eq!((0..100).filter(|_| enter(0)).count(), 10);
        assert_eq!((0..100).filter(|_| enter(1000)).count(), 5);
        assert_eq!((0..100).filter(|_| enter(100_000)).count(), 10);
    }

    #[test]
    fn each_of_the_others_has_a_turn_of_its_own() {
        let mut turnstile = Turnstile::default();
        let waits: Vec<_> = (0..60)
            .filter_map(|_| turnstile.enter(SLOW, at(0)).err())
            .collect();
        assert_eq!(waits.len(), 50);
        assert_eq!((waits[0], waits[49]), (WAIT_MIN, Duration::from_secs(10)));
        // Who comes back in turn is let in.
        for wait in waits {
            turnstile.enter(SLOW, at(0) + wait + WAIT_MIN).unwrap();
        }
    }

    #[test]
    fn nobody_is_sent_away_for_ever() {
        let mut turnstile = Turnstile::default();
        let longest = (0..100_000).filter_map(|_| turnstile.enter(SLOW, at(0)).err());
        assert_eq!(longest.max(), Some(WAIT_MAX));
    }
}
