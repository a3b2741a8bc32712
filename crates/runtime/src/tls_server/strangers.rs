//! Places for connections that the program has not let in as a member's: few in all, and fewer for
//! one source, so that nobody keeps all others from showing who they are. Sources are counted at several
//! widths, since whoever has one address may have many: a /64 of IPv6 mostly belongs to one machine, a
//! /56 or a /48 to one customer, a /32 to one provider.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::prefix::{Prefix, V4_MACHINE_BITS, V6_MACHINE_BITS};

/// Places of the TLS port in all.
const PLACES_MAX: usize = 4096;
/// The part of all places that one source may have: an address, or what mostly belongs to one machine.
/// Many hosts may be behind one address; they need theirs for a handshake and until they are let in.
const MACHINE_PART: usize = 16;
/// How wide a source of IPv4 may be, in bits of its prefix, and what part of the places one that wide
/// may have.
const V4_PARTS: [(u8, usize); 3] = [(V4_MACHINE_BITS, MACHINE_PART), (24, 4), (16, 2)];
/// The same of IPv6.
const V6_PARTS: [(u8, usize); 4] = [(V6_MACHINE_BITS, MACHINE_PART), (56, 8), (48, 4), (32, 2)];

/// The places of one port.
#[derive(Clone, Debug)]
pub struct Strangers {
    places_max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_source: BTreeMap<Prefix, usize>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    strangers: Strangers,
    remote: IpAddr,
}

impl Default for Strangers {
    fn default() -> Self {
        Self::new(PLACES_MAX)
    }
}

impl Strangers {
    /// Has so many places in all.
    pub fn new(places_max: usize) -> Self {
        let taken = Arc::default();
        Self { places_max, taken }
    }

    /// Takes a place for a connection; `None`: there is none, or none for its source.
    pub fn take(&self, remote: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let has_room = |(source, part): (Prefix, usize)| {
            let count = taken.by_source.get(&source);
            count.is_none_or(|count| *count < self.places_max / part)
        };
        if taken.all >= self.places_max || !sources(remote).all(has_room) {
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

    /// Returns how many places are taken.
    pub(super) fn count(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nobody panics with the lock held")
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

pub(super) fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// Returns the sources that an address counts for, and what part of the places each may have.
fn sources(remote: IpAddr) -> impl Iterator<Item = (Prefix, usize)> {
    let widths = match remote.to_canonical() {
        IpAddr::V4(_) => &V4_PARTS[..],
        IpAddr::V6(_) => &V6_PARTS[..],
    };
    let prefix = move |&(bits, part): &(u8, usize)| (Prefix::of(remote, bits), part);
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
        assert_eq!(greedy.len(), PLACES_MAX / MACHINE_PART);
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
        assert_eq!(
            places(&strangers, "192.0.2.1").len(),
            PLACES_MAX / MACHINE_PART
        );
        assert_eq!(strangers.taken().all, 0);
        assert!(strangers.taken().by_source.is_empty());
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
