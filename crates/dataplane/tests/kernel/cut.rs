//! The way in: what a device gives, cut into the packets that a socket sees.

use dataplane::VirtioHeader;

use super::{CWR, FIN, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, NEEDS_CHECKSUM, PSH, TCP, UDP, sum};

/// What a packet belongs to, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A flow of TCP or UDP: IP version, protocol and ports.
    Flow(u8, u8, [u8; 4]),
    /// A later fragment: IP version and protocol.
    Piece(u8, u8),
    /// Anything else.
    Other,
}

/// Walks over the headers.
pub(crate) fn kind(packet: &[u8]) -> Kind {
    const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];
    let version = packet[0] >> 4;
    let (mut at, mut ip_protocol, mut is_later) = match version {
        4 => {
            let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
            (usize::from(packet[0] & 15) * 4, packet[9], offset > 0)
        }
        _ => (40, packet[6], false),
    };
    while version == 6 && EXTENSIONS.contains(&ip_protocol) && !is_later {
        is_later = ip_protocol == 44 && (packet[at + 2] > 0 || packet[at + 3] & 0xf8 > 0);
        let length = match ip_protocol {
            44 => 8,
            _ => 8 + usize::from(packet[at + 1]) * 8,
        };
        ip_protocol = packet[at];
        at += length;
    }
    match ip_protocol {
        TCP | UDP if is_later => Kind::Piece(version, ip_protocol),
        TCP | UDP => {
            let ports = packet[at..at + 4].try_into().expect("four bytes");
            Kind::Flow(version, ip_protocol, ports)
        }
        _ => Kind::Other,
    }
}

/// Takes what a device gives, and returns the packets that it stands for.
///
/// # Panics
/// When Linux would refuse the header (`virtio_net_hdr_to_skb`), or it says what the packet is not.
pub(crate) fn cut(header: VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.gso_type == 0 {
        assert_eq!(header, VirtioHeader::default(), "a plain packet is whole");
        return vec![packet.to_vec()];
    }
    let is_tcp = check(header, packet);
    let (start, size) = (usize::from(header.csum_start), usize::from(header.gso_size));
    let headers_len = start
        + match is_tcp {
            true => usize::from(packet[start + 12] >> 4) * 4,
            false => 8,
        };
    assert_eq!(usize::from(header.header_len), headers_len);
    let (headers, payload) = packet.split_at(headers_len);
    // Linux takes it for one packet otherwise, whose checksum is left.
    assert!(payload.len() > size, "one packet is given as it is");
    // `UDP_MAX_SEGMENTS` before Linux 6.9.
    assert!(is_tcp || payload.len() <= size * 64);
    let count = payload.len().div_ceil(size);
    let one = |(number, part): (usize, &[u8])| {
        let mut segment = [headers, part].concat();
        number_ip(&mut segment, number, start);
        let is_last = number + 1 == count;
        if is_tcp {
            number_tcp(&mut segment[start..], number * size, is_last);
        }
        finish(&mut segment, start, is_tcp);
        segment
    };
    payload.chunks(size).enumerate().map(one).collect()
}

fn check(header: VirtioHeader, packet: &[u8]) -> bool {
    let (is_v4, ip_protocol, offset) = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => (true, TCP, 16),
        GSO_TCPV6 => (false, TCP, 16),
        GSO_UDP => (packet[0] >> 4 == 4, UDP, 6),
        other => panic!("of type {other}"),
    };
    assert_eq!(packet[0] >> 4, if is_v4 { 4 } else { 6 });
    assert_eq!(packet[if is_v4 { 9 } else { 6 }], ip_protocol);
    assert_eq!(header.flags, NEEDS_CHECKSUM);
    assert_eq!(header.csum_offset, offset);
    let start = usize::from(header.csum_start);
    let said = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match is_v4 {
        true => {
            assert_eq!(said(2), packet.len());
            assert_eq!(sum(&packet[..start], 0), 0xffff);
        }
        false => assert_eq!(said(4) + 40, packet.len()),
    }
    if ip_protocol == UDP {
        assert_eq!(said(start + 4), packet.len() - start);
    }
    let begun = pseudo_header(packet, ip_protocol, packet.len() - start);
    assert_eq!(said(start + usize::from(offset)), usize::from(begun));
    ip_protocol == TCP
}

fn pseudo_header(packet: &[u8], ip_protocol: u8, upper_len: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let rest = [0, 0, 0, ip_protocol];
    let length = (upper_len as u32).to_be_bytes();
    sum(&packet[addresses], sum(&rest, sum(&length, 0)))
}

fn number_ip(segment: &mut [u8], number: usize, upper_start: usize) {
    let total = segment.len();
    if segment[0] >> 4 == 6 {
        segment[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        return;
    }
    let id = u16::from_be_bytes([segment[4], segment[5]]).wrapping_add(number as u16);
    segment[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    segment[4..6].copy_from_slice(&id.to_be_bytes());
    segment[10..12].fill(0);
    let checksum = !sum(&segment[..upper_start], 0);
    segment[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn number_tcp(upper: &mut [u8], offset: usize, is_last: bool) {
    let sequence = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
    upper[4..8].copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
    if !is_last {
        upper[13] &= !(FIN | PSH);
    }
    if offset > 0 {
        upper[13] &= !CWR;
    }
}

fn finish(segment: &mut [u8], start: usize, is_tcp: bool) {
    let upper_len = segment.len() - start;
    let (ip_protocol, field) = if is_tcp {
        (TCP, start + 16)
    } else {
        segment[start + 4..start + 6].copy_from_slice(&(upper_len as u16).to_be_bytes());
        (UDP, start + 6)
    };
    segment[field..field + 2].fill(0);
    let begun = pseudo_header(segment, ip_protocol, upper_len);
    let checksum = match !sum(&segment[start..], begun) {
        0 if !is_tcp => 0xffff,
        checksum => checksum,
    };
    segment[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}
