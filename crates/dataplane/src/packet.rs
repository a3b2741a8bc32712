//! What the headers of an overlay packet say: addresses, fragment, upper protocol and ports.
//!
//! Reads only; a packet that contradicts itself becomes a [`DropReason`]. Checksums are left to
//! the receiving kernel, which verifies them anyway.

use std::net::IpAddr;

use crate::drops::DropReason;

mod ip;
mod quoted;
mod upper;

pub(crate) use quoted::Quoted;

use ip::{Extent, IpHeader};

/// The headers of one packet, read and found consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Who sent it, as it says.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// IANA number of what follows the IP headers; ICMPv6 stays 58.
    pub ip_protocol: u8,
    /// Whether it is a piece of a larger packet.
    pub fragment: Fragment,
    /// What follows the IP headers.
    pub upper: Upper,
    /// The two ECN bits.
    pub ecn: u8,
    /// Whether the sender wants to be told rather than have it cut; always so in IPv6.
    pub dont_fragment: bool,
    /// Where the upper header starts.
    pub upper_start: usize,
    /// Bytes of the packet; what lies behind is padding.
    pub length: usize,
}

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// The first piece, which carries the ports.
    First {
        /// What the pieces have in common.
        id: u32,
    },
    /// A later piece, without ports.
    Later {
        /// What the pieces have in common.
        id: u32,
        /// Where it lies in the whole, in units of eight bytes.
        offset: u16,
    },
}

/// What follows the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// A TCP segment.
    Tcp {
        /// The sender's port.
        source_port: u16,
        /// The receiver's port.
        destination_port: u16,
        /// What it does to the connection.
        flags: TcpFlags,
    },
    /// A UDP datagram.
    Udp {
        /// The sender's port.
        source_port: u16,
        /// The receiver's port.
        destination_port: u16,
    },
    /// A ping.
    EchoRequest {
        /// Tells one pinging process from another.
        identifier: u16,
    },
    /// The answer to a ping.
    EchoReply {
        /// As in the request.
        identifier: u16,
    },
    /// Says that a packet, quoted in it, went wrong.
    IcmpError,
    /// Redirects, router and neighbour discovery: they have no place in a network without links.
    IcmpForbidden,
    /// Other ICMP.
    Icmp {
        /// ICMP or ICMPv6 type.
        kind: u8,
    },
    /// Another protocol, or a later fragment.
    Opaque,
}

/// The flags of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(u8);

impl TcpFlags {
    const FIN: u8 = 0x01; // RFC 9293 3.1
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// Wraps the flag byte of a header.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// Returns whether the segment asks for a new connection.
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Returns whether the segment belongs to a connection's first three.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Returns whether the segment acknowledges something.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Returns whether the segment kills the connection.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Returns whether the segment is the last of its side.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// No sender makes these; they only test how a receiver parses.
    const fn contradictory(self) -> bool {
        self.syn() && (self.fin() || self.rst())
    }
}

/// Returns where a packet goes, as far as its first bytes say.
#[inline]
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..20)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..40)?.first_chunk::<16>()?)),
        _ => None,
    }
}

impl Headers {
    /// Reads the headers of a packet. Bytes behind its end are ignored, for WireGuard pads.
    ///
    /// # Errors
    /// Says how the packet contradicts itself.
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let ip = IpHeader::parse(packet, Extent::Whole)?;
        let upper = upper::parse(&ip, &packet[ip.upper_start..ip.end])?;
        Ok(Self {
            source: ip.source,
            destination: ip.destination,
            ip_protocol: ip.ip_protocol,
            fragment: ip.fragment,
            upper,
            ecn: ip.ecn,
            dont_fragment: ip.dont_fragment,
            upper_start: ip.upper_start,
            length: ip.end,
        })
    }

    /// Returns the ports of sender and receiver, 0 where the protocol has none.
    pub const fn ports(&self) -> (u16, u16) {
        match self.upper {
            Upper::Tcp {
                source_port,
                destination_port,
                ..
            }
            | Upper::Udp {
                source_port,
                destination_port,
            } => (source_port, destination_port),
            _ => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests;
