//! Places for connections that the program has not let in as a member's: few in all, and fewer for
//! one source, so that nobody keeps all others from showing who they are. Sources are counted at several
//! widths, since whoever has one address may have many: a /64 of IPv6 mostly belongs to one machine, a
//! /56 or a /48 to one customer, a /32 to one provider. A certificate alone is no reason to be let in:
//! its host may have been removed since.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use model::ids::Digest;

use super::prefix::{Prefix, V4_MACHINE_BITS, V6_MACHINE_BITS};

/// Places in all.
const PLACES_MAX: usize = 4096;
/// Places of one address, or what mostly belongs to one machine. Many hosts may be behind one address;
/// they need theirs for a handshake and until they are let in.
const PLACES_PER_SOURCE_MAX: usize = 256;
/// How wide a source of IPv4 may be, in bits of its prefix, and the places of one that wide.
const V4_PLACES_MAX: [(u8, usize); 3] = [
    (V4_MACHINE_BITS, PLACES_PER_SOURCE_MAX),
    (24, PLACES_MAX / 4),
    (16, PLACES_MAX / 2),
];
/// The same of IPv6.
const V6_PLACES_MAX: [(u8, usize); 4] = [
    (V6_MACHINE_BITS, PLACES_PER_SOURCE_MAX),
    (56, PLACES_MAX / 8),
    (48, PLACES_MAX / 4),
    (32, PLACES_MAX / 2),
];
/// Connections that show certificates of one key, let in or not. A host needs one; another is there
/// while it has not noticed yet that an earlier one is dead.
const CONNECTIONS_PER_KEY_MAX: usize = 4;

/// The places of one port.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_source: BTreeMap<Prefix, usize>,
    by_key: BTreeMap<Digest, usize>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Strangers,
    remote: IpAddr,
}

/// One of the connections of a key, until it is dropped.
#[derive(Debug)]
pub(super) struct OfKey {
    strangers: Strangers,
    key: Digest,
}

impl Strangers {
    /// Takes a place for a connection; `None`: there is none, or none for its source.
    pub(super) fn take(&self, remote: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let has_room = |(source, max): (Prefix, usize)| {
            taken
                .by_source
                .get(&source)
                .is_none_or(|count| *count < max)
        };
        if taken.all >= PLACES_MAX || !sources(remote).all(has_room) {
            return None;
        }
        for (source, _) in sources(remote) {
            *taken.by_source.entry(source).or_default() += 1;
        }
        taken.all += 1;
        Some(Place {
            strangers: self.clone(),
            remote,
        })
    }

    /// Counts a connection that shows a certificate of a key; `None`: there are too many.
    pub(super) fn show(&self, key: Digest) -> Option<OfKey> {
        let mut taken = self.taken();
        let of_key = taken.by_key.entry(key).or_default();
        if *of_key >= CONNECTIONS_PER_KEY_MAX {
            return None;
        }
        *of_key += 1;
        Some(OfKey {
            strangers: self.clone(),
            key,
        })
    }

    /// Returns how many places are taken.
    pub(super) fn count(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().expect("nobody panics with the lock held")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.strangers.taken();
        taken.all -= 1;
        for (source, _) in sources(self.remote) {
            leave(&mut taken.by_source, source);
        }
    }
}

impl Drop for OfKey {
    fn drop(&mut self) {
        leave(&mut self.strangers.taken().by_key, self.key);
    }
}

fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// Returns the sources that an address counts for, and the places of each.
fn sources(remote: IpAddr) -> impl Iterator<Item = (Prefix, usize)> {
    let widths = match remote.to_canonical() {
        IpAddr::V4(_) => &V4_PLACES_MAX[..],
        IpAddr::V6(_) => &V6_PLACES_MAX[..],
    };
    let prefix = move |&(bits, max): &(u8, usize)| (Prefix::of(remote, bits), max);
    widths.iter().map(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn places(strangers: &Strangers, remote: &str) -> Vec<Place> {
        std::iter::from_fn(|| strangers.take(ip(remote))).collect()
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let strangers = Strangers::default();
        let greedy = places(&strangers, "192.0.2.1");
        assert_eq!(greedy.len(), PLACES_PER_SOURCE_MAX);
        assert!(strangers.take(ip("::ffff:192.0.2.1")).is_none());
        assert!(strangers.take(ip("192.0.2.2")).is_some());
    }

    #[test]
    fn the_addresses_of_a_v6_subnet_are_one_source() {
        let strangers = Strangers::default();
        let _greedy = places(&strangers, "2001:db8::1");
        assert!(strangers.take(ip("2001:db8::2")).is_none());
        assert!(strangers.take(ip("2001:db8:0:1::2")).is_some());
    }

    #[test]
    fn places_are_free_again_when_they_are_left() {
        let strangers = Strangers::default();
        drop(places(&strangers, "192.0.2.1"));
        assert_eq!(places(&strangers, "192.0.2.1").len(), PLACES_PER_SOURCE_MAX);
        assert_eq!(strangers.taken().all, 0);
        assert!(strangers.taken().by_source.is_empty());
    }

    #[test]
    fn one_key_has_few_connections() {
        let strangers = Strangers::default();
        let key = Digest::from_bytes([1; 32]);
        let greedy: Vec<_> = std::iter::from_fn(|| strangers.show(key)).collect();
        assert_eq!(greedy.len(), CONNECTIONS_PER_KEY_MAX);
        assert!(strangers.show(Digest::from_bytes([2; 32])).is_some());
        drop(greedy);
        assert!(strangers.show(key).is_some());
        assert!(strangers.taken().by_key.is_empty());
    }

    #[test]
    fn there_are_not_more_places_than_all() {
        let strangers = Strangers::default();
        let all: Vec<Place> = (0..=255u8)
            .flat_map(|first| places(&strangers, &format!("{first}.0.2.1")))
            .collect();
        assert_eq!(all.len(), PLACES_MAX);
    }

    /// Takes all places that anybody gets by addresses `0`, `1`, and so on, put in a pattern.
    fn greedy(strangers: &Strangers, pattern: &str) -> Vec<Place> {
        let addresses = (0..64).map(|number| pattern.replace('#', &number.to_string()));
        addresses
            .flat_map(|address| places(strangers, &address))
            .collect()
    }

    #[test]
    fn who_has_many_networks_cannot_take_all_places() {
        for (pattern, places, other) in [
            ("2001:db8:0:#::1", 512, "2001:db8:0:100::1"), // a /56
            ("2001:db8:0:#00::1", 1024, "2001:db8:1::1"),  // a /48
            ("2001:db8:#::1", 2048, "2001:db9::1"),        // a /32
            ("192.0.2.#", 1024, "192.0.3.1"),
            ("192.0.#.1", 2048, "192.1.0.1"),
        ] {
            let strangers = Strangers::default();
            let taken = greedy(&strangers, pattern);
            assert_eq!(taken.len(), places, "{pattern}");
            assert!(strangers.take(ip(other)).is_some(), "{other}");
            drop(taken);
            assert!(strangers.taken().by_source.is_empty());
        }
    }
}
