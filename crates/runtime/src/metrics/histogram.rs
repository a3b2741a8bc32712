//! How often something took how long. Written by anyone at any time, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds, with what a page says of each: from what a memory
/// access takes to what people wait for.
pub(super) const BOUNDS: [(u64, &str); 12] = [
    (100, "0.0001"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (1_000_000, "1.0"),
    (5_000_000, "5.0"),
    (30_000_000, "30.0"),
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// What took longer than all bounds is in the last one.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Counts something that took this long.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts all that another counted, too.
    pub fn absorb(&self, other: &Self) {
        for (mine, other) in self.buckets.iter().zip(&other.buckets) {
            mine.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let sum = other.sum_micros.load(Ordering::Relaxed);
        self.sum_micros.fetch_add(sum, Ordering::Relaxed);
    }

    /// Returns how many took at most as long as each bound, then how many there are.
    pub(super) fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut so_far = 0;
        std::array::from_fn(|bucket| {
            so_far += self.buckets[bucket].load(Ordering::Relaxed);
            so_far
        })
    }

    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Returns how long all took together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_what_took_at_most_its_bound() {
        let histogram = Histogram::default();
        for micros in [100, 101, 5_000, 31_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts = histogram.cumulative();
        assert_eq!(counts[..4], [1, 2, 2, 3]);
        assert_eq!((counts[11], counts[12]), (3, 4));
        assert_eq!(histogram.count(), 4);
        assert_eq!(histogram.sum(), Duration::from_micros(31_005_201));

        let sum = Histogram::default();
        sum.absorb(&histogram);
        sum.absorb(&histogram);
        assert_eq!(sum.cumulative(), counts.map(|count| 2 * count));
    }
}
