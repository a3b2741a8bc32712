//! Receiver indices: random numbers by which datagrams name a session of ours.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use model::map::PeerIndex;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

use crate::place::Place;
use crate::shift::Shift;

/// Receiver index to peer. Random, so that an index says nothing and is hard to guess.
pub(crate) struct Indices {
    place: Place,
    shift: Shift,
    peers: HashMap<u32, PeerIndex, FixedState>,
}

impl Indices {
    pub(crate) fn new(place: Place, shift: Shift, seed: u64) -> Self {
        Self {
            place,
            shift,
            peers: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Takes a free index for the peer. A few per peer are ever taken, so that one is soon found.
    pub(crate) fn take(&mut self, peer: PeerIndex, dice: &mut ChaCha20Rng) -> u32 {
        loop {
            let index = self.shift.mark(self.place.mark(dice.next_u32()));
            if let Entry::Vacant(entry) = self.peers.entry(index) {
                entry.insert(peer);
                return index;
            }
        }
    }

    pub(crate) fn release(&mut self, index: u32) {
        self.peers.remove(&index);
    }

    /// Releases every index of a peer.
    pub(crate) fn release_peer(&mut self, peer: PeerIndex) {
        self.peers.retain(|_, owner| *owner != peer);
    }

    /// Returns whether an index was taken for the peer.
    pub(crate) fn has_any(&self, peer: PeerIndex) -> bool {
        self.peers.values().any(|owner| *owner == peer)
    }

    /// Returns all that are taken.
    pub(crate) fn all(&self) -> impl Iterator<Item = u32> {
        self.peers.keys().copied()
    }

    #[inline]
    pub(crate) fn find(&self, index: u32) -> Option<PeerIndex> {
        self.peers.get(&index).copied()
    }
}
