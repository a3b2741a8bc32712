//! Sets of packets by protocol and destination port: added, taken away, compared and shown.

use model::rule::{PortRange, Protocol, Traffic};

use crate::explain::range_of;

/// Ports as ranges that are ascending and do not touch, so that equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Returns the ports in any of the ranges.
    pub(crate) fn of(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut ranges: Vec<PortRange> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Returns the ranges, ascending.
    pub(crate) fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut taken = other.0.iter().peekable();
        for range in &self.0 {
            let mut first = u32::from(range.first);
            while let Some(hole) = taken.peek().filter(|hole| hole.first <= range.last) {
                left.extend(range_between(first, u32::from(hole.first)));
                first = first.max(u32::from(hole.last) + 1);
                if hole.last >= range.last {
                    break;
                }
                taken.next();
            }
            left.extend(range_between(first, u32::from(range.last) + 1));
        }
        Self::of(left)
    }

    fn intersects(&self, other: &Self) -> bool {
        self.without(other) != *self
    }

    fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }
}

/// Returns the ports from `first` up to and without `end`.
fn range_between(first: u32, end: u32) -> Option<PortRange> {
    let last = end.checked_sub(1).filter(|last| first <= *last)?;
    Some(PortRange {
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    })
}

/// Which packets may pass, or a rule speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TrafficSet {
    tcp: PortSet,
    udp: PortSet,
    icmp: bool,
    /// All other IP protocols; rules do not tell them apart.
    other: bool,
}

impl TrafficSet {
    /// Returns every packet.
    pub(crate) fn everything() -> Self {
        Self {
            tcp: PortSet::of([PortRange::ALL]),
            udp: PortSet::of([PortRange::ALL]),
            icmp: true,
            other: true,
        }
    }

    /// Returns what a rule to hosts speaks of; nothing for one to services, which say it.
    pub(crate) fn of_rule(traffic: &Traffic) -> Self {
        match traffic {
            Traffic::All => Self::everything(),
            Traffic::Service => Self::default(),
            Traffic::Ports { tcp, udp, icmp } => Self {
                tcp: PortSet::of(tcp.iter().copied()),
                udp: PortSet::of(udp.iter().copied()),
                icmp: *icmp,
                other: false,
            },
        }
    }

    /// Returns one port.
    pub(crate) fn of_port(protocol: Protocol, port: u16) -> Self {
        let ports = PortSet::of([PortRange::single(port)]);
        match protocol {
            Protocol::Tcp | Protocol::Http | Protocol::Grpc | Protocol::Auto => Self {
                tcp: ports,
                ..Self::default()
            },
            Protocol::Udp => Self {
                udp: ports,
                ..Self::default()
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what is in any of the sets.
    pub(crate) fn union<'s>(sets: impl IntoIterator<Item = &'s Self>) -> Self {
        let (mut tcp, mut udp, mut union) = (Vec::new(), Vec::new(), Self::default());
        for set in sets {
            tcp.extend(&set.tcp.0);
            udp.extend(&set.udp.0);
            union.icmp |= set.icmp;
            union.other |= set.other;
        }
        Self {
            tcp: PortSet::of(tcp),
            udp: PortSet::of(udp),
            ..union
        }
    }

    pub(crate) fn without(&self, other: &Self) -> Self {
        Self {
            tcp: self.tcp.without(&other.tcp),
            udp: self.udp.without(&other.udp),
            icmp: self.icmp && !other.icmp,
            other: self.other && !other.other,
        }
    }

    pub(crate) fn intersects(&self, other: &Self) -> bool {
        self.tcp.intersects(&other.tcp)
            || self.udp.intersects(&other.udp)
            || self.icmp && other.icmp
            || self.other && other.other
    }

    pub(crate) fn contains_tcp(&self, port: u16) -> bool {
        self.tcp.contains(port)
    }

    /// Returns its parts as people write them: `tcp 22`, `any udp port`, `icmp`.
    pub(crate) fn parts(&self) -> Vec<String> {
        if *self == Self::everything() {
            return vec!["everything".to_owned()];
        }
        let tcp = self.tcp.0.iter().map(|range| range_of("tcp", range));
        let udp = self.udp.0.iter().map(|range| range_of("udp", range));
        let icmp = self.icmp.then(|| "icmp".to_owned());
        let other = self.other.then(|| "other protocols".to_owned());
        tcp.chain(udp).chain(icmp).chain(other).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
        let edge = prop_oneof![0u16..12, (u16::MAX - 5)..=u16::MAX];
        let range = (edge.clone(), edge).prop_map(|(a, b)| PortRange {
            first: a.min(b),
            last: a.max(b),
        });
        vec(range, 0..5)
    }

    proptest! {
        #[test]
        fn sets_of_ports_are_sets(a in ranges(), b in ranges()) {
            let (left, right) = (PortSet::of(a.clone()), PortSet::of(b.clone()));
            let union = PortSet::of(a.iter().chain(&b).copied());
            let difference = left.without(&right);
            let mut shared = false;
            for port in (0..16).chain(u16::MAX - 10..=u16::MAX) {
                let in_left = a.iter().any(|range| range.contains(port));
                let in_right = b.iter().any(|range| range.contains(port));
                prop_assert_eq!(union.contains(port), in_left || in_right);
                prop_assert_eq!(difference.contains(port), in_left && !in_right);
                shared |= in_left && in_right;
            }
            prop_assert_eq!(left.intersects(&right), shared);
            prop_assert_eq!(PortSet::of(difference.0.into_iter().chain(right.0)), union);
        }
    }

    #[test]
    fn neighbouring_ports_are_one_range() {
        let ports = [24, 22, 23].map(PortRange::single);
        assert_eq!(
            PortSet::of(ports),
            PortSet::of([PortRange {
                first: 22,
                last: 24
            }])
        );
    }
}
