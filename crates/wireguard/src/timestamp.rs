//! TAI64N timestamps, which let a responder refuse a replayed initiation.
//!
//! The protocol only needs them to grow; reading a clock is the caller's.

use std::time::Duration;

/// Twelve bytes that grow with time: seconds (8 bytes) and nanoseconds (4), big endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp([u8; 12]);

impl Timestamp {
    /// TAI64 of 1970-01-01 00:00:00 UTC, as of <https://cr.yp.to/libtai/tai64.html>.
    const UNIX_EPOCH: u64 = (1 << 62) + 10;
    /// Time is told in steps of 2^24 ns (17 ms), so that it says little about the sender's load.
    const STEP_MASK: u32 = !((1 << 24) - 1);

    /// Makes the timestamp of a time since the Unix epoch.
    pub fn from_unix(since_epoch: Duration) -> Self {
        let seconds = Self::UNIX_EPOCH.saturating_add(since_epoch.as_secs());
        Self::from_parts(seconds, since_epoch.subsec_nanos() & Self::STEP_MASK)
    }

    /// Returns this time with a mark in the bits that [`Timestamp::from_unix`] leaves out: it says
    /// something else to who looks for it, and is as late as without, give or take 17 ms.
    ///
    /// # Panics
    /// The mark has more than 24 bits.
    #[must_use]
    pub const fn with_mark(mut self, mark: u32) -> Self {
        assert!(mark & Self::STEP_MASK == 0);
        let [_, high, middle, low] = mark.to_be_bytes();
        (self.0[9], self.0[10], self.0[11]) = (high, middle, low);
        self
    }

    /// Returns the mark; 0 in what [`Timestamp::from_unix`] makes.
    pub const fn mark(&self) -> u32 {
        u32::from_be_bytes([0, self.0[9], self.0[10], self.0[11]])
    }

    /// Wraps twelve bytes as they are on the wire; any value is accepted.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// Returns the twelve bytes as they are on the wire.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Returns this timestamp, or the next after `last` when this one is not later: a clock that
    /// was set back must not make a peer refuse us.
    pub(crate) fn later_than(self, last: Self) -> Self {
        if self > last { self } else { last.next() }
    }

    fn next(self) -> Self {
        let (seconds, nanos) = self.0.split_at(8);
        let seconds = u64::from_be_bytes(seconds.try_into().expect("eight bytes"));
        let nanos = u32::from_be_bytes(nanos.try_into().expect("four bytes"));
        match nanos.checked_add(1) {
            Some(nanos) => Self::from_parts(seconds, nanos),
            None => Self::from_parts(seconds.saturating_add(1), 0),
        }
    }

    fn from_parts(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_bytes_is_order_of_time() {
        let times = [0, 999, 1_000, 86_400_000, 1 << 45].map(Duration::from_millis);
        let stamps = times.map(Timestamp::from_unix);
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    }

    #[test]
    fn a_mark_is_read_back_and_the_next_step_is_later() {
        let time = Duration::from_nanos((1 << 61) + 999_999_999);
        let (stamp, next) = (
            Timestamp::from_unix(time),
            Timestamp::from_unix(time + Duration::from_nanos(1 << 24)),
        );
        assert_eq!(stamp.mark(), 0);
        for mark in [1, 0x12_3456, 0xff_ffff] {
            let marked = stamp.with_mark(mark);
            assert_eq!((marked.mark(), marked.with_mark(0)), (mark, stamp));
            assert!(marked < next);
        }
    }

    #[test]
    fn a_clock_set_back_still_gives_a_later_timestamp() {
        let last = Timestamp::from_unix(Duration::from_secs(1_000));
        let set_back = Timestamp::from_unix(Duration::from_secs(10));
        assert!(set_back.later_than(last) > last);
        let full = Timestamp::from_parts(7, u32::MAX);
        assert_eq!(
            set_back.later_than(full).max(full),
            set_back.later_than(full)
        );
    }
}
