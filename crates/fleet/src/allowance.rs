//! How often one host may do something: so often at once, and once more after each pause. What it used
//! up stays used up when it comes back on another stream.

use std::time::Duration;

use model::time::Instant;

/// How often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// At once, after a quiet time; at least 1.
    pub(crate) burst: u32,
    /// From then on, once in this time.
    pub(crate) pause: Duration,
}

/// What is left of it (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    /// When all that was used would have been regained.
    paid_until: Option<Instant>,
}

impl Allowance {
    /// Returns whether all of it may be used at once again.
    pub(crate) fn is_regained(&self, now: Instant) -> bool {
        self.paid_until.is_none_or(|until| until <= now)
    }

    /// Returns after which time it may be used, when it is used up.
    pub(crate) fn wait(&self, rate: Rate, now: Instant) -> Option<Duration> {
        let ahead = self.paid_until?.saturating_since(now);
        let room = rate.pause * rate.burst.saturating_sub(1);
        (ahead > room).then(|| ahead.saturating_sub(room))
    }

    /// Uses it once.
    ///
    /// # Errors
    /// It is used up; once more is allowed after this time.
    pub(crate) fn spend(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        if let Some(wait) = self.wait(rate, now) {
            return Err(wait);
        }
        let paid = self.paid_until.map_or(now, |until| until.max(now));
        self.paid_until = Some(paid + rate.pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        pause: Duration::from_secs(10),
    };

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn a_burst_is_allowed_and_then_one_after_each_pause() {
        let mut allowance = Allowance::default();
        let mut spent = |secs| {
            let allowed = |_: &u32| allowance.spend(RATE, at(secs)).is_ok();
            (0..10).take_while(allowed).count()
        };
        assert_eq!(spent(0), 3);
        assert_eq!(spent(9), 0);
        assert_eq!(spent(10), 1);
        assert_eq!(spent(1000), 3);
    }

    #[test]
    fn who_has_to_wait_is_told_how_long() {
        let mut allowance = Allowance::default();
        while allowance.spend(RATE, at(5)).is_ok() {}
        let wait = allowance.spend(RATE, at(8)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(7));
        assert_eq!(allowance.spend(RATE, at(8) + wait), Ok(()));
    }
}
