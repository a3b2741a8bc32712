//! Super-packets of the kernel's offload: judged once, sent as the packets that they stand for.

mod pair;

use std::net::IpAddr;

use dataplane::{Coalescer, DropReason, Event, Joins, VirtioHeader};
use pair::packets::{self, ACK, FIN, TCP, UDP, checksum};
use pair::{A, B, Pair, bundle, rule, tcp_port, udp_port};
use proptest::prelude::*;

const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;

/// What a kernel with offloads gives.
#[derive(Clone, Debug)]
struct Super {
    header: VirtioHeader,
    bytes: Vec<u8>,
    headers_len: usize,
}

impl Super {
    fn tcp(
        addresses: (IpAddr, IpAddr),
        ports: (u16, u16),
        flags: u8,
        data: &[u8],
        size: u16,
    ) -> Self {
        let mut upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        upper.extend((u32::MAX - 2000).to_be_bytes());
        upper.extend(2000u32.to_be_bytes());
        upper.extend([8 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        upper.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        let (gso_type, upper_len) = match addresses.0 {
            IpAddr::V4(_) => (GSO_TCPV4, 32),
            IpAddr::V6(_) => (GSO_TCPV6, 32),
        };
        Self::new(addresses, TCP, (upper, upper_len, 16), data, gso_type, size)
    }

    fn udp(addresses: (IpAddr, IpAddr), ports: (u16, u16), data: &[u8], size: u16) -> Self {
        let mut upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        upper.extend(((8 + data.len()) as u16).to_be_bytes());
        upper.extend([0, 0]);
        Self::new(addresses, UDP, (upper, 8, 6), data, GSO_UDP, size)
    }

    fn new(
        (source, destination): (IpAddr, IpAddr),
        ip_protocol: u8,
        (mut upper, upper_len, csum_offset): (Vec<u8>, usize, u16),
        data: &[u8],
        gso_type: u8,
        gso_size: u16,
    ) -> Self {
        upper.extend(data);
        let pseudo = pseudo_header(source, destination, ip_protocol, upper.len());
        let at = usize::from(csum_offset);
        // The kernel leaves the sum of the pseudo header there, not inverted.
        upper[at..at + 2].copy_from_slice(&checksum(&pseudo).map(|byte| !byte));
        let bytes = packets::ip(source, destination, ip_protocol, &upper);
        let upper_start = bytes.len() - upper.len();
        let header = VirtioHeader {
            flags: 1,
            gso_type,
            header_len: (upper_start + upper_len) as u16,
            gso_size,
            csum_start: upper_start as u16,
            csum_offset,
        };
        Self {
            header,
            bytes,
            headers_len: upper_start + upper_len,
        }
    }

    fn data(&self) -> &[u8] {
        &self.bytes[self.headers_len..]
    }

    /// Offers it to a host and lets the network carry what follows.
    fn send(&self, pair: &mut Pair, from: usize) {
        pair.offer_with(from, self.header, &mut self.bytes.clone());
        pair.run();
    }
}

fn pseudo_header(source: IpAddr, destination: IpAddr, ip_protocol: u8, length: usize) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = (length as u32).to_be_bytes();
    [
        &octets(source)[..],
        &octets(destination),
        &length,
        &[0, 0, 0, ip_protocol],
    ]
    .concat()
}

/// Fails unless IP and upper checksum of a packet are right, its lengths too.
fn assert_whole(packet: &[u8]) {
    let (source, destination, start, ip_protocol) = if packet[0] >> 4 == 4 {
        assert_eq!(checksum(&packet[..20]), [0, 0]);
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        assert_eq!(total, packet.len());
        let address = |at: usize| IpAddr::from(*packet[at..].first_chunk::<4>().expect("whole"));
        (address(12), address(16), 20, packet[9])
    } else {
        let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        assert_eq!(payload + 40, packet.len());
        let address = |at: usize| IpAddr::from(*packet[at..].first_chunk::<16>().expect("whole"));
        (address(8), address(24), 40, packet[6])
    };
    let upper = &packet[start..];
    let mut covered = pseudo_header(source, destination, ip_protocol, upper.len());
    covered.extend(upper);
    assert_eq!(checksum(&covered), [0, 0], "{packet:?}");
    if ip_protocol == UDP {
        let length = usize::from(u16::from_be_bytes([upper[4], upper[5]]));
        assert_eq!(length, upper.len());
        assert_ne!(upper[6..8], [0, 0], "left out");
    }
}

fn addresses(pair: &Pair, is_v4: bool) -> (IpAddr, IpAddr) {
    if is_v4 { pair.v4(A) } else { pair.v6(A) }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A pair with a session.
fn established() -> Pair {
    let mut pair = Pair::new();
    let hello = pair.udp(A, 1, 1);
    pair.send(A, &hello);
    assert_eq!(pair.delivered(B).len(), 1);
    pair
}

#[test]
fn a_tcp_super_packet_arrives_as_its_segments() {
    for is_v4 in [true, false] {
        let mut pair = established();
        let data = pattern(3000);
        let flags = ACK | PSH | FIN | CWR;
        let packet = Super::tcp(addresses(&pair, is_v4), (5, 80), flags, &data, 1300);
        packet.send(&mut pair, A);
        let delivered = pair.delivered(B);
        let upper = if is_v4 { 20 } else { 40 };
        let field = |at: usize, length: usize| -> Vec<_> {
            let cut = |packet: &Vec<u8>| packet[upper + at..upper + at + length].to_vec();
            delivered.iter().map(cut).collect()
        };
        let sequences = [-2001i32, -701, 599].map(|at| at.to_be_bytes().to_vec());
        assert_eq!(field(4, 4), sequences);
        let all_flags = [[ACK | CWR], [ACK], [ACK | PSH | FIN]].map(|flags| flags.to_vec());
        assert_eq!(field(13, 1), all_flags);
        let lengths: Vec<_> = delivered
            .iter()
            .map(|packet| packet.len() - upper - 32)
            .collect();
        assert_eq!(lengths, [1300, 1300, 400]);
        delivered.iter().for_each(|packet| assert_whole(packet));
        let flows = pair.hosts[A].counters.flows();
        assert_eq!(flows, 2, "the greeting's and this one");
        assert_eq!(pair.hosts[A].counters.sent().0, 4);
    }
}

#[test]
fn a_checksum_that_the_kernel_left_is_completed() {
    let mut pair = established();
    let mut packet = Super::udp(addresses(&pair, true), (5, 53), b"question", 0);
    packet.header.gso_type = 0;
    packet.send(&mut pair, A);
    let delivered = pair.delivered(B);
    assert_eq!(delivered.len(), 1);
    assert_whole(&delivered[0]);
}

#[test]
fn segments_wait_for_a_session() {
    let mut pair = Pair::new();
    let packet = Super::udp(addresses(&pair, true), (5, 53), &pattern(5000), 1000);
    packet.send(&mut pair, A);
    let delivered = pair.delivered(B);
    assert_eq!(delivered.len(), 5);
    delivered.iter().for_each(|packet| assert_whole(packet));
}

#[test]
fn each_segment_of_a_denied_super_packet_is_counted_and_one_answer_tells() {
    let mut pair = Pair::with_bundle(&bundle(vec![rule("web", tcp_port(80))], Vec::new()));
    let packet = Super::tcp(pair.v4(A), (5, 81), ACK, &pattern(4500), 1000);
    packet.send(&mut pair, A);
    assert_eq!(pair.dropped(A, DropReason::DeniedOutbound), 5);
    assert_eq!(pair.hosts[A].counters.refusals(), 1);
    let told = pair.events(A);
    let denials = told
        .iter()
        .filter(|event| matches!(event, Event::Denied(_)));
    assert_eq!(denials.count(), 1);
    assert_eq!(pair.delivered(A).len(), 1, "the reset");
}

#[test]
fn an_abandoned_super_packet_counts_as_its_segments() {
    let mut pair = Pair::new();
    let packet = Super::tcp(pair.v4(A), (5, 80), ACK, &pattern(4500), 1000);
    let shard = &mut pair.hosts[A].shard;
    shard.abandon_overlay_packet(packet.header, &packet.bytes);
    assert_eq!(pair.dropped(A, DropReason::HandedOver), 5);
    assert!(pair.hosts[A].counters.balance().holds());
}

#[test]
fn the_receiver_judges_every_segment() {
    let mut pair = Pair::new();
    pair.set_bundle_at(B, &bundle(vec![rule("dns", udp_port(53))], Vec::new()));
    let packet = Super::udp(pair.v4(A), (5, 54), &pattern(3000), 1000);
    packet.send(&mut pair, A);
    assert_eq!(pair.dropped(B, DropReason::DeniedInbound), 3);
}

#[test]
fn segments_that_do_not_fit_are_refused_with_the_size_that_does() {
    let mut pair = established();
    let packet = Super::udp(pair.v4(A), (5, 80), &pattern(9000), 4000);
    packet.send(&mut pair, A);
    assert_eq!(pair.dropped(A, DropReason::TooBig), 3);
    let answers = pair.delivered(A);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][20..22], [3, 4], "fragmentation needed");
}

#[test]
fn a_header_that_lies_is_dropped_and_counted() {
    let pair = established();
    let v4 = Super::tcp(pair.v4(A), (5, 80), ACK, &pattern(3000), 1000);
    let with = |change: &dyn Fn(&mut Super)| {
        let mut changed = v4.clone();
        change(&mut changed);
        changed
    };
    let lies = [
        with(&|packet| packet.header.gso_type = GSO_TCPV6),
        with(&|packet| packet.header.gso_type = GSO_UDP),
        with(&|packet| packet.header.gso_type = 3),
        with(&|packet| packet.header.gso_size = 0),
        with(&|packet| packet.bytes.truncate(2000)),
        with(&|packet| packet.bytes.truncate(15)),
        // A fragment.
        with(&|packet| packet.bytes[6] |= 0x20),
        with(&|packet| {
            packet.header.gso_type = 0;
            packet.header.csum_start = 2990;
            packet.header.csum_offset = 100;
        }),
    ];
    for lie in lies {
        let mut pair = established();
        lie.send(&mut pair, A);
        let counters = &pair.hosts[A].counters;
        assert_eq!(counters.balance().dropped, 1, "{:?}", lie.header);
        assert_eq!(counters.sent().0, 1, "only the greeting");
    }
}

proptest! {
    #[test]
    fn any_super_packet_arrives_whole(
        is_v4: bool,
        is_tcp: bool,
        length in 1usize..40_000,
        size in 400u16..1300,
        flags in prop_oneof![Just(ACK), Just(ACK | PSH), Just(ACK | FIN)],
    ) {
        let mut pair = established();
        let data = pattern(length);
        let addresses = addresses(&pair, is_v4);
        let packet = match is_tcp {
            true => Super::tcp(addresses, (5, 80), flags, &data, size),
            false => Super::udp(addresses, (5, 80), &data, size),
        };
        packet.send(&mut pair, A);
        let delivered = pair.delivered(B);
        prop_assert_eq!(delivered.len(), length.div_ceil(usize::from(size)));
        let mut joined = Coalescer::new(Joins { tcp: true, udp: true }, 1 << 20);
        let mut arrived: Vec<u8> = Vec::new();
        for segment in &delivered {
            assert_whole(segment);
            arrived.extend(&segment[packet.headers_len..]);
            joined.add(segment.len(), |room| {
                room.copy_from_slice(segment);
                segment.len()
            });
        }
        prop_assert_eq!(&arrived[..], packet.data());
        // What the receiving kernel gets is, run for run, what the sending kernel gave.
        let mut runs = Vec::new();
        joined.take_all(|header, parts| runs.push((header, parts.concat())));
        if flags & FIN == 0 && length > usize::from(size) && length <= 64 * usize::from(size) {
            prop_assert_eq!(runs.len(), 1);
            let (header, bytes) = &runs[0];
            prop_assert_eq!(*header, packet.header);
            prop_assert_eq!(bytes, &packet.bytes);
        }
    }

    #[test]
    fn any_header_on_any_packet_is_taken_or_counted(
        flags: u8,
        gso_type in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()],
        gso_size in prop_oneof![0u16..3, 100u16..2000],
        csum_start in 0u16..100,
        csum_offset in 0u16..40,
        is_tcp: bool,
        cut in 0usize..3000,
        noise in proptest::collection::vec((0usize..80, any::<u8>()), 0..4),
    ) {
        let mut pair = established();
        let addresses = pair.v4(A);
        let mut packet = match is_tcp {
            true => Super::tcp(addresses, (5, 80), ACK, &pattern(2800), 1000),
            false => Super::udp(addresses, (5, 80), &pattern(2800), 1000),
        };
        packet.header =
            VirtioHeader { flags, gso_type, header_len: 9, gso_size, csum_start, csum_offset };
        packet.bytes.truncate(cut);
        for (at, byte) in noise {
            if let Some(place) = packet.bytes.get_mut(at) {
                *place = byte;
            }
        }
        // That everything is delivered or counted is looked at after every step.
        packet.send(&mut pair, A);
    }
}
