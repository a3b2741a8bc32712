//! What a packet must be like to be joined with others, and which packet continues another.

use model::rule::ip_protocol::{ICMPV6, TCP, UDP};

use super::Joins;
use crate::checksum::Sum;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const TCP_HEADER_LEN: usize = 20;

const ACK: u8 = 0x10; // RFC 9293 3.1
pub(super) const PSH: u8 = 0x08;

/// The longest headers of a shape: IPv6 without extensions, TCP with all its options.
const HEAD_MAX: usize = IPV6_HEADER_LEN + 60;

/// The headers of a packet that may be joined, as they came: what lies behind them need not be looked
/// at again.
pub(super) struct Head {
    pub(super) shape: Shape,
    bytes: [u8; HEAD_MAX],
}

/// A TCP segment or UDP datagram without IP options or fragments.
pub(super) struct Shape {
    pub(super) is_v4: bool,
    pub(super) is_tcp: bool,
    pub(super) is_pushed: bool,
    /// Others may be joined to it.
    pub(super) may_begin: bool,
    /// It may be joined to another.
    pub(super) may_follow: bool,
    pub(super) upper_start: usize,
    pub(super) headers_len: usize,
}

impl Shape {
    /// Reads a packet; `None` when it is to be left alone and belongs to no flow that is joined.
    pub(super) fn of(packet: &[u8], joins: Joins) -> Option<Self> {
        let (is_v4, upper_start, ip_protocol) = match packet.first()? {
            // No options, no fragment.
            0x45 if packet.len() >= IPV4_HEADER_LEN && is_whole(packet) => {
                (true, IPV4_HEADER_LEN, packet[9])
            }
            byte if byte >> 4 == 6 && packet.len() >= IPV6_HEADER_LEN => {
                (false, IPV6_HEADER_LEN, packet[6])
            }
            _ => return None,
        };
        let upper = &packet[upper_start..];
        match ip_protocol {
            TCP if joins.tcp && upper.len() >= TCP_HEADER_LEN => {
                let headers_len = upper_start + usize::from(upper[12] >> 4) * 4;
                let is_data = upper[13] & !PSH == ACK && packet.len() > headers_len;
                let is_pushed = upper[13] & PSH != 0;
                let has_header = upper_start + TCP_HEADER_LEN <= headers_len;
                (has_header && headers_len <= packet.len()).then_some(Self {
                    is_v4,
                    is_tcp: true,
                    is_pushed,
                    may_begin: is_data && !is_pushed,
                    may_follow: is_data,
                    upper_start,
                    headers_len,
                })
            }
            UDP if joins.udp && upper.len() >= UDP_HEADER_LEN => {
                let has_checksum = upper[6..8] != [0, 0];
                let is_whole = usize::from(u16::from_be_bytes([upper[4], upper[5]])) == upper.len();
                let may_join = has_checksum && is_whole && upper.len() > UDP_HEADER_LEN;
                Some(Self {
                    is_v4,
                    is_tcp: false,
                    is_pushed: false,
                    may_begin: may_join,
                    may_follow: may_join,
                    upper_start,
                    headers_len: upper_start + UDP_HEADER_LEN,
                })
            }
            _ => None,
        }
    }

    /// Returns whether the packet's checksums are right: its receiver will not look any more.
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        let (ip, upper) = packet.split_at(self.upper_start);
        let addresses = if self.is_v4 { &ip[12..20] } else { &ip[8..40] };
        let ip_protocol = if self.is_tcp { TCP } else { UDP };
        let sum = Sum::default()
            .add(addresses)
            .add_upper(ip_protocol, upper.len())
            .add(upper);
        sum.finish() == [0, 0] && (!self.is_v4 || Sum::default().add(ip).finish() == [0, 0])
    }
}

impl Head {
    #[inline]
    pub(super) fn new(shape: Shape, packet: &[u8]) -> Self {
        let mut bytes = [0; HEAD_MAX];
        bytes[..shape.headers_len].copy_from_slice(&packet[..shape.headers_len]);
        Self { shape, bytes }
    }

    fn ip(&self) -> &[u8] {
        &self.bytes[..self.shape.upper_start]
    }

    fn upper(&self) -> &[u8] {
        &self.bytes[self.shape.upper_start..self.shape.headers_len]
    }

    /// Returns whether another has the same addresses and ports.
    #[inline]
    pub(super) fn is_same_flow(&self, other: &Self) -> bool {
        let (shape, others) = (&self.shape, &other.shape);
        let addresses = if shape.is_v4 { 12..20 } else { 8..40 };
        shape.is_v4 == others.is_v4
            && shape.is_tcp == others.is_tcp
            && self.upper()[..4] == other.upper()[..4]
            && self.bytes[addresses.clone()] == other.bytes[addresses]
    }

    /// Returns whether `next`, of the same flow and a shape that may follow, is what the kernel
    /// would make of the payload behind `payload_bytes` of this packet's, as number `count`.
    pub(super) fn is_followed_by(&self, next: &Self, payload_bytes: usize, count: u16) -> bool {
        self.has_same_ip(next.ip(), count)
            && (!self.shape.is_tcp || self.has_same_tcp(next.upper(), payload_bytes))
    }

    fn has_same_ip(&self, next: &[u8], count: u16) -> bool {
        let ip = self.ip();
        if !self.shape.is_v4 {
            // Version, class and flow label; hop limit.
            return ip[..4] == next[..4] && ip[7] == next[7];
        }
        let is_unfragmentable = ip[6] & 0x40 != 0;
        let id = |ip: &[u8]| u16::from_be_bytes([ip[4], ip[5]]);
        ip[1] == next[1]
            && ip[6..9] == next[6..9]
            // Without fragments nobody reads the identification (RFC 6864 4.1).
            && (is_unfragmentable || id(next) == id(ip).wrapping_add(count))
    }

    fn has_same_tcp(&self, next: &[u8], payload_bytes: usize) -> bool {
        let upper = self.upper();
        let sequence = |upper: &[u8]| u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
        sequence(next) == sequence(upper).wrapping_add(payload_bytes as u32)
            // Acknowledgement, length of the header; window; urgent pointer and options.
            && upper[8..13] == next[8..13]
            && upper[14..16] == next[14..16]
            && upper[18..] == next[18..]
    }
}

/// Returns whether a packet may belong to a flow of TCP or UDP without showing to which: a fragment,
/// and what lies behind options or extension headers. A ping belongs to none.
pub(super) fn hides_its_flow(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER_LEN => {
            let is_plain = packet[0] == 0x45 && is_whole(packet);
            matches!(packet[9], TCP | UDP) && !is_plain
        }
        Some(6) if packet.len() >= IPV6_HEADER_LEN => !matches!(packet[6], TCP | UDP | ICMPV6),
        _ => true,
    }
}

fn is_whole(packet: &[u8]) -> bool {
    packet[6] & 0x3f == 0 && packet[7] == 0
}
