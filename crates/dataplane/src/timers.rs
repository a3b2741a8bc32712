//! When each peer needs the clock: one heap for all, with entries that are left behind when a
//! deadline moves and thrown away when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use model::map::PeerIndex;

/// The deadlines of all peers, in the time of `wireguard`: since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Duration, PeerIndex)>>,
}

impl Timers {
    /// Wakes the peer at `at`. `scheduled` is the peer's own memory of its earliest entry; a later
    /// deadline than that costs nothing now, for the peer is asked again when the entry comes up.
    #[inline]
    pub(crate) fn schedule(
        &mut self,
        peer: PeerIndex,
        at: Duration,
        scheduled: &mut Option<Duration>,
    ) {
        if scheduled.is_none_or(|earlier| at < earlier) {
            *scheduled = Some(at);
            self.heap.push(Reverse((at, peer)));
        }
    }

    /// Takes an entry that has come up. The peer ignores it unless it is the one it remembers.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(Duration, PeerIndex)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Returns the earliest entry; it may turn out to be left behind.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerIndex = PeerIndex(0);

    #[test]
    fn a_later_deadline_adds_nothing_and_an_earlier_one_comes_first() {
        let mut timers = Timers::default();
        let mut scheduled = None;
        for second in [10, 20, 30] {
            timers.schedule(PEER, Duration::from_secs(second), &mut scheduled);
        }
        assert_eq!(timers.heap.len(), 1);
        timers.schedule(PEER, Duration::from_secs(5), &mut scheduled);
        assert_eq!(scheduled, Some(Duration::from_secs(5)));
        assert_eq!(timers.take_due(Duration::from_secs(4)), None);
        assert_eq!(
            timers.take_due(Duration::from_secs(5)),
            Some((Duration::from_secs(5), PEER))
        );
        assert_eq!(timers.next(), Some(Duration::from_secs(10)));
    }
}
