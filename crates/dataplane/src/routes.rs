//! Which peer has an overlay address. Every peer has one address per family, so that a route is
//! one lookup and never a prefix match.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use model::address::HostAddresses;
use model::map::PeerIndex;

/// Overlay address to peer.
pub(crate) struct Routes {
    v4: HashMap<Ipv4Addr, PeerIndex, FixedState>,
    v6: HashMap<Ipv6Addr, PeerIndex, FixedState>,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            v4: HashMap::with_hasher(FixedState::with_seed(seed)),
            v6: HashMap::with_hasher(FixedState::with_seed(seed.rotate_left(32))),
        }
    }

    /// The last peer that an address was given to has it.
    pub(crate) fn insert(&mut self, addresses: HostAddresses, peer: PeerIndex) {
        self.v4.insert(addresses.v4, peer);
        self.v6.insert(addresses.v6, peer);
    }

    /// Takes back what still belongs to the peer.
    pub(crate) fn remove(&mut self, addresses: HostAddresses, peer: PeerIndex) {
        if self.v4.get(&addresses.v4) == Some(&peer) {
            self.v4.remove(&addresses.v4);
        }
        if self.v6.get(&addresses.v6) == Some(&peer) {
            self.v6.remove(&addresses.v6);
        }
    }

    #[inline]
    pub(crate) fn find(&self, address: IpAddr) -> Option<PeerIndex> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&v4).copied(),
            IpAddr::V6(v6) => self.v6.get(&v6).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: u8) -> HostAddresses {
        HostAddresses {
            v4: Ipv4Addr::new(10, 0, 0, last),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()),
        }
    }

    #[test]
    fn an_address_that_moved_to_another_peer_is_not_taken_with_the_first() {
        let mut routes = Routes::new(1);
        routes.insert(addresses(1), PeerIndex(1));
        routes.insert(addresses(1), PeerIndex(2));
        routes.remove(addresses(1), PeerIndex(1));
        assert_eq!(routes.find(addresses(1).v4.into()), Some(PeerIndex(2)));
        routes.remove(addresses(1), PeerIndex(2));
        assert_eq!(routes.find(addresses(1).v6.into()), None);
    }
}
