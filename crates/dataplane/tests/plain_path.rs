//! Whatever is taken from a kernel and given to another joined is, packet for packet and byte for
//! byte, what would have gone through without any offload.

mod kernel;
mod pair;

use dataplane::{Coalescer, Command, DataCipher, Joins, VirtioHeader};
use kernel::cut::{Kind, cut, kind};
use kernel::generate::{Choice, any_choice, sendings};
use kernel::{Form, Look, Sending, Tcp, sum};
use pair::packets::{self, ACK};
use pair::{A, B, Pair};
use proptest::prelude::*;

/// Bytes of the receiving side's memory: less than what comes, so that it is emptied in between.
const ROOM: usize = 30_000;

/// A pair with a session.
fn established(cipher: DataCipher) -> Pair {
    let mut pair = Pair::new();
    for host in [A, B] {
        let mut introduction = pair.peer(host);
        if let Command::SetPeer { cipher: chosen, .. } = &mut introduction {
            *chosen = cipher;
        }
        pair.command(host, vec![introduction]);
    }
    let hello = pair.udp(A, 1, 1);
    pair.send(A, &hello);
    assert_eq!(pair.delivered(B).len(), 1);
    pair
}

/// Lets A's kernel give these, and returns what B's is given. The way marks datagrams with ECN's
/// bits as `marks` says, over and over.
fn carried(pair: &mut Pair, given: Vec<(VirtioHeader, Vec<u8>)>, marks: &[u8]) -> Vec<Vec<u8>> {
    for (header, mut packet) in given {
        pair.offer_with(A, header, &mut packet);
    }
    for (datagram, mark) in pair.network.iter_mut().zip(marks.iter().cycle()) {
        datagram.ecn = *mark;
    }
    pair.run();
    pair.delivered(B)
}

/// Returns what B's kernel makes of what it is given joined.
fn joined_and_cut(joins: Joins, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::new(joins, ROOM);
    let mut result = Vec::new();
    let mut empty = |coalescer: &mut Coalescer| {
        coalescer.take_all(|header, parts| result.extend(cut(header, &parts.concat())));
    };
    for packet in packets {
        if !coalescer.has_room(packet.len()) {
            empty(&mut coalescer);
        }
        coalescer.add(packet.len(), |room| {
            room.copy_from_slice(packet);
            packet.len()
        });
    }
    empty(&mut coalescer);
    result
}

/// Of an IPv4 packet that may not be fragmented nobody reads the identification (RFC 6864 4.1).
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let is_whole = packet[0] >> 4 == 4 && packet[6] & 0x3f == 0 && packet[7] == 0;
    if is_whole && packet[6] & 0x40 != 0 {
        let header_len = usize::from(packet[0] & 15) * 4;
        assert_eq!(sum(&packet[..header_len], 0), 0xffff);
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Fails unless each flow's packets, and the fragments that may be a flow's, are the same in the same
/// order.
fn assert_same_flows(plain: &[Vec<u8>], fast: &[Vec<u8>]) {
    assert_eq!(plain.len(), fast.len());
    let kinds: std::collections::BTreeSet<Kind> = plain.iter().map(|packet| kind(packet)).collect();
    for flow in kinds {
        let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let belongs = |packet: &&Vec<u8>| match (flow, kind(packet)) {
                (Kind::Flow(version, protocol, _), Kind::Piece(of_version, of_protocol)) => {
                    (version, protocol) == (of_version, of_protocol)
                }
                (one, other) => one == other,
            };
            let chosen = packets.iter().filter(belongs);
            chosen.map(|packet| comparable(packet)).collect()
        };
        assert_eq!(of_flow(plain), of_flow(fast), "{flow:?}");
    }
}

/// Sends the same through both, and compares.
fn compare(choices: &[Choice], marks: &[u8], joins: Joins, cipher: DataCipher) {
    let (mut plain, mut fast) = (established(cipher), established(cipher));
    let sendings = sendings(plain.v4(A), plain.v6(A), choices);
    let by_kernel = sendings.iter().flat_map(Sending::cut_by_kernel);
    let by_kernel = by_kernel.map(|packet| (VirtioHeader::default(), packet));
    let left = sendings.iter().flat_map(Sending::left_to_device);
    let expected = carried(&mut plain, by_kernel.collect(), marks);
    let delivered = carried(&mut fast, left.collect(), marks);
    assert_eq!(expected, delivered, "cut on the way out");
    assert_same_flows(&expected, &joined_and_cut(joins, &delivered));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn offloads_change_no_packet(
        choices in proptest::collection::vec(any_choice(), 1..24),
        marks in prop_oneof![
            3 => Just(vec![2u8]),
            1 => proptest::collection::vec(0u8..4, 1..9),
        ],
        tcp in prop_oneof![4 => Just(true), 1 => Just(false)],
        udp in prop_oneof![4 => Just(true), 1 => Just(false)],
        is_aes: bool,
    ) {
        let cipher = match is_aes {
            true => DataCipher::Aes256Gcm,
            false => DataCipher::default(),
        };
        compare(&choices, &marks, Joins { tcp, udp }, cipher);
    }
}

/// So much of one connection, as its sender's kernel gives it.
fn bulk(pair: &Pair, is_v4: bool, bytes: usize, size: u16) -> Sending {
    Sending {
        addresses: if is_v4 { pair.v4(A) } else { pair.v6(A) },
        ports: (5, 80),
        look: Look {
            class: 2,
            flow_label: 7,
            hops: 64,
            id: 1,
            dont_fragment: true,
            options: 0,
        },
        tcp: Some(Tcp {
            sequence: 1,
            acknowledgement: 2,
            flags: ACK,
            window: 500,
            urgent: 0,
            options: Vec::new(),
        }),
        data: vec![9; bytes],
        form: Form::Super(size),
    }
}

#[test]
fn what_one_kernel_gives_joined_the_other_gets_joined() {
    const JOINS: Joins = Joins {
        tcp: true,
        udp: true,
    };
    for is_v4 in [true, false] {
        let mut pair = established(DataCipher::default());
        let bulk = bulk(&pair, is_v4, 20_000, 1300);
        let delivered = carried(&mut pair, bulk.left_to_device(), &[2]);
        assert_eq!(delivered, bulk.cut_by_kernel());
        let mut coalescer = Coalescer::new(JOINS, 1 << 16);
        for packet in &delivered {
            coalescer.add(packet.len(), |room| {
                room.copy_from_slice(packet);
                packet.len()
            });
        }
        let mut given = Vec::new();
        coalescer.take_all(|header, parts| given.push((header, parts.concat())));
        assert_eq!(given, bulk.left_to_device());
    }
}

#[test]
fn the_largest_packet_that_there_is_goes_through() {
    // All that IPv4's length field holds, and all that IPv6's does behind a header of 40 bytes.
    for (is_v4, bytes) in [(true, 65535 - 40), (false, 65535 - 20)] {
        let mut pair = established(DataCipher::default());
        let bulk = bulk(&pair, is_v4, bytes, 1300);
        let delivered = carried(&mut pair, bulk.left_to_device(), &[2]);
        assert_eq!(delivered, bulk.cut_by_kernel());
    }
}

#[test]
fn a_super_packet_of_one_byte_segments_goes_through() {
    let mut pair = established(DataCipher::default());
    let bulk = bulk(&pair, true, 500, 1);
    let delivered = carried(&mut pair, bulk.left_to_device(), &[2]);
    assert_eq!(delivered.len(), 500);
    assert_same_flows(
        &bulk.cut_by_kernel(),
        &joined_and_cut(
            Joins {
                tcp: true,
                udp: false,
            },
            &delivered,
        ),
    );
}

#[test]
fn header_len_is_a_hint() {
    // "MUST NOT rely on hdr_len to be correct" (virtio 1.3, 5.1.6.2.2).
    for header_len in [0, 1, 20, 54, 1000, u16::MAX] {
        let mut pair = established(DataCipher::default());
        let bulk = bulk(&pair, true, 3000, 1300);
        let mut given = bulk.left_to_device();
        given[0].0.header_len = header_len;
        assert_eq!(carried(&mut pair, given, &[2]), bulk.cut_by_kernel());
    }
}

#[test]
fn checksums_that_the_kernel_found_right_are_left_as_they_are() {
    const DATA_VALID: u8 = 2; // virtio 1.3, 5.1.6: VIRTIO_NET_HDR_F_DATA_VALID
    let mut pair = established(DataCipher::default());
    let (from, to) = pair.v4(A);
    let packet = packets::tcp(from, to, 5, 80, ACK);
    let header = VirtioHeader {
        flags: DATA_VALID,
        ..VirtioHeader::default()
    };
    let given = vec![(header, packet.clone())];
    assert_eq!(carried(&mut pair, given, &[0]), [packet]);
}
