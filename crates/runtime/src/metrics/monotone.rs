//! Counts of somebody else that may begin anew, as those of an interface that is made again.

use std::sync::{Mutex, PoisonError};

/// Adds up a count of somebody else, so that it never goes back.
#[derive(Debug, Default)]
pub struct Monotone(Mutex<Sum>);

#[derive(Debug, Default)]
struct Sum {
    last: u64,
    total: u64,
}

impl Monotone {
    /// Takes the count as it is now, and returns the sum. `None`: it cannot be had now.
    pub fn follow(&self, now: Option<u64>) -> u64 {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.unwrap_or(sum.last);
        // One that is smaller has begun anew.
        sum.total += now.checked_sub(sum.last).unwrap_or(now);
        sum.last = now;
        sum.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_begins_anew_goes_on() {
        let monotone = Monotone::default();
        let counts = [Some(5), Some(7), None, Some(2), Some(3)];
        assert_eq!(counts.map(|count| monotone.follow(count)), [5, 7, 7, 9, 10]);
    }
}
