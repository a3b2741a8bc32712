//! What mesh daemons tell each other, inside their tunnel, of who sends a flow of UDP: a claim that
//! goes ahead of the first packet, and what becomes of it.
//!
//! ```text
//! offset size
//!  0     1    0xf1: control, see `rejection`
//!  1     1    5: a claim; 6: it was heard; 7: it is missed, and packets are dropped for want of it
//!  2     1    4 or 6: the family of the flow
//!  3     1    bytes of the workload's name; 0 in an answer
//!  4     2    the UDP port that is sent from, at who makes the claim, big endian
//!  6     2    the UDP port that is sent to, big endian
//!  8          the workload's name
//! ```
//!
//! What lies behind is the tunnel's padding. The addresses are those of the two hosts.

use model::address::HostAddresses;
use model::map::PeerIndex;
use model::name::Name;
use model::rule::{Direction, ip_protocol};

use crate::flows::FlowKey;
use crate::rejection::{CONTROL, Rejection};

const CLAIM: u8 = 5;
const HEARD: u8 = 6;
const MISSED: u8 = 7;
const HEADER_LEN: usize = 8;
/// RFC 768.
const UDP_HEADER_LEN: u8 = 8;

/// A flow of UDP, named by who opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedFlow {
    is_ipv6: bool,
    from_port: u16,
    to_port: u16,
}

impl ClaimedFlow {
    /// Names a flow that was opened in a direction, seen from this host.
    pub(crate) const fn of(key: &FlowKey, opened: Direction) -> Self {
        let (from_port, to_port) = match opened {
            Direction::Outbound => (key.local_port, key.remote_port),
            Direction::Inbound => (key.remote_port, key.local_port),
        };
        Self {
            is_ipv6: key.is_ipv6,
            from_port,
            to_port,
        }
    }

    /// Returns the flow with a peer, opened in a direction seen from this host.
    pub(crate) const fn key(self, peer: PeerIndex, opened: Direction) -> FlowKey {
        let (local_port, remote_port) = match opened {
            Direction::Outbound => (self.from_port, self.to_port),
            Direction::Inbound => (self.to_port, self.from_port),
        };
        FlowKey {
            peer: peer.0,
            local_port,
            remote_port,
            ip_protocol: ip_protocol::UDP,
            is_ipv6: self.is_ipv6,
        }
    }

    /// Returns a packet of the flow, which leads to the shard that has it.
    pub(crate) fn packet(self, from: HostAddresses, to: HostAddresses) -> Vec<u8> {
        let [a, b] = self.from_port.to_be_bytes();
        let [c, d] = self.to_port.to_be_bytes();
        let quote = [a, b, c, d, 0, UDP_HEADER_LEN, 0, 0];
        let denied = Rejection {
            is_ipv6: self.is_ipv6,
            ip_protocol: ip_protocol::UDP,
            rule: None,
            quote: &quote,
        };
        denied.packet(from, to)
    }
}

/// One of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClaimMessage {
    /// This workload of the sender's host sends the flow.
    Claim(ClaimedFlow, Name),
    Heard(ClaimedFlow),
    Missed(ClaimedFlow),
}

impl ClaimMessage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, flow, name) = match self {
            Self::Claim(flow, name) => (CLAIM, flow, name.as_str()),
            Self::Heard(flow) => (HEARD, flow, ""),
            Self::Missed(flow) => (MISSED, flow, ""),
        };
        let family = if flow.is_ipv6 { 6 } else { 4 };
        let length = u8::try_from(name.len()).expect("names have at most 63 bytes");
        let mut bytes = vec![CONTROL, kind, family, length];
        bytes.extend(flow.from_port.to_be_bytes());
        bytes.extend(flow.to_port.to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }

    /// Reads what a peer sent; `None` when it is none of these.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let ([CONTROL, kind, family, length, a, b, c, d], rest) =
            bytes.split_first_chunk::<HEADER_LEN>()?
        else {
            return None;
        };
        let flow = ClaimedFlow {
            is_ipv6: match family {
                4 => false,
                6 => true,
                _ => return None,
            },
            from_port: u16::from_be_bytes([*a, *b]),
            to_port: u16::from_be_bytes([*c, *d]),
        };
        match *kind {
            CLAIM => {
                let name = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
                Some(Self::Claim(flow, name.parse().ok()?))
            }
            HEARD => Some(Self::Heard(flow)),
            MISSED => Some(Self::Missed(flow)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> ClaimedFlow {
        ClaimedFlow {
            is_ipv6: true,
            from_port: 40_000,
            to_port: 53,
        }
    }

    #[test]
    fn what_was_written_is_read_back_whatever_pads_it() {
        let claim = ClaimMessage::Claim(flow(), "web".parse().unwrap());
        for message in [
            claim,
            ClaimMessage::Heard(flow()),
            ClaimMessage::Missed(flow()),
        ] {
            let mut bytes = message.encode();
            assert_eq!(ClaimMessage::decode(&bytes), Some(message.clone()));
            bytes.resize(32, 0);
            assert_eq!(ClaimMessage::decode(&bytes), Some(message));
            assert_eq!(ClaimMessage::decode(&bytes[..7]), None);
        }
    }

    #[test]
    fn what_is_cut_or_no_name_is_not_read() {
        let sound = ClaimMessage::Claim(flow(), "web".parse().unwrap()).encode();
        assert_eq!(ClaimMessage::decode(&sound[..sound.len() - 1]), None);
        for (at, value) in [(0, 0x45), (1, 4), (1, 8), (2, 5), (3, 0), (8, b'/')] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            assert_eq!(ClaimMessage::decode(&bytes), None, "byte {at} is {value}");
        }
    }

    #[test]
    fn both_ends_name_one_flow_alike() {
        let peer = PeerIndex(3);
        let here = flow().key(peer, Direction::Outbound);
        assert_eq!((here.local_port, here.remote_port), (40_000, 53));
        assert_eq!(ClaimedFlow::of(&here, Direction::Outbound), flow());
        let there = flow().key(peer, Direction::Inbound);
        assert_eq!((there.local_port, there.remote_port), (53, 40_000));
        assert_eq!(ClaimedFlow::of(&there, Direction::Inbound), flow());
    }
}
