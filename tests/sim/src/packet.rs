//! Overlay packets of applications: made, tagged so that the invariants know each one again, and
//! read back.

use std::net::IpAddr;

use dataplane::packet::{Headers, Upper};
use model::rule::ip_protocol::{ICMP, ICMPV6, TCP, UDP};

use crate::traffic::FlowId;

/// What one packet is, written into its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag {
    pub(crate) flow: FlowId,
    pub(crate) sequence: u32,
    pub(crate) side: Side,
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Who opened the flow.
    Opener,
    /// Who was reached.
    Answerer,
}

/// What a packet carries besides its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) transport: Transport,
}

/// The upper header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp {
        source_port: u16,
        destination_port: u16,
        flags: u8,
    },
    Udp {
        source_port: u16,
        destination_port: u16,
    },
    EchoRequest {
        identifier: u16,
    },
    EchoReply {
        identifier: u16,
    },
}

/// TCP flags (RFC 9293 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

const MAGIC: [u8; 8] = *b"mesh-sim";
/// Magic, flow, sequence, side.
const TAG_LEN: usize = 8 + 8 + 4 + 1;

/// What a delivered packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A packet of a flow, whole and unchanged.
    Flow(Tag),
    /// An ICMP error about a packet of a flow.
    Error { about: Tag, is_port: bool },
    /// A TCP reset for the local end at this port.
    Reset { local_port: u16 },
    /// Nothing that an application of the simulation sends.
    Foreign,
}

/// Writes a packet with a payload of `filling` bytes behind its tag.
pub(crate) fn write(envelope: &Envelope, tag: Tag, filling: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(TAG_LEN + filling);
    payload.extend_from_slice(&MAGIC);
    payload.extend_from_slice(&tag.flow.0.to_be_bytes());
    payload.extend_from_slice(&tag.sequence.to_be_bytes());
    payload.push(u8::from(tag.side == Side::Answerer));
    payload.extend((0..filling).map(|position| filler(tag, position)));
    let is_v4 = envelope.source.is_ipv4();
    let (ip_protocol, upper) = match envelope.transport {
        Transport::Tcp {
            source_port,
            destination_port,
            flags,
        } => (TCP, tcp_header(source_port, destination_port, flags)),
        Transport::Udp {
            source_port,
            destination_port,
        } => (
            UDP,
            udp_header(source_port, destination_port, payload.len()),
        ),
        Transport::EchoRequest { identifier } => {
            let kind = if is_v4 { 8 } else { 128 };
            (icmp_protocol(is_v4), echo_header(kind, identifier))
        }
        Transport::EchoReply { identifier } => {
            let kind = if is_v4 { 0 } else { 129 };
            (icmp_protocol(is_v4), echo_header(kind, identifier))
        }
    };
    with_ip(
        envelope.source,
        envelope.destination,
        ip_protocol,
        &[&upper, &payload],
    )
}

/// Writes the ICMP error with which a host says that nobody listens at a UDP port.
pub(crate) fn write_port_unreachable(refused: &[u8], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let is_v4 = from.is_ipv4();
    let (kind, code) = if is_v4 { (3, 3) } else { (1, 4) }; // RFC 792, RFC 4443 3.1
    let header = [kind, code, 0, 0, 0, 0, 0, 0];
    with_ip(from, to, icmp_protocol(is_v4), &[&header, refused])
}

/// Reads a packet that was delivered.
pub(crate) fn read(packet: &[u8]) -> (Option<Headers>, Reading) {
    let Ok(headers) = Headers::parse(packet) else {
        return (None, Reading::Foreign);
    };
    let reading = match headers.upper {
        Upper::IcmpError => read_error(packet, &headers),
        Upper::Tcp {
            destination_port,
            flags,
            ..
        } if flags.rst() => Reading::Reset {
            local_port: destination_port,
        },
        _ => read_tag(packet, &headers).map_or(Reading::Foreign, Reading::Flow),
    };
    (Some(headers), reading)
}

fn read_error(packet: &[u8], headers: &Headers) -> Reading {
    let quote = &packet[headers.upper_start + 8..headers.length];
    let (kind, code) = (packet[headers.upper_start], packet[headers.upper_start + 1]);
    let about = Headers::parse(quote)
        .ok()
        .and_then(|quoted| read_tag(quote, &quoted));
    match about {
        Some(about) => Reading::Error {
            about,
            is_port: matches!((kind, code), (3, 3) | (1, 4)),
        },
        None => Reading::Foreign,
    }
}

fn read_tag(packet: &[u8], headers: &Headers) -> Option<Tag> {
    let upper = match headers.upper {
        Upper::Tcp { .. } => TCP_LEN,
        Upper::Udp { .. } | Upper::EchoRequest { .. } | Upper::EchoReply { .. } => 8,
        _ => return None,
    };
    let payload = packet.get(headers.upper_start + upper..headers.length)?;
    let (head, filling) = payload.split_at_checked(TAG_LEN)?;
    let tag = Tag {
        flow: FlowId(u64::from_be_bytes(head[8..16].try_into().ok()?)),
        sequence: u32::from_be_bytes(head[16..20].try_into().ok()?),
        side: if head[20] == 0 {
            Side::Opener
        } else {
            Side::Answerer
        },
    };
    let is_whole = filling
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte == filler(tag, at));
    (head[..8] == MAGIC && is_whole).then_some(tag)
}

#[allow(clippy::cast_possible_truncation)] // a pattern, not a number
fn filler(tag: Tag, position: usize) -> u8 {
    (tag.flow.0 as u8) ^ (tag.sequence as u8).wrapping_mul(31) ^ (position as u8)
}

const TCP_LEN: usize = 20;

fn tcp_header(source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; TCP_LEN];
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&destination_port.to_be_bytes());
    header[12] = 5 << 4; // words of the header
    header[13] = flags;
    header
}

fn udp_header(source_port: u16, destination_port: u16, payload: usize) -> Vec<u8> {
    let length = u16::try_from(8 + payload).expect("payloads are small");
    let mut header = Vec::with_capacity(8);
    for field in [source_port, destination_port, length, 0] {
        header.extend_from_slice(&field.to_be_bytes());
    }
    header
}

fn echo_header(kind: u8, identifier: u16) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    vec![kind, 0, 0, 0, high, low, 0, 0]
}

const fn icmp_protocol(is_v4: bool) -> u8 {
    if is_v4 { ICMP } else { ICMPV6 }
}

/// Puts an IP header before the parts. Upper checksums are left out: the receiving kernel checks
/// them, and there is none here.
fn with_ip(source: IpAddr, destination: IpAddr, ip_protocol: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(20 + length).expect("packets are small");
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            (header[8], header[9]) = (64, ip_protocol);
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let checksum = ipv4_checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(length).expect("packets are small");
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            (header[6], header[7]) = (ip_protocol, 64);
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
            header
        }
        _ => unreachable!("both ends of a flow are of one family"),
    };
    for part in parts {
        packet.extend_from_slice(part);
    }
    packet
}

fn ipv4_checksum(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag {
        flow: FlowId(77),
        sequence: 3,
        side: Side::Answerer,
    };

    fn envelope(source: &str, destination: &str, transport: Transport) -> Envelope {
        Envelope {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            transport,
        }
    }

    fn transports() -> [Transport; 4] {
        [
            Transport::Tcp {
                source_port: 1,
                destination_port: 2,
                flags: SYN,
            },
            Transport::Udp {
                source_port: 1,
                destination_port: 2,
            },
            Transport::EchoRequest { identifier: 9 },
            Transport::EchoReply { identifier: 9 },
        ]
    }

    #[test]
    fn a_tag_is_read_back_whatever_carries_it() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for transport in transports() {
                let packet = write(&envelope(source, destination, transport), TAG, 40);
                assert_eq!(read(&packet).1, Reading::Flow(TAG), "{transport:?}");
            }
        }
    }

    #[test]
    fn a_changed_payload_is_foreign() {
        let udp = Transport::Udp {
            source_port: 1,
            destination_port: 2,
        };
        let mut packet = write(&envelope("10.0.0.1", "10.0.0.2", udp), TAG, 40);
        *packet.last_mut().unwrap() ^= 1;
        assert_eq!(read(&packet).1, Reading::Foreign);
    }

    #[test]
    fn an_error_names_the_packet_that_it_is_about() {
        let udp = Transport::Udp {
            source_port: 1,
            destination_port: 2,
        };
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let envelope = envelope(source, destination, udp);
            let refused = write(&envelope, TAG, 10);
            let error = write_port_unreachable(&refused, envelope.destination, envelope.source);
            assert_eq!(
                read(&error).1,
                Reading::Error {
                    about: TAG,
                    is_port: true
                }
            );
        }
    }
}
