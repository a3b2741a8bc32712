//! The packet that an ICMP error quotes: as much of it as names a flow.

use std::net::IpAddr;

use model::rule::ip_protocol::{ICMP, ICMPV6, TCP, UDP};

use super::ip::{Extent, IpHeader};
use super::upper::{kind_v4, kind_v6};
use super::{Fragment, Headers, TcpFlags, Upper};

/// Bytes of an ICMP error before the quoted packet (RFC 792, RFC 4443 3).
const ERROR_HEADER_LEN: usize = 8;

/// The start of a packet that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ip_protocol: u8,
    /// TCP flags are not quoted by everyone; they are given as none.
    pub(crate) upper: Upper,
}

impl Quoted {
    /// Reads the packet that an ICMP error quotes; `None` when it names no flow.
    pub(crate) fn parse(error: &Headers, packet: &[u8]) -> Option<Self> {
        let quote = packet.get(error.upper_start + ERROR_HEADER_LEN..error.length)?;
        let ip = IpHeader::parse(quote, Extent::Quoted).ok()?;
        if matches!(ip.fragment, Fragment::Later { .. }) {
            return None;
        }
        Some(Self {
            source: ip.source,
            destination: ip.destination,
            ip_protocol: ip.ip_protocol,
            upper: quoted_upper(&ip, quote.get(ip.upper_start..ip.end)?)?,
        })
    }
}

/// Eight bytes are all that must be quoted (RFC 792).
fn quoted_upper(ip: &IpHeader, upper: &[u8]) -> Option<Upper> {
    let start = upper.first_chunk::<8>()?;
    let source_port = u16::from_be_bytes([start[0], start[1]]);
    let destination_port = u16::from_be_bytes([start[2], start[3]]);
    let identifier = u16::from_be_bytes([start[4], start[5]]);
    let upper = match ip.ip_protocol {
        TCP => Upper::Tcp {
            source_port,
            destination_port,
            flags: TcpFlags::from_byte(0),
        },
        UDP => Upper::Udp {
            source_port,
            destination_port,
        },
        ICMP if ip.source.is_ipv4() => kind_v4(start[0], identifier),
        ICMPV6 if ip.source.is_ipv6() => kind_v6(start[0], identifier),
        ICMP | ICMPV6 => return None,
        _ => Upper::Opaque,
    };
    // An error about an error is never sent (RFC 1122 3.2.2, RFC 4443 2.4 e).
    let is_error = matches!(upper, Upper::IcmpError | Upper::IcmpForbidden);
    (!is_error).then_some(upper)
}
