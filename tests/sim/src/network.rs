//! The underlay: which datagram arrives when, where, as what, or not at all. Who lives where, behind
//! which NAT box, which groups cannot hear each other, and how bad the lines are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::time::Instant;

use crate::dice::Dice;
use crate::event::HostIndex;
use crate::host::LISTEN_PORT;
use crate::nat::{BoxId, NatBox};

/// Where the stranger sends from. Nobody answers there.
pub(crate) const STRANGER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, 255, 1)), 4500);

/// One machine on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// A host's.
    Host(HostIndex),
    /// The coordinator's.
    Coordinator,
}

/// Where an address means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Realm {
    /// Everywhere.
    Internet,
    /// Behind a box, and with other machines behind another.
    Behind(BoxId),
}

/// The way of a datagram that a host sends, as far as it is known when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    /// Where the destination means something.
    pub(crate) realm: Realm,
    /// The sender, as the receiver sees it.
    pub(crate) source: SocketAddr,
    /// Who lives at the destination.
    pub(crate) there: HostIndex,
}

/// Names a partition until it heals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionId(pub(crate) u64);

/// How bad the lines are, in thousandths of all datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Weather {
    /// Lost.
    pub(crate) lost: u32,
    /// Come twice.
    pub(crate) doubled: u32,
    /// Come much later, also again after they came.
    pub(crate) late: u32,
    /// Have a bit flipped.
    pub(crate) damaged: u32,
    /// Are sent again by a stranger who overheard one.
    pub(crate) overheard: u32,
    /// The longest random delay, which reorders.
    pub(crate) jitter: Duration,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        lost: 0,
        doubled: 0,
        late: 0,
        damaged: 0,
        overheard: 0,
        jitter: Duration::from_micros(200),
    };

    pub(crate) const USUAL: Self = Self {
        lost: 5,
        doubled: 2,
        late: 1,
        damaged: 1,
        overheard: 2,
        jitter: Duration::from_millis(2),
    };

    /// Returns a storm.
    pub(crate) fn storm(dice: &mut Dice) -> Self {
        let mut up_to = |bound| u32::try_from(dice.below(bound)).expect("bounds are small");
        Self {
            lost: 20 + up_to(580),
            doubled: up_to(100),
            late: up_to(50),
            damaged: up_to(100),
            overheard: up_to(100),
            jitter: Duration::from_millis(1 + u64::from(up_to(150))),
        }
    }
}

/// What becomes of one datagram, once for each time that it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) after: Duration,
    /// The bit that is flipped.
    pub(crate) damaged_bit: Option<usize>,
}

/// The underlay.
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// Links differ in what they take at once.
    pub(crate) is_uneven: bool,
    homes: BTreeMap<(Realm, IpAddr), HostIndex>,
    realms: BTreeMap<HostIndex, Realm>,
    boxes: Vec<NatBox>,
    next_home: u32,
    partitions: BTreeMap<PartitionId, Vec<Place>>,
    next_partition: u64,
    overheard: Vec<(SocketAddr, Vec<u8>)>,
}

/// What is around a datagram: IPv4's header and UDP's (RFC 791, RFC 768).
const AROUND_BYTES: usize = 28;
/// RFC 894.
const ETHERNET_BYTES: usize = 1500;
/// Datagrams that a stranger keeps.
const OVERHEARD_KEPT: usize = 64;

impl Network {
    /// An internet with so many NAT boxes.
    pub(crate) fn new(boxes: u32) -> Self {
        let mut network = Self {
            weather: Weather::FAIR,
            is_uneven: false,
            homes: BTreeMap::new(),
            realms: BTreeMap::new(),
            boxes: Vec::new(),
            next_home: 0,
            partitions: BTreeMap::new(),
            next_partition: 0,
            overheard: Vec::new(),
        };
        for _ in 0..boxes {
            let outside = network.new_address();
            network.boxes.push(NatBox::new(outside));
        }
        network
    }

    fn new_address(&mut self) -> IpAddr {
        self.next_home += 1;
        // RFC 2544 benchmarking addresses: no overlay lies there.
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        IpAddr::V4(Ipv4Addr::from(first + self.next_home))
    }

    /// Picks where a machine may live: `natted_per_mille` of a thousand live behind a box.
    pub(crate) fn some_realm(&self, natted_per_mille: u32, dice: &mut Dice) -> Realm {
        if self.boxes.is_empty() || !dice.chance(natted_per_mille) {
            return Realm::Internet;
        }
        let number = u32::try_from(dice.below(self.boxes.len())).expect("few boxes");
        Realm::Behind(BoxId(number))
    }

    /// Gives a host another address; outside of NAT boxes, one that nobody had before.
    pub(crate) fn settle(&mut self, host: HostIndex, realm: Realm) -> IpAddr {
        self.homes.retain(|_, owner| *owner != host);
        if let Some(Realm::Behind(before)) = self.realms.insert(host, realm) {
            self.boxes[before.0 as usize].release(host);
        }
        let mut address = self.lease(realm);
        while self.homes.contains_key(&(realm, address)) {
            address = self.lease(realm);
        }
        self.homes.insert((realm, address), host);
        address
    }

    fn lease(&mut self, realm: Realm) -> IpAddr {
        match realm {
            Realm::Internet => self.new_address(),
            Realm::Behind(it) => self.boxes[it.0 as usize].lease(),
        }
    }

    fn realm_of(&self, host: HostIndex) -> Realm {
        self.realms.get(&host).copied().unwrap_or(Realm::Internet)
    }

    /// Returns whether a host can reach another that says nothing by itself.
    pub(crate) fn can_open(&self, from: HostIndex, to: HostIndex) -> bool {
        let (from, to) = (self.realm_of(from), self.realm_of(to));
        to == Realm::Internet || from == to
    }

    /// Returns the address that the internet sees a host at.
    pub(crate) fn outside(&self, host: HostIndex, home: IpAddr) -> IpAddr {
        match self.realm_of(host) {
            Realm::Internet => home,
            Realm::Behind(it) => self.boxes[it.0 as usize].outside,
        }
    }

    /// Sends a datagram on its way; `None`: there is nobody.
    pub(crate) fn send(
        &mut self,
        from: HostIndex,
        home: IpAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<Leg> {
        let realm = self.realm_of(from);
        let source = SocketAddr::new(home, LISTEN_PORT);
        if let Some(there) = self.homes.get(&(realm, to.ip())).copied() {
            return Some(Leg {
                realm,
                source,
                there,
            });
        }
        if is_private(to.ip()) {
            return None;
        }
        let source = match realm {
            Realm::Internet => source,
            Realm::Behind(it) => {
                let nat = &mut self.boxes[it.0 as usize];
                if nat.outside == to.ip() {
                    return None; // no hairpin
                }
                nat.let_out(from, to, now)
            }
        };
        let there = self.owner(to, now)?;
        Some(Leg {
            realm: Realm::Internet,
            source,
            there,
        })
    }

    /// Returns who gets what is sent to an address of the internet, filters aside.
    fn owner(&self, to: SocketAddr, now: Instant) -> Option<HostIndex> {
        let direct = self.homes.get(&(Realm::Internet, to.ip())).copied();
        direct.or_else(|| self.box_at(to.ip())?.owner(to.port(), now))
    }

    fn box_at(&self, address: IpAddr) -> Option<&NatBox> {
        self.boxes.iter().find(|it| it.outside == address)
    }

    /// Returns who gets a datagram that arrives.
    pub(crate) fn arrive(
        &self,
        realm: Realm,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<HostIndex> {
        if let Some(host) = self.homes.get(&(realm, to.ip())) {
            return (to.port() == LISTEN_PORT).then_some(*host);
        }
        self.box_at(to.ip())?.let_in(to.port(), from, now)
    }

    /// A box loses its mappings.
    pub(crate) fn rebind(&mut self, dice: &mut Dice) -> Option<BoxId> {
        let number = (!self.boxes.is_empty()).then(|| dice.below(self.boxes.len()))?;
        self.boxes[number].rebind();
        Some(BoxId(u32::try_from(number).expect("few boxes")))
    }

    /// Parts some machines from all others.
    pub(crate) fn part(&mut self, group: Vec<Place>) -> PartitionId {
        self.next_partition += 1;
        let id = PartitionId(self.next_partition);
        self.partitions.insert(id, group);
        id
    }

    pub(crate) fn heal(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// Ends every partition and bad weather.
    pub(crate) fn calm(&mut self) {
        self.partitions.clear();
        self.weather = Weather::FAIR;
    }

    /// Returns whether two machines can hear each other.
    pub(crate) fn is_open(&self, one: Place, other: Place) -> bool {
        self.partitions
            .values()
            .all(|group| group.contains(&one) == group.contains(&other))
    }

    /// Returns the time that the way between two machines takes.
    pub(crate) fn latency(&self, one: Place, other: Place) -> Duration {
        match (region(one), region(other)) {
            (a, b) if a == b => Duration::from_micros(300),
            (a, b) => Duration::from_millis(10 + 15 * a.abs_diff(b)),
        }
    }

    /// Returns the bytes of the largest IP packet that passes between two machines at once: Ethernet's,
    /// less through a tunnel between two regions, and least where somebody's own line is narrow.
    pub(crate) fn takes_at_once(&self, one: HostIndex, other: HostIndex) -> usize {
        let is_narrow = |host: HostIndex| host.0 % 7 == 3;
        match self.is_uneven {
            false => ETHERNET_BYTES,
            true if is_narrow(one) || is_narrow(other) => 1340,
            true if region(Place::Host(one)) != region(Place::Host(other)) => 1400,
            true => ETHERNET_BYTES,
        }
    }

    /// A stranger on the way hears a datagram, and may send one that it heard earlier: from its own
    /// address, to where it was meant for, or to whom this one is.
    pub(crate) fn overhear(
        &mut self,
        to: SocketAddr,
        bytes: &[u8],
        dice: &mut Dice,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        if self.weather.overheard == 0 {
            return None;
        }
        if self.overheard.len() < OVERHEARD_KEPT {
            self.overheard.push((to, bytes.to_vec()));
        } else if dice.chance(100) {
            let place = dice.below(OVERHEARD_KEPT);
            self.overheard[place] = (to, bytes.to_vec());
        }
        if !dice.chance(self.weather.overheard) {
            return None;
        }
        let (meant_for, bytes) = dice.pick(&self.overheard).clone();
        Some((if dice.chance(700) { meant_for } else { to }, bytes))
    }

    /// Picks a datagram that a stranger heard, and where it was sent.
    pub(crate) fn capture(&self, dice: &mut Dice) -> Option<(SocketAddr, Vec<u8>)> {
        (!self.overheard.is_empty()).then(|| dice.pick(&self.overheard).clone())
    }

    /// Returns whether a datagram passes that nobody may make fragments of.
    pub(crate) fn takes(&self, one: HostIndex, other: HostIndex, bytes: usize) -> bool {
        bytes + AROUND_BYTES <= self.takes_at_once(one, other)
    }

    /// Returns when a datagram arrives, as often as it does.
    pub(crate) fn arrivals(
        &self,
        from: Place,
        to: Place,
        bytes: usize,
        dice: &mut Dice,
    ) -> Vec<Arrival> {
        let weather = self.weather;
        let mut arrivals = Vec::new();
        let latency = self.latency(from, to);
        let once = |dice: &mut Dice| Arrival {
            after: latency + dice.between(Duration::ZERO, weather.jitter),
            damaged_bit: dice.chance(weather.damaged).then(|| dice.below(bytes * 8)),
        };
        if !dice.chance(weather.lost) {
            arrivals.push(once(dice));
        }
        if dice.chance(weather.doubled) {
            arrivals.push(once(dice));
        }
        if dice.chance(weather.late) {
            let late = dice.secs(1, 200);
            let arrival = once(dice);
            arrivals.push(Arrival {
                after: arrival.after + late,
                ..arrival
            });
        }
        arrivals
    }
}

/// Nobody has such an address outside of NAT boxes.
fn is_private(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_private())
}

/// Machines live in three places.
fn region(place: Place) -> u64 {
    match place {
        Place::Host(HostIndex(index)) => u64::from(index % 3),
        Place::Coordinator => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place::Host(HostIndex(0));
    const B: Place = Place::Host(HostIndex(1));

    #[test]
    fn parted_machines_hear_each_other_again_when_every_partition_is_healed() {
        let mut network = Network::new(0);
        let first = network.part(vec![A]);
        let second = network.part(vec![A, Place::Coordinator]);
        assert!(!network.is_open(A, B) && !network.is_open(A, Place::Coordinator));
        network.heal(first);
        assert!(!network.is_open(A, B) && network.is_open(A, Place::Coordinator));
        network.heal(second);
        assert!(network.is_open(A, B));
    }

    const OUTSIDE: HostIndex = HostIndex(0);
    const INSIDE: HostIndex = HostIndex(1);
    const LAN: Realm = Realm::Behind(BoxId(0));

    fn at_port(address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, LISTEN_PORT)
    }

    #[test]
    fn who_moves_has_one_address_and_a_new_one() {
        let mut network = Network::new(0);
        let before = network.settle(INSIDE, Realm::Internet);
        let after = network.settle(INSIDE, Realm::Internet);
        assert_ne!(before, after);
        let there = |address| network.owner(at_port(address), Instant::START);
        assert_eq!((there(before), there(after)), (None, Some(INSIDE)));
    }

    #[test]
    fn a_box_lets_in_who_was_sent_something_and_nobody_else() {
        let (mut network, now) = (Network::new(2), Instant::START);
        let outside = network.settle(OUTSIDE, Realm::Internet);
        let inside = network.settle(INSIDE, LAN);
        let leg = network.send(INSIDE, inside, at_port(outside), now).unwrap();
        assert_eq!((leg.there, leg.realm), (OUTSIDE, Realm::Internet));
        assert_ne!(leg.source.ip(), inside, "it is translated");
        let back = network.send(OUTSIDE, outside, leg.source, now).unwrap();
        assert_eq!(back.there, INSIDE);
        let arrives = |from| network.arrive(Realm::Internet, from, leg.source, now);
        assert_eq!(arrives(back.source), Some(INSIDE));
        assert_eq!(arrives(STRANGER), None);
        assert!(network.can_open(INSIDE, OUTSIDE) && !network.can_open(OUTSIDE, INSIDE));
    }

    #[test]
    fn private_addresses_mean_others_behind_another_box() {
        let (mut network, now) = (Network::new(2), Instant::START);
        let homes = [0, 1].map(|number| {
            let realm = Realm::Behind(BoxId(number));
            network.settle(HostIndex(number), realm)
        });
        assert_eq!(homes[0], homes[1]);
        let other = network.settle(HostIndex(2), Realm::Behind(BoxId(1)));
        let leg = network.send(HostIndex(1), homes[1], at_port(other), now);
        assert_eq!(leg.unwrap().there, HostIndex(2));
        assert_eq!(
            network.send(HostIndex(0), homes[0], at_port(other), now),
            None
        );
    }

    #[test]
    fn in_fair_weather_everything_arrives_once_and_whole() {
        let (network, mut dice) = (Network::new(0), Dice::new(1, ""));
        for _ in 0..1000 {
            let arrivals = network.arrivals(A, B, 100, &mut dice);
            assert!(matches!(
                arrivals[..],
                [Arrival {
                    damaged_bit: None,
                    ..
                }]
            ));
        }
    }
}
