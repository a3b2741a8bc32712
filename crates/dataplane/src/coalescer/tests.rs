//! Packets joined and cut again are the very same ones, in the same order within each flow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::packet::Headers;
use crate::recut::recut;

const ALL: Joins = Joins {
    tcp: true,
    udp: true,
};
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

/// A TCP segment with timestamps, from one of a few clients.
#[derive(Clone, Debug)]
struct Segment {
    is_v4: bool,
    port: u16,
    sequence: u32,
    flags: u8,
    window: u16,
    ecn: u8,
    payload: Vec<u8>,
}

fn segment(port: u16, sequence: u32, payload_len: usize) -> Segment {
    Segment {
        is_v4: true,
        port,
        sequence,
        flags: ACK,
        window: 500,
        ecn: 0,
        payload: (0..payload_len).map(|at| at as u8).collect(),
    }
}

impl Segment {
    fn bytes(&self) -> Vec<u8> {
        let mut upper = [self.port.to_be_bytes(), 80u16.to_be_bytes()].concat();
        upper.extend(self.sequence.to_be_bytes());
        upper.extend(7u32.to_be_bytes());
        upper.extend([8 << 4, self.flags]);
        upper.extend(self.window.to_be_bytes());
        upper.extend([0; 4]);
        upper.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        upper.extend(&self.payload);
        packet(self.is_v4, self.ecn, TCP, upper, 16)
    }
}

fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut upper = [port.to_be_bytes(), 53u16.to_be_bytes()].concat();
    upper.extend(be(8 + payload.len()));
    upper.extend([0, 0]);
    upper.extend(payload);
    packet(true, 0, UDP, upper, 6)
}

fn packet(is_v4: bool, ecn: u8, ip_protocol: u8, mut upper: Vec<u8>, field: usize) -> Vec<u8> {
    let (mut ip, source, destination): (Vec<u8>, IpAddr, IpAddr) = if is_v4 {
        let mut ip = vec![0x45, ecn, 0, 0, 0, 9, 0x40, 0, 64, ip_protocol, 0, 0];
        ip[2..4].copy_from_slice(&be(20 + upper.len()));
        ip.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        (ip, source.into(), destination.into())
    } else {
        let (source, destination) = (
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
        );
        let mut ip = vec![0x60, ecn << 4, 0, 0, 0, 0, ip_protocol, 64];
        ip[4..6].copy_from_slice(&be(upper.len()));
        ip.extend(source.octets());
        ip.extend(destination.octets());
        (ip, source.into(), destination.into())
    };
    if is_v4 {
        let checksum = Sum::default().add(&ip).finish();
        ip[10..12].copy_from_slice(&checksum);
    }
    let sum = Sum::default()
        .add_pseudo_header(source, destination, ip_protocol, upper.len())
        .add(&upper);
    upper[field..field + 2].copy_from_slice(&sum.finish());
    [ip, upper].concat()
}

/// What the kernel gets for these packets: how many super-packets and plain ones, and each cut. It is
/// the same wherever the packets lie.
fn through(joins: Joins, packets: &[Vec<u8>]) -> (usize, Vec<Vec<u8>>) {
    let own = through_from(joins, packets, |_| false);
    assert_eq!(own, through_from(joins, packets, |_| true));
    assert_eq!(own, through_from(joins, packets, |at| at % 3 == 1));
    own
}

fn through_from(
    joins: Joins,
    packets: &[Vec<u8>],
    is_lent: impl Fn(usize) -> bool,
) -> (usize, Vec<Vec<u8>>) {
    let mut coalescer = Coalescer::new(joins, 1 << 20);
    let mut lent = packets.concat();
    let mut start = 0;
    for (at, packet) in packets.iter().enumerate() {
        if is_lent(at) {
            assert!(coalescer.add_lent(start, &lent[start..start + packet.len()]));
            assert!(coalescer.has_lent());
        } else {
            assert!(coalescer.has_room(packet.len()));
            coalescer.add(packet.len(), |room| {
                room.copy_from_slice(packet);
                packet.len()
            });
        }
        start += packet.len();
    }
    let mut writes = 0;
    let mut cut = Vec::new();
    coalescer.take_all_lent(&mut lent, |header, parts| {
        writes += 1;
        cut.append(&mut cut_again(header, &parts.concat()));
    });
    assert!(!coalescer.has_lent());
    coalescer.take_all(|_, _| panic!("all was taken"));
    (writes, cut)
}

#[test]
fn no_more_is_lent_than_one_burst_brings() {
    let mut coalescer = Coalescer::new(ALL, 0);
    let packet = segment(1, 0, 100).bytes();
    let taken = (0..2 * LENT_MAX).filter(|_| coalescer.add_lent(0, &packet));
    assert_eq!(taken.count(), LENT_MAX);
    coalescer.take_all_lent(&mut packet.clone(), |_, _| {});
    assert!(coalescer.add_lent(0, &packet));
}

fn cut_again(header: VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.segmentation() == Ok(None) {
        assert_eq!(header, VirtioHeader::default());
    } else {
        let headers = Headers::parse(packet).unwrap();
        assert_eq!(usize::from(header.csum_start), headers.upper_start);
    }
    let mut cut = Vec::new();
    recut(header, packet, |headers, payload| {
        cut.push([headers, payload].concat());
    })
    .unwrap();
    cut
}

#[test]
fn neighbours_become_one() {
    for is_v4 in [true, false] {
        let run: Vec<_> = (0..40)
            .map(|at| {
                let segment = segment(1, (u32::MAX - 5000).wrapping_add(at * 1000), 1000);
                Segment { is_v4, ..segment }.bytes()
            })
            .collect();
        let (writes, cut) = through(ALL, &run);
        assert_eq!(writes, 1);
        assert_eq!(cut.len(), 40);
        for (before, after) in run.iter().zip(&cut) {
            assert_same(before, after);
        }
    }
}

/// Joined packets that may not be fragmented get new identifications, which nobody reads.
fn assert_same(before: &[u8], after: &[u8]) {
    let strip = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        if packet[0] >> 4 == 4 {
            assert_eq!(Sum::default().add(&packet[..20]).finish(), [0, 0]);
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    };
    assert_eq!(strip(before), strip(after));
}

#[test]
fn interleaved_flows_are_joined_each_for_itself() {
    let packets: Vec<_> = (0..10u32)
        .flat_map(|at| [1, 2, 3].map(|port| segment(port, at * 100, 100).bytes()))
        .collect();
    let (writes, cut) = through(ALL, &packets);
    assert_eq!((writes, cut.len()), (3, 30));
}

#[test]
fn what_differs_is_left_apart() {
    let first = segment(1, 0, 100);
    let next = segment(1, 100, 100);
    let writes = |second: Segment| through(ALL, &[first.bytes(), second.bytes()]).0;
    assert_eq!(writes(next.clone()), 1);
    let shorter = Segment {
        payload: vec![1; 99],
        ..next.clone()
    };
    assert_eq!(writes(shorter), 1);
    let others = [
        segment(1, 101, 100),
        segment(1, 100, 101),
        segment(1, 100, 0),
        segment(2, 100, 100),
        Segment {
            window: 501,
            ..next.clone()
        },
        Segment {
            ecn: 3,
            ..next.clone()
        },
        Segment {
            flags: ACK | FIN,
            ..next.clone()
        },
        Segment {
            is_v4: false,
            ..next.clone()
        },
    ];
    for other in others {
        assert_eq!(writes(other.clone()), 2, "{other:?}");
    }
}

#[test]
fn a_damaged_packet_is_left_to_the_kernel_as_it_is() {
    for damaged in 0..2 {
        let mut packets = [segment(1, 0, 100).bytes(), segment(1, 100, 100).bytes()];
        *packets[damaged].last_mut().unwrap() ^= 1;
        let (writes, cut) = through(ALL, &packets);
        assert_eq!(writes, 2);
        assert_eq!(cut, packets);
    }
}

#[test]
fn nothing_is_joined_behind_a_push_or_a_shorter_one() {
    let pushed = Segment {
        flags: ACK | shape::PSH,
        ..segment(1, 100, 100)
    };
    let run = [
        segment(1, 0, 100).bytes(),
        pushed.bytes(),
        segment(1, 200, 100).bytes(),
        segment(1, 300, 50).bytes(),
        segment(1, 350, 50).bytes(),
    ];
    let (writes, cut) = through(ALL, &run);
    assert_eq!(writes, 3);
    for (before, after) in run.iter().zip(&cut) {
        assert_same(before, after);
    }
}

#[test]
fn an_acknowledgement_is_not_overtaken() {
    let empty = Segment {
        payload: Vec::new(),
        ..segment(1, 100, 0)
    };
    let run = [
        segment(1, 0, 100).bytes(),
        empty.bytes(),
        segment(1, 100, 100).bytes(),
    ];
    let (writes, cut) = through(ALL, &run);
    assert_eq!(writes, 3);
    assert_eq!(cut, run);
}

#[test]
fn a_fragment_is_not_overtaken() {
    let mut fragment = datagram(1, &[9; 64]);
    fragment[6] = 0x20;
    let run = [datagram(1, &[1; 64]), fragment, datagram(1, &[2; 64])];
    let (writes, cut) = through(ALL, &run);
    assert_eq!(writes, 3);
    assert_eq!(cut, run);
}

/// An echo request, whole in one packet.
fn ping(is_v4: bool) -> Vec<u8> {
    let (ip_protocol, kind) = if is_v4 { (1, 8) } else { (58, 128) };
    packet(is_v4, 0, ip_protocol, vec![kind, 0, 0, 0, 0, 7, 0, 1], 2)
}

#[test]
fn a_ping_does_not_end_a_run() {
    for is_v4 in [true, false] {
        let of = |sequence| {
            let segment = segment(1, sequence, 100);
            Segment { is_v4, ..segment }.bytes()
        };
        let run = [of(0), ping(is_v4), of(100), ping(!is_v4), of(200)];
        let (writes, cut) = through(ALL, &run);
        assert_eq!((writes, cut.len()), (3, 5));
    }
}

#[test]
fn what_options_hide_is_not_overtaken() {
    let (first, next) = (segment(1, 0, 100), segment(1, 100, 100));
    // No operation, three times and an end; destination options of eight bytes.
    let (options, extension) = ([1, 1, 1, 0], [TCP, 0, 1, 4, 0, 0, 0, 0]);
    for is_v4 in [true, false] {
        let of = |segment: &Segment| {
            let segment = segment.clone();
            Segment { is_v4, ..segment }.bytes()
        };
        let mut hidden = of(&segment(1, 100, 100));
        if is_v4 {
            hidden.splice(20..20, options);
            hidden[0] = 0x46;
            hidden[2..4].copy_from_slice(&be(20 + 4 + 32 + 100));
        } else {
            hidden.splice(40..40, extension);
            hidden[4..6].copy_from_slice(&be(8 + 32 + 100));
            hidden[6] = 60;
        }
        let run = [of(&first), hidden, of(&next)];
        let (writes, cut) = through(ALL, &run);
        assert_eq!(writes, 3);
        assert_eq!(cut, run);
    }
}

#[test]
fn datagrams_are_joined_only_where_the_device_takes_them() {
    let run: Vec<_> = (0..5).map(|at| datagram(1, &[at; 64])).collect();
    assert_eq!(through(ALL, &run).0, 1);
    let tcp_only = Joins {
        tcp: true,
        udp: false,
    };
    assert_eq!(through(tcp_only, &run).0, 5);
    assert_eq!(through(Joins::default(), &[segment(1, 0, 9).bytes()]).0, 1);
}

#[test]
fn what_a_device_does_not_take_any_more_is_not_joined() {
    let segments = [segment(1, 0, 100).bytes(), segment(1, 100, 100).bytes()];
    let datagrams = [datagram(1, &[1; 100]), datagram(1, &[2; 100])];
    let mut coalescer = Coalescer::new(ALL, 1 << 16);
    let mut joins = ALL;
    for expected in [(1, 1), (2, 1), (2, 2)] {
        coalescer.set_joins(joins);
        for packet in segments.iter().chain(&datagrams) {
            coalescer.add(packet.len(), |room| {
                room.copy_from_slice(packet);
                packet.len()
            });
        }
        let (mut tcp, mut udp) = (0, 0);
        coalescer.take_all(|header, parts| {
            assert!(joins.include(header));
            let writes = if parts[0][9] == TCP {
                &mut tcp
            } else {
                &mut udp
            };
            *writes += 1;
        });
        assert_eq!((tcp, udp), expected);
        joins = joins.without(VirtioHeader::of_segments(
            if joins.tcp {
                Segmentation::TcpV4
            } else {
                Segmentation::Udp
            },
            40,
            20,
            100,
        ));
    }
    assert_eq!(joins, Joins::default());
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let flags = prop_oneof![8 => Just(ACK), 1 => Just(ACK | shape::PSH), 1 => Just(ACK | FIN)];
    let fields = (any::<bool>(), 1u16..4, 0u32..6, flags, 0u8..2, 1usize..4);
    fields.prop_map(|(is_v4, port, step, flags, ecn, size)| Segment {
        is_v4,
        flags,
        ecn: ecn * 2,
        ..segment(port, step * 100, size * 50)
    })
}

proptest! {
    #[test]
    fn any_packets_come_out_as_they_came_in(
        segments in proptest::collection::vec(any_segment(), 1..60)
    ) {
        let packets: Vec<_> = segments.iter().map(Segment::bytes).collect();
        let (_, cut) = through(ALL, &packets);
        prop_assert_eq!(cut.len(), packets.len());
        for is_v4 in [true, false] {
            for port in 1u16..4 {
                let of_flow = |packet: &&Vec<u8>| {
                    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
                    (packet[0] >> 4 == 4) == is_v4 && packet[at..at + 2] == port.to_be_bytes()
                };
                let (before, after): (Vec<_>, Vec<_>) = (
                    packets.iter().filter(of_flow).collect(),
                    cut.iter().filter(of_flow).collect(),
                );
                prop_assert_eq!(before.len(), after.len());
                for (before, after) in before.into_iter().zip(after) {
                    assert_same(before, after);
                }
            }
        }
    }
}
