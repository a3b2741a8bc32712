//! Counts of somebody else that may begin anew, as those of an interface that is made again.

use std::sync::{Mutex, PoisonError};

/// Adds up a count of somebody else from some moment on, so that it never goes back.
#[derive(Debug, Default)]
pub struct Monotone(Mutex<Sum>);

#[derive(Debug, Default)]
struct Sum {
    last: u64,
    total: u64,
}

impl Monotone {
    /// Begins at nothing with the count as it is now. `None`: there is nothing to count yet.
    pub fn from_here(now: Option<u64>) -> Self {
        Self(Mutex::new(Sum {
            last: now.unwrap_or_default(),
            total: 0,
        }))
    }

    /// Looks at the count, and returns the sum. `None`: it cannot be had now. One looks at a time: of
    /// two who looked at once, the later one would seem to have seen the count fall.
    pub fn follow(&self, look: impl FnOnce() -> Option<u64>) -> u64 {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = look().unwrap_or(sum.last);
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
        assert_eq!(
            counts.map(|count| monotone.follow(|| count)),
            [5, 7, 7, 9, 10]
        );
    }

    #[test]
    fn what_was_counted_before_the_beginning_is_left_out() {
        let monotone = Monotone::from_here(Some(900));
        let counts = [Some(900), Some(903), Some(1)];
        assert_eq!(counts.map(|count| monotone.follow(|| count)), [0, 3, 4]);
        assert_eq!(Monotone::from_here(None).follow(|| Some(2)), 2);
    }
}
