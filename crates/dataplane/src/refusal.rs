//! What the local host is told when its packet goes nowhere, so that `connect` fails at once: a
//! TCP reset or an ICMP error that seems to come from the packet's destination.

use std::net::IpAddr;

use model::rule::ip_protocol::{ICMP, ICMPV6, TCP};

use crate::checksum::Sum;
use crate::packet::{Fragment, Headers, Upper};

/// Bytes of an ICMPv4 error (RFC 1812 4.3.2.3).
const ICMP_ERROR_MAX: usize = 576;
/// Bytes of an ICMPv6 error (RFC 4443 2.4 c).
const ICMPV6_ERROR_MAX: usize = 1280;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const TCP_HEADER_LEN: usize = 20;
const ICMP_HEADER_LEN: usize = 8;
const TTL: u8 = 64; // IANA's recommendation

/// Why the packet went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The policy says so.
    Prohibited,
    /// Nobody has the destination address, or its owner does not answer.
    Unreachable,
    /// It is larger than this.
    TooBig {
        /// What would pass.
        mtu: u16,
    },
}

impl Refusal {
    /// Returns whether the packet may be answered at all: errors and resets never are, nor what
    /// is not one host's (RFC 1122 3.2.2, RFC 4443 2.4 e).
    pub(crate) fn may_answer(self, headers: &Headers) -> bool {
        let quiet = match headers.upper {
            Upper::IcmpError | Upper::IcmpForbidden => true,
            Upper::Tcp { flags, .. } => flags.rst() && !matches!(self, Self::TooBig { .. }),
            _ => false,
        };
        !quiet && !matches!(headers.fragment, Fragment::Later { .. })
    }

    fn resets(self, headers: &Headers) -> bool {
        self == Self::Prohibited && headers.ip_protocol == TCP
    }

    /// Returns the bytes that the answer takes.
    pub(crate) fn length(self, headers: &Headers) -> usize {
        let ip_len = ip_header_len(headers);
        if self.resets(headers) {
            return ip_len + TCP_HEADER_LEN;
        }
        let max = match headers.source {
            IpAddr::V4(_) => ICMP_ERROR_MAX,
            IpAddr::V6(_) => ICMPV6_ERROR_MAX,
        };
        (ip_len + ICMP_HEADER_LEN + headers.length).min(max)
    }

    /// Writes the answer to `packet` into `out`, of [`Self::length`] bytes.
    pub(crate) fn write(self, headers: &Headers, packet: &[u8], out: &mut [u8]) {
        out.fill(0);
        let (ip, upper) = out.split_at_mut(ip_header_len(headers));
        let ip_protocol = match headers.source {
            _ if self.resets(headers) => TCP,
            IpAddr::V4(_) => ICMP,
            IpAddr::V6(_) => ICMPV6,
        };
        write_ip(ip, headers, ip_protocol, upper.len());
        if ip_protocol == TCP {
            write_reset(upper, headers, packet);
        } else {
            self.write_icmp(upper, headers, packet);
        }
    }

    fn write_icmp(self, upper: &mut [u8], headers: &Headers, packet: &[u8]) {
        let is_v4 = headers.source.is_ipv4();
        let (kind, code) = self.icmp_kind(is_v4);
        (upper[0], upper[1]) = (kind, code);
        if let Self::TooBig { mtu } = self {
            // RFC 1191 4: the last two of four unused bytes; RFC 4443 3.2: all four.
            upper[6..8].copy_from_slice(&mtu.to_be_bytes());
        }
        let quote_len = upper.len() - ICMP_HEADER_LEN;
        upper[ICMP_HEADER_LEN..].copy_from_slice(&packet[..quote_len]);
        let sum = if is_v4 {
            Sum::default()
        } else {
            pseudo_header(headers, ICMPV6, upper.len())
        };
        let checksum = sum.add(upper).finish();
        upper[2..4].copy_from_slice(&checksum);
    }

    fn icmp_kind(self, is_v4: bool) -> (u8, u8) {
        match (self, is_v4) {
            (Self::Prohibited, true) => (3, 13),    // RFC 1812 5.2.7.1
            (Self::Unreachable, true) => (3, 1),    // RFC 792
            (Self::TooBig { .. }, true) => (3, 4),  // RFC 1191 4
            (Self::Prohibited, false) => (1, 1),    // RFC 4443 3.1
            (Self::Unreachable, false) => (1, 3),   // RFC 4443 3.1
            (Self::TooBig { .. }, false) => (2, 0), // RFC 4443 3.2
        }
    }
}

fn ip_header_len(headers: &Headers) -> usize {
    match headers.source {
        IpAddr::V4(_) => IPV4_HEADER_LEN,
        IpAddr::V6(_) => IPV6_HEADER_LEN,
    }
}

/// From the packet's destination to its source.
fn write_ip(ip: &mut [u8], headers: &Headers, ip_protocol: u8, upper_len: usize) {
    match (headers.destination, headers.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(ip.len() + upper_len).expect("answers are short");
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[6] = 0x40; // don't fragment
            (ip[8], ip[9]) = (TTL, ip_protocol);
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            let checksum = Sum::default().add(ip).finish();
            ip[10..12].copy_from_slice(&checksum);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let upper_len = u16::try_from(upper_len).expect("answers are short");
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&upper_len.to_be_bytes());
            (ip[6], ip[7]) = (ip_protocol, TTL);
            ip[8..24].copy_from_slice(&from.octets());
            ip[24..40].copy_from_slice(&to.octets());
        }
        _ => unreachable!("both addresses of a packet are of one family"),
    }
}

/// RFC 9293 3.10.7.1.
fn write_reset(upper: &mut [u8], headers: &Headers, packet: &[u8]) {
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    let segment = &packet[headers.upper_start..headers.length];
    let flags = crate::packet::TcpFlags::from_byte(segment[13]);
    upper[0..2].copy_from_slice(&segment[2..4]);
    upper[2..4].copy_from_slice(&segment[0..2]);
    if flags.ack() {
        upper[4..8].copy_from_slice(&segment[8..12]);
        upper[13] = RST;
    } else {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        let data_len = segment.len() - usize::from(segment[12] >> 4) * 4;
        let consumed = data_len as u32 + u32::from(flags.syn()) + u32::from(flags.fin());
        upper[8..12].copy_from_slice(&sequence.wrapping_add(consumed).to_be_bytes());
        upper[13] = RST | ACK;
    }
    upper[12] = (TCP_HEADER_LEN as u8 / 4) << 4;
    let checksum = pseudo_header(headers, TCP, upper.len()).add(upper).finish();
    upper[16..18].copy_from_slice(&checksum);
}

fn pseudo_header(headers: &Headers, ip_protocol: u8, upper_len: usize) -> Sum {
    Sum::default().add_pseudo_header(headers.destination, headers.source, ip_protocol, upper_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(is_v4: bool, upper: &[u8], ip_protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; if is_v4 { 20 } else { 40 }];
        if is_v4 {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&((20 + upper.len()) as u16).to_be_bytes());
            packet[9] = ip_protocol;
            packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(upper.len() as u16).to_be_bytes());
            packet[6] = ip_protocol;
            (packet[8], packet[23], packet[24], packet[39]) = (0xfd, 1, 0xfd, 2);
        }
        packet.extend_from_slice(upper);
        packet
    }

    fn syn() -> [u8; 24] {
        let mut segment = [0; 24];
        segment[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        segment[4..8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        segment[12] = 6 << 4;
        segment[13] = 0x02;
        segment
    }

    fn answer(refusal: Refusal, packet: &[u8]) -> (Headers, Vec<u8>) {
        let headers = Headers::parse(packet).unwrap();
        let mut out = vec![0xaa; refusal.length(&headers)];
        refusal.write(&headers, packet, &mut out);
        let answer = Headers::parse(&out).unwrap();
        assert_eq!(answer.source, headers.destination);
        assert_eq!(answer.destination, headers.source);
        assert_eq!(answer.length, out.len());
        assert_checksums(&answer, &out);
        (answer, out)
    }

    fn assert_checksums(headers: &Headers, packet: &[u8]) {
        let upper = &packet[headers.upper_start..];
        let sum = match headers.ip_protocol {
            ICMP => Sum::default(),
            ip_protocol => Sum::default().add_pseudo_header(
                headers.source,
                headers.destination,
                ip_protocol,
                upper.len(),
            ),
        };
        assert_eq!(sum.add(upper).finish(), [0, 0]);
        if headers.source.is_ipv4() {
            assert_eq!(Sum::default().add(&packet[..20]).finish(), [0, 0]);
        }
    }

    #[test]
    fn a_prohibited_syn_is_reset_with_the_acknowledgement_that_it_expects() {
        for is_v4 in [true, false] {
            let (headers, reset) = answer(Refusal::Prohibited, &packet(is_v4, &syn(), TCP));
            assert_eq!(headers.ports(), (80, 0x1234));
            assert!(
                matches!(headers.upper, Upper::Tcp { flags, .. } if flags.rst() && flags.ack())
            );
            let upper = &reset[headers.upper_start..];
            assert_eq!(
                upper[4..12],
                [0, 0, 0, 0, 0, 0, 0, 0],
                "sequence 0, acknowledges syn + 1"
            );
        }
    }

    #[test]
    fn a_prohibited_segment_in_the_middle_is_reset_where_it_expects_the_next() {
        let mut segment = syn();
        segment[13] = 0x10;
        segment[8..12].copy_from_slice(&[1, 2, 3, 4]);
        let (headers, reset) = answer(Refusal::Prohibited, &packet(true, &segment, TCP));
        assert_eq!(reset[headers.upper_start + 4..][..4], [1, 2, 3, 4]);
        assert!(matches!(headers.upper, Upper::Tcp { flags, .. } if flags.rst() && !flags.ack()));
    }

    #[test]
    fn other_packets_are_answered_by_icmp_that_quotes_them() {
        let datagram = [&[0, 1, 0, 2, 0x07, 0xd8, 0, 0][..], &[7; 2000]].concat();
        for (is_v4, length, kind) in [(true, 576, [3, 13]), (false, 1280, [1, 1])] {
            let packet = packet(is_v4, &datagram, 17);
            let (headers, out) = answer(Refusal::Prohibited, &packet);
            assert_eq!(headers.upper, Upper::IcmpError);
            assert_eq!(out.len(), length);
            assert_eq!(out[headers.upper_start..][..2], kind);
            assert_eq!(
                out[headers.upper_start + 8..],
                packet[..length - headers.upper_start - 8]
            );
        }
    }

    #[test]
    fn too_big_says_what_would_pass() {
        let datagram = [&[0, 1, 0, 2, 0x07, 0xd8, 0, 0][..], &[7; 2000]].concat();
        for (is_v4, kind) in [(true, [3, 4]), (false, [2, 0])] {
            let packet = packet(is_v4, &datagram, 17);
            let (headers, out) = answer(Refusal::TooBig { mtu: 1420 }, &packet);
            assert_eq!(out[headers.upper_start..][..2], kind);
            assert_eq!(out[headers.upper_start + 4..][..4], 1420u32.to_be_bytes());
        }
    }

    #[test]
    fn errors_and_resets_are_never_answered() {
        let mut reset = syn();
        reset[13] = 0x04;
        let quiet =
            |packet: Vec<u8>| !Refusal::Prohibited.may_answer(&Headers::parse(&packet).unwrap());
        assert!(quiet(packet(true, &reset, TCP)));
        assert!(quiet(packet(true, &[3, 3, 0, 0, 0, 0, 0, 0], ICMP)));
        assert!(quiet(packet(false, &[1, 1, 0, 0, 0, 0, 0, 0], ICMPV6)));
        assert!(!quiet(packet(true, &syn(), TCP)));
    }
}
