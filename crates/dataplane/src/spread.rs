//! Which lane a packet belongs in: a hash of what both directions of its flow have in common, with
//! no secret in it, so that both ends put a flow into the same lane without a word about it.
//!
//! The addresses are no part of it: between two hosts there is one of each per family.

use model::map::PeerIndex;
use model::rule::Direction;
use model::rule::ip_protocol::{TCP, UDP};

use crate::flows::FlowKey;
use crate::fragments::FragmentKey;
use crate::packet::{Fragment, Headers, Quoted, Upper};

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
/// More fragments, and where this one lies: everything but "do not fragment" (RFC 791 3.1).
const FRAGMENT_BITS: u16 = 0xbfff;

/// What says where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// It is of the flow with this hash.
    Flow(u32),
    /// So is this one, and later fragments go where it goes.
    FirstFragment(u32, FragmentKey),
    /// It goes where its first fragment went.
    LaterFragment(FragmentKey),
}

impl Spread {
    /// Looks at a packet; `None` when it contradicts itself.
    #[inline]
    pub(crate) fn of(packet: &[u8], direction: Direction, peer: PeerIndex) -> Option<Self> {
        if let Some(hash) = hash_of_plain(packet) {
            return Some(Self::Flow(hash));
        }
        let headers = Headers::parse(packet).ok()?;
        let key = |id| FragmentKey::new(&headers, id, direction, peer);
        Some(match headers.fragment {
            Fragment::Whole => Self::Flow(hash_of_whole(&headers, packet, peer)),
            Fragment::First { id } => {
                Self::FirstFragment(hash_of_whole(&headers, packet, peer), key(id))
            }
            Fragment::Later { id, .. } => Self::LaterFragment(key(id)),
        })
    }
}

/// Returns the hash of a flow, the same at both ends.
pub(crate) fn hash_of(key: &FlowKey) -> u32 {
    let ports = [key.local_port, key.remote_port];
    hash_of_parts(ports, key.ip_protocol, key.is_ipv6)
}

/// Returns the lane, of `count`, that a flow with this hash belongs in.
pub(crate) const fn lane_of(hash: u32, count: u16) -> u16 {
    (hash % count as u32) as u16
}

/// An ICMP error is of the flow that it is about.
fn hash_of_whole(headers: &Headers, packet: &[u8], peer: PeerIndex) -> u32 {
    let (upper, ip_protocol) = match headers.upper {
        Upper::IcmpError => Quoted::parse(headers, packet)
            .map_or((headers.upper, headers.ip_protocol), |quoted| {
                (quoted.upper, quoted.ip_protocol)
            }),
        upper => (upper, headers.ip_protocol),
    };
    let is_ipv6 = headers.source.is_ipv6();
    hash_of(&FlowKey::new(
        upper,
        ip_protocol,
        is_ipv6,
        Direction::Outbound,
        peer,
    ))
}

/// What nearly all packets are: TCP or UDP, whole, without options in the way.
#[inline]
fn hash_of_plain(packet: &[u8]) -> Option<u32> {
    let (ip_protocol, ports_at, is_ipv6) = match packet.first()? {
        0x45 => {
            let header = packet.first_chunk::<IPV4_HEADER_LEN>()?;
            if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_BITS != 0 {
                return None;
            }
            (header[9], IPV4_HEADER_LEN, false)
        }
        byte if byte >> 4 == 6 => (*packet.get(6)?, IPV6_HEADER_LEN, true),
        _ => return None,
    };
    let [a, b, c, d] = *packet.get(ports_at..)?.first_chunk::<4>()?;
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    matches!(ip_protocol, TCP | UDP).then(|| hash_of_parts(ports, ip_protocol, is_ipv6))
}

/// The order of the ports does not matter. The last steps are those of MurmurHash3, after which all
/// bits of the result depend on all of what was put in.
#[inline]
fn hash_of_parts([one, other]: [u16; 2], ip_protocol: u8, is_ipv6: bool) -> u32 {
    let (low, high) = (one.min(other), one.max(other));
    let mut hash = u32::from(high) << 16 | u32::from(low);
    hash ^= u32::from(ip_protocol).wrapping_mul(0x9e37_79b9);
    hash ^= u32::from(is_ipv6) << 31;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests;
