//! Packets as a kernel gives them.

use std::net::Ipv4Addr;

use dataplane::VirtioHeader;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
/// Of a segment in these packets.
const HEADERS_LEN: usize = 20 + 32;

/// A TCP segment of so many bytes, headers included, at least 64, with right checksums.
pub(crate) fn segment(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    flags: u8,
    sequence: u32,
    bytes: usize,
) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    packet[2..4].copy_from_slice(&(bytes as u16).to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = !sum(&packet, 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1, 8 << 4, flags, 1, 0, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.resize(bytes, 7);
    let checksum = !sum(&packet[20..], pseudo_header(&packet));
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// A super-packet of so many segments of 1420 bytes each, headers included.
pub(crate) fn super_packet(
    addresses: (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    segments: usize,
) -> (VirtioHeader, Vec<u8>) {
    let size = 1420 - HEADERS_LEN;
    let mut packet = segment(addresses, ports, ACK, 1, HEADERS_LEN + segments * size);
    let begun = pseudo_header(&packet);
    packet[36..38].copy_from_slice(&begun.to_be_bytes());
    let header = VirtioHeader {
        flags: 1,
        gso_type: 1,
        header_len: HEADERS_LEN as u16,
        gso_size: size as u16,
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet)
}

fn pseudo_header(packet: &[u8]) -> u16 {
    let upper_len = ((packet.len() - 20) as u16).to_be_bytes();
    sum(&packet[12..20], sum(&upper_len, 6))
}

/// RFC 1071, not inverted.
fn sum(bytes: &[u8], begun: u16) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum = u32::from(begun) + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
