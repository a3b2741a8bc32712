//! Which later fragments may follow: those of a packet whose first fragment, with the ports, was
//! let through under the same rules. A fixed table without buckets: a newer packet takes the
//! place of an older one, which loses that packet and nothing else.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use model::map::PeerIndex;
use model::rule::Direction;
use model::time::Instant;

use crate::packet::Headers;

/// How long the pieces of one packet may come apart (RFC 791 3.2 says 15 s, RFC 8200 4.5 60 s).
const FRAGMENT_TIME: Duration = Duration::from_secs(30);

/// What the fragments of one packet have in common; the addresses follow from peer and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FragmentKey {
    peer: PeerIndex,
    direction: Direction,
    is_ipv6: bool,
    ip_protocol: u8,
    id: u32,
}

impl FragmentKey {
    pub(crate) fn new(headers: &Headers, id: u32, direction: Direction, peer: PeerIndex) -> Self {
        let is_ipv6 = headers.source.is_ipv6();
        Self {
            peer,
            direction,
            is_ipv6,
            ip_protocol: headers.ip_protocol,
            id,
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    key: FragmentKey,
    generation: u64,
    since: Instant,
}

/// The packets whose first fragment was let through.
pub(crate) struct Fragments {
    /// Empty until the first fragment comes.
    places: Vec<Option<Entry>>,
    places_max: usize,
    hasher: FixedState,
}

impl Fragments {
    pub(crate) fn new(places_max: usize, seed: u64) -> Self {
        Self {
            places: Vec::new(),
            places_max,
            hasher: FixedState::with_seed(seed),
        }
    }

    /// The first fragment was let through under the rules of `generation`.
    pub(crate) fn remember(&mut self, key: FragmentKey, generation: u64, now: Instant) {
        if self.places.is_empty() {
            self.places.resize(self.places_max, None);
        }
        let place = self.place(&key);
        if let Some(entry) = self.places.get_mut(place) {
            *entry = Some(Entry {
                key,
                generation,
                since: now,
            });
        }
    }

    /// Returns whether a later fragment may follow.
    pub(crate) fn may_follow(&self, key: &FragmentKey, generation: u64, now: Instant) -> bool {
        self.find(key, now) == Some(generation)
    }

    /// Returns what was remembered of the first fragment.
    pub(crate) fn find(&self, key: &FragmentKey, now: Instant) -> Option<u64> {
        let entry = self.places.get(self.place(key)).copied().flatten()?;
        let is_its = entry.key == *key && now.saturating_since(entry.since) < FRAGMENT_TIME;
        is_its.then_some(entry.generation)
    }

    /// Forgets everything, because peers have changed.
    pub(crate) fn clear(&mut self) {
        self.places.fill(None);
    }

    fn place(&self, key: &FragmentKey) -> usize {
        let places = self.places.len().max(1) as u64;
        (self.hasher.hash_one(key) % places) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> FragmentKey {
        FragmentKey {
            peer: PeerIndex(0),
            direction: Direction::Inbound,
            is_ipv6: false,
            ip_protocol: 17,
            id,
        }
    }

    #[test]
    fn later_fragments_follow_the_first_under_the_same_rules_for_a_while() {
        let mut fragments = Fragments::new(16, 1);
        let now = Instant::START;
        assert!(!fragments.may_follow(&key(1), 1, now));
        fragments.remember(key(1), 1, now);
        assert!(fragments.may_follow(&key(1), 1, now));
        assert!(!fragments.may_follow(&key(2), 1, now));
        assert!(!fragments.may_follow(&key(1), 2, now), "other rules");
        assert!(!fragments.may_follow(&key(1), 1, now + FRAGMENT_TIME));
    }

    #[test]
    fn the_table_does_not_grow() {
        let mut fragments = Fragments::new(16, 1);
        for id in 0..1000 {
            fragments.remember(key(id), 1, Instant::START);
        }
        assert_eq!(fragments.places.len(), 16);
    }
}
