//! IPv4 and IPv6 headers, with options and a bounded walk over extension headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Fragment;
use crate::drops::DropReason;

/// Extension headers that are walked over; real packets have one or two.
const EXTENSIONS_MAX: usize = 6;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;

/// What the IP headers say.
pub(super) struct IpHeader {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ip_protocol: u8,
    pub(super) fragment: Fragment,
    pub(super) ecn: u8,
    pub(super) dont_fragment: bool,
    /// Where the upper header starts; never behind `end`.
    pub(super) upper_start: usize,
    /// Where the packet ends; never behind the bytes that were given.
    pub(super) end: usize,
}

/// How much of a packet there must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// The start of it, as ICMP errors quote.
    Quoted,
}

impl Extent {
    /// Returns where the packet ends that claims `claimed` bytes, of which there are `present`.
    fn end(self, claimed: usize, present: usize) -> Result<usize, DropReason> {
        match self {
            _ if claimed <= present => Ok(claimed),
            Self::Whole => Err(DropReason::Truncated),
            Self::Quoted => Ok(present),
        }
    }
}

impl IpHeader {
    pub(super) fn parse(packet: &[u8], extent: Extent) -> Result<Self, DropReason> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => parse_v4(packet, extent),
            Some(6) => parse_v6(packet, extent),
            _ => Err(DropReason::NotIp),
        }
    }
}

/// RFC 791 3.1.
fn parse_v4(packet: &[u8], extent: Extent) -> Result<IpHeader, DropReason> {
    let header = packet
        .first_chunk::<IPV4_HEADER_LEN>()
        .ok_or(DropReason::Truncated)?;
    let upper_start = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if upper_start < IPV4_HEADER_LEN || total < upper_start {
        return Err(DropReason::BadHeader);
    }
    let end = extent.end(total, packet.len())?;
    let options = packet
        .get(IPV4_HEADER_LEN..upper_start)
        .ok_or(DropReason::Truncated)?;
    check_options(options)?;
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    Ok(IpHeader {
        source: address_v4(&header[12..16]),
        destination: address_v4(&header[16..20]),
        ip_protocol: header[9],
        fragment: fragment(id, flags & 0x1fff, flags & 0x2000 != 0),
        ecn: header[1] & 0b11,
        dont_fragment: flags & 0x4000 != 0,
        upper_start,
        end,
    })
}

/// Refuses source routes, with which a packet could go where no rule looks.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    const END: u8 = 0; // RFC 791 3.1
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let [kind, rest @ ..] = options {
        options = match *kind {
            END => return Ok(()),
            NO_OPERATION => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRouted),
            _ => {
                let length = usize::from(*rest.first().ok_or(DropReason::BadHeader)?);
                if length < 2 {
                    return Err(DropReason::BadHeader);
                }
                options.get(length..).ok_or(DropReason::BadHeader)?
            }
        };
    }
    Ok(())
}

/// RFC 8200 3 and 4.
fn parse_v6(packet: &[u8], extent: Extent) -> Result<IpHeader, DropReason> {
    let header = packet
        .first_chunk::<IPV6_HEADER_LEN>()
        .ok_or(DropReason::Truncated)?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let end = extent.end(IPV6_HEADER_LEN + payload, packet.len())?;
    let chain = walk_extensions(&packet[..end], header[6])?;
    Ok(IpHeader {
        source: address_v6(&header[8..24]),
        destination: address_v6(&header[24..40]),
        ip_protocol: chain.ip_protocol,
        fragment: chain.fragment,
        ecn: header[1] >> 4 & 0b11,
        dont_fragment: true,
        upper_start: chain.upper_start,
        end,
    })
}

/// Where a chain of extension headers leads.
struct Chain {
    ip_protocol: u8,
    fragment: Fragment,
    upper_start: usize,
}

fn walk_extensions(packet: &[u8], first: u8) -> Result<Chain, DropReason> {
    const HOP_BY_HOP: u8 = 0; // RFC 8200 4.1
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;
    let mut chain = Chain {
        ip_protocol: first,
        fragment: Fragment::Whole,
        upper_start: IPV6_HEADER_LEN,
    };
    for walked in 0..=EXTENSIONS_MAX {
        let is_extension = matches!(
            chain.ip_protocol,
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
        );
        if !is_extension || matches!(chain.fragment, Fragment::Later { .. }) {
            return Ok(chain);
        }
        if chain.ip_protocol == HOP_BY_HOP && walked > 0 {
            return Err(DropReason::BadHeader);
        }
        let rest = &packet[chain.upper_start..];
        let start = rest.first_chunk::<8>().ok_or(DropReason::Truncated)?;
        let length = match chain.ip_protocol {
            FRAGMENT => {
                chain.fragment = fragment_v6(start, chain.fragment)?;
                8
            }
            _ => (usize::from(start[1]) + 1) * 8,
        };
        // Segments left: the packet would travel on from here.
        if chain.ip_protocol == ROUTING && start[3] != 0 {
            return Err(DropReason::SourceRouted);
        }
        if length > rest.len() {
            return Err(DropReason::Truncated);
        }
        chain.ip_protocol = start[0];
        chain.upper_start += length;
    }
    Err(DropReason::TooManyExtensions)
}

/// RFC 8200 4.5. One whole packet in one fragment is whole (RFC 6946).
fn fragment_v6(header: &[u8; 8], before: Fragment) -> Result<Fragment, DropReason> {
    if before != Fragment::Whole {
        return Err(DropReason::BadHeader);
    }
    let offset_and_flags = u16::from_be_bytes([header[2], header[3]]);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Ok(fragment(
        id,
        offset_and_flags >> 3,
        offset_and_flags & 1 != 0,
    ))
}

fn fragment(id: u32, offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First { id },
        (offset, _) => Fragment::Later { id, offset },
    }
}

fn address_v4(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 4] = bytes.try_into().expect("four bytes of a fixed header");
    Ipv4Addr::from(bytes).into()
}

fn address_v6(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 16] = bytes.try_into().expect("sixteen bytes of a fixed header");
    Ipv6Addr::from(bytes).into()
}
