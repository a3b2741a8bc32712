//! The replay window: which of the last 8192 counters of a session were seen.
//!
//! A ring of bits as in RFC 6479, but cleared bit by bit as the window moves, so that the whole
//! ring is window. It leaves authentication to the session, which marks a counter only afterwards.

/// How far behind the highest counter a packet may arrive.
pub const WINDOW: u64 = 8192; // the size of the Linux module's COUNTER_BITS_TOTAL

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: usize = (WINDOW / WORD_BITS) as usize;

/// The counters seen in one direction of one session.
#[derive(Debug)]
pub struct ReplayWindow {
    /// One more than the highest counter seen.
    next: u64,
    seen: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }
}

impl ReplayWindow {
    /// Tells whether a counter is new and inside or ahead of the window.
    #[inline]
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        self.next - counter <= WINDOW && self.seen[word(counter)] & bit(counter) == 0
    }

    /// Marks a counter of an authenticated packet as seen; false when it was not fresh. Counters
    /// stay below `u64::MAX`, because sessions end long before.
    #[inline]
    pub fn mark(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        self.seen[word(counter)] |= bit(counter);
        true
    }

    /// Makes `counter` the highest, forgetting what falls out of the window.
    #[inline]
    fn advance(&mut self, counter: u64) {
        if counter - self.next >= WINDOW {
            self.seen = [0; WORDS];
        } else {
            self.clear(self.next, counter);
        }
        self.next = counter + 1;
    }

    /// Clears the bits of `first..=last`, a word at a time.
    #[inline]
    fn clear(&mut self, first: u64, last: u64) {
        let mut start = first;
        while start <= last {
            let end = last.min(start | (WORD_BITS - 1));
            let run = u64::MAX >> (WORD_BITS - 1 - (end - start));
            self.seen[word(start)] &= !(run << (start % WORD_BITS));
            start = end + 1;
        }
    }
}

#[inline]
const fn word(counter: u64) -> usize {
    (counter / WORD_BITS) as usize % WORDS
}

#[inline]
const fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What the window means: every counter seen, and the highest.
    #[derive(Default)]
    struct Naive(BTreeSet<u64>);

    impl Naive {
        fn mark(&mut self, counter: u64) -> bool {
            let highest = self.0.last().copied().unwrap_or(0);
            counter + WINDOW > highest && self.0.insert(counter)
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_all_counters(
            start in prop_oneof![Just(0), 0..3 * WINDOW, Just(1 << 60)],
            steps in proptest::collection::vec(
                prop_oneof![
                    8 => -4_i64..8,
                    4 => -200_i64..300,
                    2 => -(WINDOW as i64) - 70..WINDOW as i64 + 70,
                    1 => 0..4 * WINDOW as i64,
                ],
                1..600,
            ),
        ) {
            let (mut window, mut naive) = (ReplayWindow::default(), Naive::default());
            let mut counter = start;
            for step in steps {
                counter = counter.saturating_add_signed(step);
                let fresh = window.is_fresh(counter);
                let marked = window.mark(counter);
                prop_assert_eq!(fresh, marked);
                prop_assert_eq!(marked, naive.mark(counter), "counter {}", counter);
            }
        }
    }

    #[test]
    fn the_whole_window_behind_the_highest_counter_is_accepted_once() {
        let mut window = ReplayWindow::default();
        assert!(window.mark(20_000));
        assert!(!window.mark(20_000 - WINDOW), "one too old");
        for counter in (20_001 - WINDOW..20_000).rev() {
            assert!(window.mark(counter), "{counter} is new");
            assert!(!window.mark(counter), "{counter} was seen");
        }
    }
}
