//! What makes two packets one flow.

use model::map::PeerIndex;
use model::rule::Direction;
use std::hash::{Hash, Hasher};

use crate::packet::{Headers, Upper};

/// Names a flow. The addresses are those of the peer and of this host, one of each per family, so
/// that peer and family stand for both. Peer or host getting another address ends the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    pub(crate) peer: u32,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) ip_protocol: u8,
    pub(crate) is_ipv6: bool,
}

/// Written in one piece: half the cost of the derived implementation.
impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.local_port) << 16 | u64::from(self.remote_port);
        state.write_u64(u64::from(self.peer) << 32 | ports);
        state.write_u16(u16::from(self.ip_protocol) << 8 | u16::from(self.is_ipv6));
    }
}

/// Stands where there is no port, apart from every echo identifier's place.
const NOT_ECHO: u16 = u16::MAX;
/// The asking and the other side of an echo whose identifier is 0, which would be one for both. No
/// other echo has `NOT_ECHO` beside what is not 0, and no type of ICMP is above 255.
const ECHO_ZERO: (u16, u16) = (0x100, NOT_ECHO);

impl FlowKey {
    /// Returns the flow that a packet belongs to.
    #[inline]
    pub(crate) fn of(headers: &Headers, direction: Direction, peer: PeerIndex) -> Self {
        let is_ipv6 = headers.source.is_ipv6();
        Self::new(headers.upper, headers.ip_protocol, is_ipv6, direction, peer)
    }

    /// Returns the flow of a packet with this upper header that goes in `direction`.
    ///
    /// An echo belongs to who asks: the identifier stands on the asking side, so that requests of
    /// the two hosts with one identifier are two flows.
    #[inline]
    pub(crate) fn new(
        upper: Upper,
        ip_protocol: u8,
        is_ipv6: bool,
        direction: Direction,
        peer: PeerIndex,
    ) -> Self {
        let (source, destination) = match upper {
            Upper::Tcp {
                source_port,
                destination_port,
                ..
            }
            | Upper::Udp {
                source_port,
                destination_port,
            } => (source_port, destination_port),
            Upper::EchoRequest { identifier: 0 } => ECHO_ZERO,
            Upper::EchoReply { identifier: 0 } => (ECHO_ZERO.1, ECHO_ZERO.0),
            Upper::EchoRequest { identifier } => (identifier, 0),
            Upper::EchoReply { identifier } => (0, identifier),
            Upper::Icmp { kind } => (u16::from(kind), NOT_ECHO),
            Upper::IcmpError | Upper::IcmpForbidden | Upper::Opaque => (0, 0),
        };
        let (local_port, remote_port) = match direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        Self {
            peer: peer.0,
            local_port,
            remote_port,
            ip_protocol,
            is_ipv6,
        }
    }

    /// Returns the port that the rules ask about when the flow was opened in `direction`.
    pub(crate) const fn service_port(&self, direction: Direction) -> u16 {
        match direction {
            Direction::Outbound => self.remote_port,
            Direction::Inbound => self.local_port,
        }
    }

    /// Guesses who opened a connection that is seen in the middle: clients have the higher port.
    pub(crate) const fn likely_opened(&self) -> Direction {
        if self.local_port > self.remote_port {
            Direction::Outbound
        } else {
            Direction::Inbound
        }
    }

    pub(crate) const fn peer(&self) -> PeerIndex {
        PeerIndex(self.peer)
    }
}
