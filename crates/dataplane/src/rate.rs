//! A token bucket.

use std::time::Duration;

use model::time::Instant;

/// Lets through so many a second, and as many at once after a quiet second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    interval: Duration,
    /// When the bucket would be full; ahead of now by what was taken.
    full_at: Instant,
}

impl Rate {
    /// Lets nothing through when `per_sec` is 0.
    pub(crate) fn per_sec(per_sec: u32) -> Self {
        let interval = Duration::from_secs(1)
            .checked_div(per_sec)
            .unwrap_or(Duration::MAX);
        Self {
            interval,
            full_at: Instant::START,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let may = full_at.saturating_since(now) <= Duration::from_secs(1);
        if may {
            self.full_at = full_at;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &mut Rate, now: Instant, tries: u32) -> usize {
        (0..tries).filter(|_| rate.take(now)).count()
    }

    #[test]
    fn a_second_fills_the_bucket() {
        let mut rate = Rate::per_sec(10);
        let later = |millis| Instant::from_start(Duration::from_millis(millis));
        assert_eq!(taken(&mut rate, later(0), 100), 10);
        assert_eq!(taken(&mut rate, later(100), 100), 1);
        assert_eq!(taken(&mut rate, later(60_000), 100), 10);
    }

    #[test]
    fn zero_a_second_is_none() {
        assert!(!Rate::per_sec(0).take(Instant::from_start(Duration::from_secs(9))));
    }
}
