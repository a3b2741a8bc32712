//! The underlay: which datagram arrives when, as what, or not at all. Who lives where, which groups
//! cannot hear each other, and how bad the lines are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::dice::Dice;
use crate::event::HostIndex;

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
    homes: BTreeMap<IpAddr, HostIndex>,
    next_home: u32,
    partitions: BTreeMap<PartitionId, Vec<Place>>,
    next_partition: u64,
    overheard: Vec<(SocketAddr, Vec<u8>)>,
}

/// Datagrams that a stranger keeps.
const OVERHEARD_KEPT: usize = 64;

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            weather: Weather::FAIR,
            homes: BTreeMap::new(),
            next_home: 0,
            partitions: BTreeMap::new(),
            next_partition: 0,
            overheard: Vec::new(),
        }
    }

    /// Gives a host an address that nobody had before.
    pub(crate) fn settle(&mut self, host: HostIndex) -> IpAddr {
        self.homes.retain(|_, owner| *owner != host);
        self.next_home += 1;
        // RFC 2544 benchmarking addresses: no overlay lies there.
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        let address = IpAddr::V4(Ipv4Addr::from(first + self.next_home));
        self.homes.insert(address, host);
        address
    }

    /// Returns who has an address now.
    pub(crate) fn host_at(&self, address: IpAddr) -> Option<HostIndex> {
        self.homes.get(&address).copied()
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
        let mut network = Network::new();
        let first = network.part(vec![A]);
        let second = network.part(vec![A, Place::Coordinator]);
        assert!(!network.is_open(A, B) && !network.is_open(A, Place::Coordinator));
        network.heal(first);
        assert!(!network.is_open(A, B) && network.is_open(A, Place::Coordinator));
        network.heal(second);
        assert!(network.is_open(A, B));
    }

    #[test]
    fn who_moves_has_one_address_and_a_new_one() {
        let mut network = Network::new();
        let before = network.settle(HostIndex(7));
        let after = network.settle(HostIndex(7));
        assert_ne!(before, after);
        assert_eq!(network.host_at(before), None);
        assert_eq!(network.host_at(after), Some(HostIndex(7)));
    }

    #[test]
    fn in_fair_weather_everything_arrives_once_and_whole() {
        let (network, mut dice) = (Network::new(), Dice::new(1, ""));
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
