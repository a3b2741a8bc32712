//! NAT boxes. Machines behind one have private addresses, which other boxes use too; what they send
//! goes out from the box's address, at a port of its own. Only who was sent something may answer,
//! and only for a while: the port-restricted kind (RFC 4787 4.1 and 5: endpoint-independent
//! mapping, address- and port-dependent filtering), and no hairpin.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::time::Instant;

use crate::event::HostIndex;

/// Names a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BoxId(pub(crate) u32);

/// One box, its mappings and its filter.
pub(crate) struct NatBox {
    pub(crate) outside: IpAddr,
    mappings: BTreeMap<HostIndex, Mapping>,
    ports_given: u16,
    addresses_given: u8,
}

/// The port outside that stands for WireGuard's port of one machine inside.
struct Mapping {
    port: u16,
    used: Instant,
    sent_to: BTreeMap<SocketAddr, Instant>,
}

/// A mapping and a hole in the filter that are not used close: RFC 4787 4.3 asks for two minutes.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Holes in the filter of one machine; above it those that are closed are forgotten.
const HOLES_KEPT: usize = 1024;
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 30_000;
const ADDRESSES: u8 = 250;

impl NatBox {
    pub(crate) const fn new(outside: IpAddr) -> Self {
        Self {
            outside,
            mappings: BTreeMap::new(),
            ports_given: 0,
            addresses_given: 0,
        }
    }

    /// Returns a private address for one more machine: the same that another box gives.
    pub(crate) fn lease(&mut self) -> IpAddr {
        self.addresses_given = (self.addresses_given + 1) % ADDRESSES;
        IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2 + self.addresses_given))
    }

    /// Forgets a machine that moved away.
    pub(crate) fn release(&mut self, host: HostIndex) {
        self.mappings.remove(&host);
    }

    /// Lets a datagram out; returns as whose it is seen outside.
    pub(crate) fn let_out(&mut self, host: HostIndex, to: SocketAddr, now: Instant) -> SocketAddr {
        let is_open = self.mappings.get(&host).is_some_and(|it| it.is_open(now));
        if !is_open {
            self.ports_given = (self.ports_given + 1) % PORTS;
            let mapping = Mapping {
                port: FIRST_PORT + self.ports_given,
                used: now,
                sent_to: BTreeMap::new(),
            };
            self.mappings.insert(host, mapping);
        }
        let mapping = self.mappings.get_mut(&host).expect("it was just made");
        mapping.used = now;
        mapping.sent_to.insert(to, now);
        if mapping.sent_to.len() > HOLES_KEPT {
            mapping.sent_to.retain(|_, since| now - *since <= IDLE_MAX);
        }
        SocketAddr::new(self.outside, mapping.port)
    }

    /// Returns for whom a datagram is that comes to a port, whether or not it is let in.
    pub(crate) fn owner(&self, port: u16, now: Instant) -> Option<HostIndex> {
        let (host, _) = self.mapping(port, now)?;
        Some(host)
    }

    /// Returns for whom a datagram is that comes to a port, when it is let in.
    pub(crate) fn let_in(&self, port: u16, from: SocketAddr, now: Instant) -> Option<HostIndex> {
        let (host, mapping) = self.mapping(port, now)?;
        let since = *mapping.sent_to.get(&from)?;
        (now - since <= IDLE_MAX).then_some(host)
    }

    /// Forgets every mapping, as a box that was switched off and on.
    pub(crate) fn rebind(&mut self) {
        self.mappings.clear();
    }

    fn mapping(&self, port: u16, now: Instant) -> Option<(HostIndex, &Mapping)> {
        let is_it = |(_, it): &(&HostIndex, &Mapping)| it.port == port && it.is_open(now);
        let (host, mapping) = self.mappings.iter().find(is_it)?;
        Some((*host, mapping))
    }
}

impl Mapping {
    fn is_open(&self, now: Instant) -> bool {
        now - self.used <= IDLE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: HostIndex = HostIndex(1);

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat() -> NatBox {
        NatBox::new("203.0.113.1".parse().unwrap())
    }

    #[test]
    fn only_who_was_sent_something_may_answer_from_the_same_port_for_a_while() {
        let (mut nat, friend) = (nat(), address("198.18.0.1:51820"));
        let seen = nat.let_out(INSIDE, friend, at(0));
        assert_eq!(nat.let_in(seen.port(), friend, at(100)), Some(INSIDE));
        for stranger in ["198.18.0.1:51821", "198.18.0.2:51820"] {
            assert_eq!(nat.let_in(seen.port(), address(stranger), at(1)), None);
        }
        assert_eq!(nat.let_in(seen.port(), friend, at(121)), None);
    }

    #[test]
    fn a_machine_has_one_port_for_all_until_it_is_idle_or_the_box_restarts() {
        let mut nat = nat();
        let (one, other) = (address("198.18.0.1:1"), address("198.18.0.2:1"));
        let seen = nat.let_out(INSIDE, one, at(0));
        assert_eq!(nat.let_out(INSIDE, other, at(60)), seen);
        assert_ne!(nat.let_out(INSIDE, one, at(181)), seen);
        let later = nat.let_out(INSIDE, one, at(182));
        nat.rebind();
        assert_ne!(nat.let_out(INSIDE, one, at(183)), later);
    }
}
