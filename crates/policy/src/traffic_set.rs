//! Sets of packets by protocol and destination port: compared and shown.

use model::rule::{PortRange, Traffic};

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
    use super::*;

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
