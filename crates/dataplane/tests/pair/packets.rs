//! Overlay packets with right checksums, built independently of the crate.

use std::net::IpAddr;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// An IP packet around an upper header and its data.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, ip_protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut packet;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, ip_protocol, 0, 0];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet[2..4].copy_from_slice(&((20 + upper.len()) as u16).to_be_bytes());
            let checksum = checksum(&packet);
            packet[10..12].copy_from_slice(&checksum);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet = vec![0x60, 0, 0, 0, 0, 0, ip_protocol, 64];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet[4..6].copy_from_slice(&(upper.len() as u16).to_be_bytes());
        }
        _ => panic!("two families"),
    }
    packet.extend_from_slice(upper);
    packet
}

pub(crate) fn udp(
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    data: &[u8],
) -> Vec<u8> {
    let mut upper = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    upper.extend(((8 + data.len()) as u16).to_be_bytes());
    upper.extend([0, 0]);
    upper.extend(data);
    ip(source, destination, UDP, &upper)
}

pub(crate) fn tcp(
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    flags: u8,
) -> Vec<u8> {
    let mut upper = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    upper.extend(1000u32.to_be_bytes());
    upper.extend(2000u32.to_be_bytes());
    upper.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ip(source, destination, TCP, &upper)
}

pub(crate) fn echo(
    source: IpAddr,
    destination: IpAddr,
    is_request: bool,
    identifier: u16,
) -> Vec<u8> {
    let is_v4 = source.is_ipv4();
    let kind = match (is_v4, is_request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let mut upper = vec![kind, 0, 0, 0];
    upper.extend(identifier.to_be_bytes());
    upper.extend([0, 1]);
    ip(
        source,
        destination,
        if is_v4 { ICMP } else { ICMPV6 },
        &upper,
    )
}

/// An ICMP port unreachable that quotes a packet.
pub(crate) fn unreachable(source: IpAddr, destination: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let is_v4 = source.is_ipv4();
    let mut upper = if is_v4 {
        vec![3, 3, 0, 0]
    } else {
        vec![1, 4, 0, 0]
    };
    upper.extend([0; 4]);
    upper.extend(quoted);
    ip(
        source,
        destination,
        if is_v4 { ICMP } else { ICMPV6 },
        &upper,
    )
}

pub(crate) fn with_ecn(mut packet: Vec<u8>, ecn: u8) -> Vec<u8> {
    packet[1] |= ecn;
    packet[10..12].copy_from_slice(&[0, 0]);
    let checksum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum);
    packet
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
