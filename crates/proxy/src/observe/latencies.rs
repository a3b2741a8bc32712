//! How long calls took, finely enough to tell a p99 from a p50: four buckets for each doubling.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From 16 µs to over an hour.
const BUCKETS: usize = 4 * 28;
/// The upper bound of the first bucket, in microseconds, as a power of two.
const FIRST_POWER: u32 = 4;

/// Counts of latencies, written without a lock.
#[derive(Debug)]
pub(super) struct Latencies([AtomicU64; BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latencies {
    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn absorb(&self, other: &Self) {
        for (mine, other) in self.0.iter().zip(&other.0) {
            mine.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Returns the bounds that calls stayed below, in microseconds, with how many did.
    pub(super) fn by_bound(&self) -> Vec<(u64, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = counts
            .enumerate()
            .map(|(index, count)| (bound(index), count));
        bounds.filter(|(_, count)| *count > 0).collect()
    }
}

fn bucket(micros: u64) -> usize {
    let power = 63 - (micros | 1).leading_zeros();
    if power < FIRST_POWER {
        return 0;
    }
    // The two bits below the highest say which quarter of the doubling.
    let quarter = (micros >> (power - 2)) & 3;
    (1 + 4 * (power - FIRST_POWER) as usize + quarter as usize).min(BUCKETS - 1)
}

fn bound(index: usize) -> u64 {
    let Some(above) = index.checked_sub(1) else {
        return 1 << FIRST_POWER;
    };
    let power = FIRST_POWER + (above / 4) as u32;
    (5 + above as u64 % 4) << (power - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_below_its_bound_by_a_quarter_at_most() {
        for micros in (0..30).flat_map(|power| [1u64 << power, (1 << power) + (1 << power) / 3]) {
            let latencies = Latencies::default();
            latencies.observe(Duration::from_micros(micros));
            let [(bound, 1)] = latencies.by_bound()[..] else {
                panic!("{micros} is counted once");
            };
            assert!(micros < bound, "{micros} is not below {bound}");
            assert!(
                bound * 4 <= micros * 5 || bound == 16,
                "{micros} got {bound}"
            );
        }
    }
}
