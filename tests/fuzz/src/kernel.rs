//! What a kernel does at the other side of a TUN device with offloads: completes checksums, and cuts
//! super-packets. Written from virtio 1.3, 5.1.6, so that nothing here agrees with `dataplane` by
//! being the same code.

use std::net::IpAddr;

use dataplane::VirtioHeader;
use dataplane::packet::{Headers, Upper};

use crate::packets::{TCP, UDP, checksum, length};

pub(crate) const NEEDS_CHECKSUM: u8 = 1;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP: u8 = 5;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A whole TCP or UDP packet, and where its parts are.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) upper_start: usize,
    pub(crate) payload_start: usize,
    is_tcp: bool,
    source: IpAddr,
    destination: IpAddr,
}

impl Parts {
    /// Reads a packet; `None`: it is no whole TCP or UDP packet without padding.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let headers = Headers::parse(packet).ok()?;
        let is_tcp = matches!(headers.upper, Upper::Tcp { .. });
        let is_udp = matches!(headers.upper, Upper::Udp { .. });
        if headers.length != packet.len() || !(is_tcp || is_udp) {
            return None;
        }
        let upper_start = headers.upper_start;
        let upper_len = match is_tcp {
            true => usize::from(packet[upper_start + 12] >> 4) * 4,
            false => 8,
        };
        Some(Self {
            upper_start,
            payload_start: upper_start + upper_len,
            is_tcp,
            source: headers.source,
            destination: headers.destination,
        })
    }

    fn checksum_at(&self) -> usize {
        self.upper_start + if self.is_tcp { 16 } else { 6 }
    }

    fn pseudo_header(&self, upper_bytes: usize) -> Vec<u8> {
        let octets = |address| match address {
            IpAddr::V4(it) => it.octets().to_vec(),
            IpAddr::V6(it) => it.octets().to_vec(),
        };
        let ip_protocol = if self.is_tcp { TCP } else { UDP };
        let mut header = octets(self.source);
        header.extend(octets(self.destination));
        header.extend(u32::try_from(upper_bytes).expect("short").to_be_bytes());
        header.extend([0, 0, 0, ip_protocol]);
        header
    }

    /// Returns whether the checksums of a packet are right.
    pub(crate) fn is_whole(&self, packet: &[u8]) -> bool {
        let upper = &packet[self.upper_start..];
        let covered = [&self.pseudo_header(upper.len())[..], upper].concat();
        let ip_header = &packet[..usize::from(packet[0] & 0xf) * 4];
        let is_ip_whole = packet[0] >> 4 == 6 || checksum(ip_header) == [0, 0];
        is_ip_whole && checksum(&covered) == [0, 0]
    }

    /// Leaves the checksum to whoever sends the packet on: only the pseudo header is in its field.
    pub(crate) fn leave_checksum(&self, packet: &mut [u8]) {
        let at = self.checksum_at();
        let begun = checksum(&self.pseudo_header(packet.len() - self.upper_start));
        packet[at..at + 2].copy_from_slice(&begun.map(|byte| !byte));
    }

    /// Puts lengths and checksums right, as whoever sends a packet does.
    pub(crate) fn mend(&self, packet: &mut [u8]) {
        let upper_bytes = packet.len() - self.upper_start;
        if packet[0] >> 4 == 4 {
            let ip_header_bytes = usize::from(packet[0] & 0xf) * 4;
            let total = length(packet.len());
            packet[2..4].copy_from_slice(&total);
            packet[10..12].fill(0);
            let sum = checksum(&packet[..ip_header_bytes]);
            packet[10..12].copy_from_slice(&sum);
        } else {
            let payload = length(packet.len() - 40);
            packet[4..6].copy_from_slice(&payload);
        }
        if !self.is_tcp {
            let at = self.upper_start + 4;
            packet[at..at + 2].copy_from_slice(&length(upper_bytes));
        }
        let at = self.checksum_at();
        packet[at..at + 2].fill(0);
        let covered = [
            &self.pseudo_header(upper_bytes)[..],
            &packet[self.upper_start..],
        ]
        .concat();
        let sum = match checksum(&covered) {
            // RFC 768: all zero says that there is none.
            [0, 0] if !self.is_tcp => [0xff, 0xff],
            sum => sum,
        };
        packet[at..at + 2].copy_from_slice(&sum);
    }
}

/// Takes what a host gives its kernel, and returns the packets that it stands for.
///
/// # Panics
/// When the header lies about the packet.
pub(crate) fn cut(header: VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.gso_type == 0 {
        assert_eq!(header, VirtioHeader::default(), "a plain packet is whole");
        return vec![packet.to_vec()];
    }
    let parts = Parts::of(packet).expect("only TCP and UDP are joined");
    check_header(header, packet, &parts);
    let payload = &packet[parts.payload_start..];
    let size = usize::from(header.gso_size);
    let count = payload.len().div_ceil(size);
    assert!(count > 1, "one packet is given as it is");
    let chunks = payload.chunks(size).enumerate();
    chunks
        .map(|(number, chunk)| {
            let headers = &packet[..parts.payload_start];
            let mut segment = [headers, chunk].concat();
            if segment[0] >> 4 == 4 {
                let id = u16::from_be_bytes([packet[4], packet[5]]);
                let id = id.wrapping_add(u16::try_from(number).expect("few"));
                segment[4..6].copy_from_slice(&id.to_be_bytes());
            }
            if parts.is_tcp {
                let is_last = number + 1 == count;
                number_tcp(&mut segment[parts.upper_start..], number * size, is_last);
            }
            parts.mend(&mut segment);
            segment
        })
        .collect()
}

fn number_tcp(upper: &mut [u8], offset: usize, is_last: bool) {
    let first = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
    let sequence = first.wrapping_add(u32::try_from(offset).expect("short"));
    upper[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !is_last {
        upper[13] &= !(FIN | PSH);
    }
    if offset > 0 {
        upper[13] &= !CWR;
    }
}

fn check_header(header: VirtioHeader, packet: &[u8], parts: &Parts) {
    let gso_type = match (parts.is_tcp, parts.source.is_ipv4()) {
        (true, true) => GSO_TCPV4,
        (true, false) => GSO_TCPV6,
        (false, _) => GSO_UDP,
    };
    assert_eq!(header.gso_type, gso_type);
    assert_eq!(header.flags, NEEDS_CHECKSUM);
    assert_eq!(usize::from(header.header_len), parts.payload_start);
    assert_eq!(usize::from(header.csum_start), parts.upper_start);
    let at = parts.checksum_at();
    assert_eq!(usize::from(header.csum_offset), at - parts.upper_start);
    let begun = checksum(&parts.pseudo_header(packet.len() - parts.upper_start));
    let begun = begun.map(|byte| !byte);
    assert_eq!(packet[at..at + 2], begun, "the sum of the pseudo header");
}
