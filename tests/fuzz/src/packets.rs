//! Overlay packets between the two hosts of `live`, and around them: the good, the odd, the old
//! attacks. Built by hand, so that nothing here agrees with `dataplane` by being the same code.

use std::net::IpAddr;

use crate::Seed;
use crate::live::{OWN_ADDRESSES, PEER_ADDRESSES};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// From whom to whom.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    source: IpAddr,
    destination: IpAddr,
}

impl Way {
    /// IPv4 from this host to the peer.
    pub(crate) fn out() -> Self {
        Self {
            source: OWN_ADDRESSES.v4.into(),
            destination: PEER_ADDRESSES.v4.into(),
        }
    }

    /// The same in IPv6.
    pub(crate) fn out_v6() -> Self {
        Self {
            source: OWN_ADDRESSES.v6.into(),
            destination: PEER_ADDRESSES.v6.into(),
        }
    }

    /// The way back.
    pub(crate) fn back(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    fn to(self, destination: &str) -> Self {
        Self {
            destination: destination.parse().expect("an address"),
            ..self
        }
    }

    /// An IP packet around an upper header and its data.
    fn packet(self, ip_protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, ip_protocol, 0, 0];
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet[2..4].copy_from_slice(&length(20 + upper.len()));
                let checksum = checksum(&packet);
                packet[10..12].copy_from_slice(&checksum);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet = vec![0x60, 0, 0, 0, 0, 0, ip_protocol, 64];
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet[4..6].copy_from_slice(&length(upper.len()));
            }
            _ => unreachable!("both addresses are of one family"),
        }
        packet.extend_from_slice(upper);
        packet
    }

    pub(crate) fn udp(self, source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
        self.packet(UDP, &udp_header(source_port, destination_port, data))
    }

    pub(crate) fn tcp(self, source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
        self.packet(TCP, &tcp_header(source_port, destination_port, flags))
    }

    fn icmp(self, kind: [u8; 2], rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        let ip_protocol = if self.source.is_ipv4() { ICMP } else { ICMPV6 };
        let upper = [&kind[..], &[0, 0], &rest, data].concat();
        self.packet(ip_protocol, &upper)
    }

    pub(crate) fn echo_request(self, identifier: u8) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        self.icmp([kind, 0], [0, identifier, 0, 1], b"ping")
    }

    fn echo_reply(self, identifier: u8) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { 0 } else { 129 };
        self.icmp([kind, 0], [0, identifier, 0, 1], b"ping")
    }

    /// Port unreachable, about a packet of the other way.
    fn unreachable(self, quoted: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() {
            [3, 3]
        } else {
            [1, 4]
        };
        self.icmp(kind, [0; 4], quoted)
    }

    /// Fragment needed, or packet too big.
    fn too_big(self, quoted: &[u8]) -> Vec<u8> {
        match self.source {
            IpAddr::V4(_) => self.icmp([3, 4], [0, 0, 5, 0], quoted),
            IpAddr::V6(_) => self.icmp([2, 0], [0, 0, 5, 0], quoted),
        }
    }
}

fn udp_header(source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
    let mut upper = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    upper.extend(length(8 + data.len()));
    upper.extend([0, 0]);
    upper.extend(data);
    upper
}

fn tcp_header(source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
    let mut upper = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    upper.extend(1000u32.to_be_bytes());
    upper.extend(2000u32.to_be_bytes());
    upper.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    upper
}

pub(crate) fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("packets are short")
        .to_be_bytes()
}

pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Lets the IP header of a packet say how long it is.
pub(crate) fn set_length(packet: &mut [u8]) {
    let bytes = packet.len();
    match packet[0] >> 4 {
        4 => packet[2..4].copy_from_slice(&length(bytes)),
        _ => packet[4..6].copy_from_slice(&length(bytes - 40)),
    }
}

/// Makes an IPv4 packet a fragment.
pub(crate) fn fragment_v4(mut packet: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let field = offset | u16::from(more) << 13;
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet
}

/// Options, a routing header and a fragment header, chained before UDP.
fn extended(way: Way, extensions: &[(u8, [u8; 8])]) -> Vec<u8> {
    let mut upper = Vec::new();
    for (position, (_, header)) in extensions.iter().enumerate() {
        let next = extensions.get(position + 1).map_or(UDP, |(kind, _)| *kind);
        upper.push(next);
        upper.extend_from_slice(&header[1..]);
    }
    upper.extend(udp_header(4000, 5000, b"behind extensions"));
    way.packet(extensions[0].0, &upper)
}

/// Packets of every kind, on every way.
pub(crate) fn seeds() -> Vec<Seed> {
    let (v4, v6) = (Way::out(), Way::out_v6());
    let mut seeds = Vec::new();
    for (name, way) in [
        ("out-v4", v4),
        ("out-v6", v6),
        ("in-v4", v4.back()),
        ("in-v6", v6.back()),
    ] {
        let mut add = |kind: &str, packet| seeds.push(Seed::new(format!("{name}-{kind}"), packet));
        add("udp", way.udp(5000, 53, b"question"));
        add("tcp-syn", way.tcp(40000, 22, SYN));
        add("tcp-ack", way.tcp(443, 40000, ACK));
        add("tcp-fin", way.tcp(40000, 443, FIN | ACK));
        add("tcp-reset", way.tcp(443, 40000, RST));
        add("echo-request", way.echo_request(7));
        add("echo-reply", way.echo_reply(7));
        add(
            "unreachable",
            way.unreachable(&way.back().udp(53, 5000, b"answer")),
        );
        add("too-big", way.too_big(&way.back().tcp(40000, 443, ACK)));
        add("gre", way.packet(47, &[0; 8]));
    }
    for (name, way) in [("out", v4), ("in", v4.back())] {
        let mut add = |kind: &str, packet| seeds.push(Seed::new(format!("{name}-{kind}"), packet));
        let udp = way.udp(5000, 53, &[7; 24]);
        add("fragment-first", fragment_v4(udp.clone(), 0, true));
        add("fragment-last", fragment_v4(udp.clone(), 3, false));
        add("fragment-tiny", fragment_v4(way.tcp(1, 22, SYN), 1, false));
        let mut options = udp.clone();
        options[0] = 0x46;
        options.splice(20..20, [1, 7, 3, 4]);
        options[3] += 4;
        add("options", options);
    }
    for (name, way) in [("out-v6", v6), ("in-v6", v6.back())] {
        let mut add = |kind: &str, packet| seeds.push(Seed::new(format!("{name}-{kind}"), packet));
        let (hop, routing, fragment, options) = (0, 43, 44, 60);
        add(
            "hop-by-hop",
            extended(way, &[(hop, [0, 0, 5, 2, 0, 0, 1, 0])]),
        );
        add(
            "routing",
            extended(way, &[(routing, [0, 0, 0, 0, 0, 0, 0, 0])]),
        );
        add(
            "first",
            extended(way, &[(fragment, [0, 0, 0, 1, 0, 0, 0, 9])]),
        );
        add(
            "later",
            extended(way, &[(fragment, [0, 0, 0, 8, 0, 0, 0, 9])]),
        );
        let pad = [0, 0, 1, 4, 0, 0, 0, 0];
        add(
            "chain",
            extended(
                way,
                &[
                    (hop, pad),
                    (options, pad),
                    (routing, [0; 8]),
                    (options, pad),
                ],
            ),
        );
    }
    for (name, to) in [
        ("stranger", "100.64.0.77"),
        ("multicast", "224.0.0.251"),
        ("broadcast", "255.255.255.255"),
        ("loopback", "127.0.0.1"),
        ("link-local", "169.254.169.254"),
    ] {
        seeds.push(Seed::new(
            format!("to-{name}"),
            v4.to(to).udp(5353, 5353, b"who"),
        ));
    }
    let solicitation = v6.to("ff02::2").icmp([133, 0], [0; 4], b"");
    seeds.push(Seed::new("router-solicitation", solicitation));
    seeds
}
