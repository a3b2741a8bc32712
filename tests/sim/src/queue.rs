//! What happens next: events in the order of their time, those of one time in the order in which
//! they were put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::time::Instant;

/// Events that have not happened yet.
pub(crate) struct EventQueue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    sequence: u64,
}

struct Entry<E> {
    at: Instant,
    sequence: u64,
    event: E,
}

impl<E> EventQueue<E> {
    pub(crate) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }

    pub(crate) fn push(&mut self, at: Instant, event: E) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.heap.push(Reverse(Entry {
            at,
            sequence,
            event,
        }));
    }

    /// Takes the next event, with its time and its number.
    pub(crate) fn pop(&mut self) -> Option<(Instant, u64, E)> {
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.at, entry.sequence, entry.event))
    }
}

impl<E> Entry<E> {
    const fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let at = |secs| Instant::from_start(Duration::from_secs(secs));
        let mut queue = EventQueue::new();
        for (secs, name) in [(2, "c"), (1, "a"), (2, "d"), (1, "b")] {
            queue.push(at(secs), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|(_, _, name)| name)
            .collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
