//! TCP, UDP, ICMP and ICMPv6 headers.

use std::net::IpAddr;

use model::rule::ip_protocol::{ICMP, ICMPV6, TCP, UDP};

use super::ip::IpHeader;
use super::{Fragment, TcpFlags, Upper};
use crate::drops::DropReason;

const TCP_HEADER_LEN: usize = 20; // RFC 9293 3.1
const UDP_HEADER_LEN: usize = 8; // RFC 768
const ICMP_HEADER_LEN: usize = 8; // RFC 792, RFC 4443 2.1

/// Reads what follows the IP headers; `upper` is the rest of the packet.
pub(super) fn parse(ip: &IpHeader, upper: &[u8]) -> Result<Upper, DropReason> {
    if let Fragment::Later { offset, .. } = ip.fragment {
        return check_later_fragment(ip.ip_protocol, offset);
    }
    // A header cut in two by fragmentation could say anything (RFC 1858, RFC 7112).
    let missing = match ip.fragment {
        Fragment::First { .. } => DropReason::UnsafeFragment,
        _ => DropReason::Truncated,
    };
    match (ip.ip_protocol, ip.source) {
        (TCP, _) => parse_tcp(upper, missing),
        (UDP, _) => parse_udp(upper, ip.fragment, missing),
        (ICMP, IpAddr::V4(_)) => parse_icmp(upper, missing, kind_v4),
        (ICMPV6, IpAddr::V6(_)) => parse_icmp(upper, missing, kind_v6),
        (ICMP | ICMPV6, _) => Err(DropReason::BadTransport),
        _ => Ok(Upper::Opaque),
    }
}

/// A TCP fragment at offset 1 would overwrite the flags that were judged (RFC 3128).
fn check_later_fragment(ip_protocol: u8, offset: u16) -> Result<Upper, DropReason> {
    if ip_protocol == TCP && offset == 1 {
        return Err(DropReason::UnsafeFragment);
    }
    Ok(Upper::Opaque)
}

fn parse_tcp(upper: &[u8], missing: DropReason) -> Result<Upper, DropReason> {
    let header = upper.first_chunk::<TCP_HEADER_LEN>().ok_or(missing)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let flags = TcpFlags::from_byte(header[13]);
    if header_len < TCP_HEADER_LEN || flags.contradictory() {
        return Err(DropReason::BadTransport);
    }
    if header_len > upper.len() {
        return Err(missing);
    }
    Ok(Upper::Tcp {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        flags,
    })
}

fn parse_udp(upper: &[u8], fragment: Fragment, missing: DropReason) -> Result<Upper, DropReason> {
    let header = upper.first_chunk::<UDP_HEADER_LEN>().ok_or(missing)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let fits = fragment != Fragment::Whole || length <= upper.len();
    if length < UDP_HEADER_LEN || !fits {
        return Err(DropReason::BadTransport);
    }
    Ok(Upper::Udp {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
    })
}

fn parse_icmp(
    upper: &[u8],
    missing: DropReason,
    kind: impl FnOnce(u8, u16) -> Upper,
) -> Result<Upper, DropReason> {
    let header = upper.first_chunk::<ICMP_HEADER_LEN>().ok_or(missing)?;
    Ok(kind(header[0], u16::from_be_bytes([header[4], header[5]])))
}

/// IANA's ICMP type numbers.
pub(super) fn kind_v4(kind: u8, identifier: u16) -> Upper {
    match kind {
        0 => Upper::EchoReply { identifier },
        8 => Upper::EchoRequest { identifier },
        3 | 4 | 11 | 12 => Upper::IcmpError,
        5 | 9 | 10 => Upper::IcmpForbidden,
        kind => Upper::Icmp { kind },
    }
}

/// IANA's ICMPv6 type numbers; below 128 are errors (RFC 4443 2.1), 130 to 143 manage a link.
pub(super) fn kind_v6(kind: u8, identifier: u16) -> Upper {
    match kind {
        0..=127 => Upper::IcmpError,
        128 => Upper::EchoRequest { identifier },
        129 => Upper::EchoReply { identifier },
        130..=138 | 141..=143 => Upper::IcmpForbidden,
        kind => Upper::Icmp { kind },
    }
}
