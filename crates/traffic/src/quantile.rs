//! How long most calls of a service take: the p99 from which `per_try: auto` is made.

use std::time::Duration;

use model::time::Instant;

/// Buckets: four for each doubling, from 64 µs to over an hour.
const BUCKETS: usize = 4 * 26;
/// The upper bound of the first bucket, in nanoseconds, as a power of two.
const FIRST_POWER: u32 = 16;
/// How long one half of the window is.
const HALF: Duration = Duration::from_secs(30);
/// How many calls a p99 needs.
const CALLS_MIN: u32 = 100;

/// The latencies of the last 30 to 60 seconds.
#[derive(Clone, Debug)]
pub struct Quantiles {
    current: Half,
    previous: Half,
    turned: Instant,
    p99: Option<Duration>,
    /// Calls after which `p99` is worked out again.
    stale_after: u32,
}

#[derive(Clone, Debug)]
struct Half {
    buckets: [u32; BUCKETS],
    calls: u32,
}

impl Half {
    const EMPTY: Self = Self {
        buckets: [0; BUCKETS],
        calls: 0,
    };
}

impl Quantiles {
    /// Makes an empty one.
    pub fn new(now: Instant) -> Self {
        Self {
            current: Half::EMPTY,
            previous: Half::EMPTY,
            turned: now,
            p99: None,
            stale_after: CALLS_MIN,
        }
    }

    /// Takes in how long one attempt took, or how long it was waited for.
    pub fn observe(&mut self, latency: Duration, now: Instant) {
        self.turn(now);
        self.current.buckets[bucket(latency)] += 1;
        self.current.calls += 1;
        self.stale_after = self.stale_after.saturating_sub(1);
        if self.stale_after == 0 {
            self.work_out();
        }
    }

    /// Returns the p99, rounded up by at most a quarter; `None` for too few calls.
    pub fn p99(&mut self, now: Instant) -> Option<Duration> {
        self.turn(now);
        self.p99
    }

    fn turn(&mut self, now: Instant) {
        let elapsed = now - self.turned;
        if elapsed < HALF {
            return;
        }
        let current = std::mem::replace(&mut self.current, Half::EMPTY);
        self.previous = if elapsed < 2 * HALF {
            current
        } else {
            Half::EMPTY
        };
        self.turned = now;
        self.work_out();
    }

    fn work_out(&mut self) {
        let calls = self.current.calls + self.previous.calls;
        self.stale_after = (calls / 16).max(CALLS_MIN.saturating_sub(calls)).max(1);
        if calls < CALLS_MIN {
            self.p99 = None;
            return;
        }
        let (mut slower, allowed) = (0, calls / 100);
        let both = self.current.buckets.iter().zip(&self.previous.buckets);
        for (index, (current, previous)) in both.enumerate().rev() {
            slower += current + previous;
            if slower > allowed {
                self.p99 = Some(bound(index));
                return;
            }
        }
    }
}

/// Returns the bucket whose bound is the lowest that is not below the latency.
fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let power = 63 - (nanos | 1).leading_zeros();
    if power < FIRST_POWER {
        return 0;
    }
    // The two bits below the highest say which quarter of the doubling.
    let quarter = (nanos >> (power - 2)) & 3;
    let index = 1 + 4 * (power - FIRST_POWER) as usize + quarter as usize;
    index.min(BUCKETS - 1)
}

/// Returns what is above all latencies of a bucket.
fn bound(index: usize) -> Duration {
    let Some(above) = index.checked_sub(1) else {
        return Duration::from_nanos(1 << FIRST_POWER);
    };
    let power = FIRST_POWER + (above / 4) as u32;
    Duration::from_nanos((5 + above as u64 % 4) << (power - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn every_latency_is_below_the_bound_of_its_bucket_by_a_quarter_at_most() {
        for nanos in (0..40).flat_map(|power| [1u64 << power, (1 << power) + (1 << power) / 3]) {
            let latency = Duration::from_nanos(nanos);
            let bound = bound(bucket(latency));
            assert!(latency < bound, "{latency:?} is not below {bound:?}");
            let loose = bound.as_nanos() * 4 > latency.as_nanos() * 5;
            assert!(!loose || bucket(latency) == 0, "{latency:?} got {bound:?}");
        }
    }

    #[test]
    fn one_slow_call_of_a_hundred_is_not_the_p99_and_two_are() {
        let mut quantiles = Quantiles::new(at(0));
        for _ in 0..99 {
            quantiles.observe(Duration::from_millis(10), at(0));
        }
        assert_eq!(quantiles.p99(at(0)), None);
        quantiles.observe(Duration::from_secs(2), at(0));
        let usual = quantiles.p99(at(0)).expect("a hundred calls");
        assert!(usual < Duration::from_millis(13), "{usual:?}");

        for _ in 0..20 {
            quantiles.observe(Duration::from_secs(2), at(1));
        }
        assert!(quantiles.p99(at(1)).expect("enough") >= Duration::from_secs(2));
    }

    #[test]
    fn what_was_a_minute_ago_is_forgotten() {
        let mut quantiles = Quantiles::new(at(0));
        for _ in 0..200 {
            quantiles.observe(Duration::from_millis(10), at(0));
        }
        assert!(quantiles.p99(at(29)).is_some());
        assert!(quantiles.p99(at(31)).is_some(), "the half before counts");
        assert_eq!(quantiles.p99(at(62)), None);
    }
}
