//! Packets of all kinds, and the lanes that they belong in.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::packet::TcpFlags;

const PEER: PeerIndex = PeerIndex(7);

fn addresses(is_ipv6: bool) -> [IpAddr; 2] {
    let texts = match is_ipv6 {
        true => ["fd00::1", "fd00::2"],
        false => ["100.64.0.1", "100.64.0.2"],
    };
    texts.map(|text| text.parse().unwrap())
}

/// An IP packet; `extra` stands between the IP header and what follows: options, or extension
/// headers, of whose last one the next header is already right.
fn packet(
    [from, to]: [IpAddr; 2],
    ip_protocol: u8,
    fragment: u16,
    extra: &[u8],
    upper: &[u8],
) -> Vec<u8> {
    let mut bytes = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0; 20];
            header[0] = 0x45 + (extra.len() / 4) as u8;
            let total = 20 + extra.len() + upper.len();
            header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            header[4..6].copy_from_slice(&9u16.to_be_bytes());
            header[6..8].copy_from_slice(&fragment.to_be_bytes());
            (header[8], header[9]) = (64, ip_protocol);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            let length = extra.len() + upper.len();
            header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            (header[6], header[7]) = (if extra.is_empty() { ip_protocol } else { 60 }, 64);
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            header
        }
        _ => unreachable!("both of one family"),
    };
    bytes.extend_from_slice(extra);
    bytes.extend_from_slice(upper);
    bytes
}

/// A TCP or UDP header with these ports.
fn upper(ip_protocol: u8, source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = vec![0; if ip_protocol == TCP { 20 } else { 8 }];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    match ip_protocol {
        TCP => (bytes[12], bytes[13]) = (0x50, 0x10),
        _ => bytes[4..6].copy_from_slice(&8u16.to_be_bytes()),
    }
    bytes
}

fn whole(is_ipv6: bool, ip_protocol: u8, source: u16, destination: u16) -> Vec<u8> {
    let upper = upper(ip_protocol, source, destination);
    packet(addresses(is_ipv6), ip_protocol, 0, &[], &upper)
}

fn hash(packet: &[u8]) -> u32 {
    match Spread::of(packet, Direction::Outbound, PEER) {
        Some(Spread::Flow(hash) | Spread::FirstFragment(hash, _)) => hash,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn both_directions_and_the_flow_itself_have_one_hash(
        is_ipv6: bool,
        is_tcp: bool,
        source: u16,
        destination: u16,
    ) {
        let ip_protocol = if is_tcp { TCP } else { UDP };
        let there = whole(is_ipv6, ip_protocol, source, destination);
        let back = whole(is_ipv6, ip_protocol, destination, source);
        prop_assert_eq!(hash(&there), hash(&back));
        let upper = match is_tcp {
            true => Upper::Tcp {
                source_port: source,
                destination_port: destination,
                flags: TcpFlags::from_byte(0x10),
            },
            false => Upper::Udp {
                source_port: source,
                destination_port: destination,
            },
        };
        for direction in [Direction::Outbound, Direction::Inbound] {
            let key = FlowKey::new(upper, ip_protocol, is_ipv6, direction, PEER);
            prop_assert_eq!(hash_of(&key), hash(&there));
        }
    }

    #[test]
    fn nothing_that_a_peer_may_send_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for direction in [Direction::Outbound, Direction::Inbound] {
            let _ = Spread::of(&bytes, direction, PEER);
        }
    }
}

#[test]
fn options_and_extension_headers_change_nothing() {
    // No operation three times and the end; destination options that only pad.
    let options = [1, 1, 1, 0];
    for ip_protocol in [TCP, UDP] {
        let upper = upper(ip_protocol, 40_000, 443);
        let v4 = packet(addresses(false), ip_protocol, 0, &options, &upper);
        assert_eq!(hash(&v4), hash(&whole(false, ip_protocol, 40_000, 443)));
        let extension = [ip_protocol, 0, 1, 4, 0, 0, 0, 0];
        let v6 = packet(addresses(true), ip_protocol, 0, &extension, &upper);
        assert_eq!(hash(&v6), hash(&whole(true, ip_protocol, 40_000, 443)));
    }
}

#[test]
fn a_first_fragment_is_of_its_flow_and_a_later_one_follows_it() {
    let more = 0x2000;
    let mut data = upper(UDP, 5000, 53);
    data[4..6].copy_from_slice(&3000u16.to_be_bytes());
    data.resize(1000, 7);
    let first = packet(addresses(false), UDP, more, &[], &data);
    let Some(Spread::FirstFragment(of_first, key)) = Spread::of(&first, Direction::Outbound, PEER)
    else {
        panic!("it shows its ports");
    };
    assert_eq!(of_first, hash(&whole(false, UDP, 5000, 53)));
    let later = packet(addresses(false), UDP, 125, &[], &[7; 500]);
    let follows = Some(Spread::LaterFragment(key));
    assert_eq!(Spread::of(&later, Direction::Outbound, PEER), follows);
    assert_ne!(Spread::of(&later, Direction::Inbound, PEER), follows);
}

#[test]
fn an_icmp_error_is_of_the_flow_that_it_is_about() {
    const ICMP: u8 = 1;
    let lost = whole(false, UDP, 5000, 53);
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend_from_slice(&lost);
    let [from, to] = addresses(false);
    let error = packet([to, from], ICMP, 0, &[], &error);
    assert_eq!(hash(&error), hash(&lost));
}

#[test]
fn a_ping_and_its_answer_are_in_one_lane_and_so_is_what_has_no_ports() {
    const ICMP: u8 = 1;
    const GRE: u8 = 47;
    let [from, to] = addresses(false);
    let ping = |kind: u8| [kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    let there = packet([from, to], ICMP, 0, &[], &ping(8));
    let back = packet([to, from], ICMP, 0, &[], &ping(0));
    assert_eq!(hash(&there), hash(&back));
    let there = packet([from, to], GRE, 0, &[], &[1, 2, 3, 4]);
    let back = packet([to, from], GRE, 0, &[], &[5, 6, 7, 8]);
    assert_eq!(hash(&there), hash(&back));
}

#[test]
fn flows_of_one_client_spread_evenly() {
    for count in [2u16, 4, 64] {
        let mut lanes = vec![0; usize::from(count)];
        // As iperf3 does: neighbouring ports of the client, one of the server.
        for port in 40_000..40_000 + 64 * count {
            let lane = lane_of(hash(&whole(false, TCP, port, 5201)), count);
            lanes[usize::from(lane)] += 1;
        }
        assert!(
            lanes.iter().all(|flows| (32..=96).contains(flows)),
            "{lanes:?}"
        );
    }
}
