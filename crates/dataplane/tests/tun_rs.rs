//! Our cutting and joining beside that of `tun-rs`, which does as wireguard-go does. They are the
//! same where packets follow each other as senders make them. Where they differ, each case says what
//! Linux does, and that ours gives back what came in.

mod kernel;
mod pair;

use std::net::IpAddr;

use dataplane::{Coalescer, Joins, VirtioHeader};
use kernel::cut::cut;
use kernel::generate::{PAYLOAD_MAX, any_choice, sendings};
use kernel::{ACK, Form, Look, PSH, Sending, Tcp};
use pair::{A, B, Pair};
use proptest::prelude::*;
use tun_rs::{GROTable, VIRTIO_NET_HDR_LEN, VirtioNetHdr, gso_split};

const ALL: Joins = Joins {
    tcp: true,
    udp: true,
};
/// More than any packet here stands for.
const SEGMENTS_MAX: usize = 1000;
/// What no header starts with.
const UNTOUCHED: u8 = 0xff;

/// What a device is given, or gives.
type Given = Vec<(VirtioHeader, Vec<u8>)>;

fn cut_by_tun_rs(header: VirtioHeader, packet: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    let theirs = VirtioNetHdr {
        flags: header.flags,
        gso_type: header.gso_type,
        hdr_len: header.header_len,
        gso_size: header.gso_size,
        csum_start: header.csum_start,
        csum_offset: header.csum_offset,
    };
    let is_v6 = packet[0] >> 4 == 6;
    let mut segments = vec![vec![0; 200 + usize::from(PAYLOAD_MAX)]; SEGMENTS_MAX];
    let mut sizes = vec![0; SEGMENTS_MAX];
    let mut packet = packet.to_vec();
    let count = gso_split(&mut packet, theirs, &mut segments, &mut sizes, 0, is_v6)?;
    let sizes = sizes.into_iter().take(count);
    let cut = segments.into_iter().zip(sizes).map(|(mut segment, size)| {
        segment.truncate(size);
        segment
    });
    Ok(cut.collect())
}

/// What a shard makes of it, as the other host opens it.
fn cut_by_us(header: VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut pair = Pair::new();
    let hello = pair.udp(A, 1, 1);
    pair.send(A, &hello);
    pair.delivered(B);
    pair.offer_with(A, header, &mut packet.to_vec());
    pair.run();
    pair.delivered(B)
}

fn joined_by_tun_rs(packets: &[Vec<u8>]) -> Given {
    let memory = packets.iter().map(|packet| {
        let mut bytes = Vec::with_capacity(1 << 17);
        bytes.extend_from_slice(&[UNTOUCHED; VIRTIO_NET_HDR_LEN]);
        bytes.extend_from_slice(packet);
        bytes
    });
    let mut memory: Vec<Vec<u8>> = memory.collect();
    GROTable::new()
        .apply_gro(&mut memory, VIRTIO_NET_HDR_LEN, true)
        .expect("the packets are good");
    // It writes headers only where something is to be given to the device.
    let given = memory.iter().filter(|bytes| bytes[0] != UNTOUCHED);
    given
        .map(|bytes| {
            let (header, packet) = bytes.split_first_chunk().expect("longer than a header");
            (VirtioHeader::decode(*header), packet.to_vec())
        })
        .collect()
}

fn joined_by_us(packets: &[Vec<u8>]) -> Given {
    let mut coalescer = Coalescer::new(ALL, 1 << 20);
    for packet in packets {
        coalescer.add(packet.len(), |room| {
            room.copy_from_slice(packet);
            packet.len()
        });
    }
    let mut given = Vec::new();
    coalescer.take_all(|header, parts| given.push((header, parts.concat())));
    given
}

/// One segment or datagram, the flow's `number`th byte first.
fn sending(flow: u8, number: u32, data: usize) -> Sending {
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let v4 = (address("10.0.0.1"), address("10.0.0.2"));
    let v6 = (address("fd00::1"), address("fd00::2"));
    let (is_v4, is_tcp) = (flow & 1 == 0, flow & 2 == 0);
    Sending {
        addresses: if is_v4 { v4 } else { v6 },
        ports: (u16::from(flow), 80),
        look: Look {
            class: 2,
            flow_label: 5,
            hops: 64,
            id: 9,
            dont_fragment: true,
            options: 0,
        },
        tcp: is_tcp.then(|| Tcp {
            sequence: 0xffff_ff00_u32.wrapping_add(number),
            acknowledgement: 1,
            flags: ACK,
            window: 500,
            urgent: 0,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        }),
        data: vec![7; data],
        form: Form::Whole,
    }
}

fn packet(sending: &Sending) -> Vec<u8> {
    sending.cut_by_kernel().remove(0)
}

proptest! {
    #[test]
    fn both_cut_alike(choices in proptest::collection::vec(any_choice(), 1..12)) {
        let pair = Pair::new();
        for sending in sendings(pair.v4(A), pair.v6(A), &choices) {
            if let Form::Super(_) = sending.form {
                let (header, packet) = sending.left_to_device().remove(0);
                let theirs = cut_by_tun_rs(header, &packet).expect("the header is right");
                prop_assert_eq!(&theirs, &sending.cut_by_kernel());
                prop_assert_eq!(cut_by_us(header, &packet), theirs);
            }
        }
    }

    #[test]
    fn both_join_alike(
        steps in proptest::collection::vec(
            (
                0u8..8,
                prop_oneof![4 => Just(100usize), 1 => Just(50), 1 => Just(150)],
                prop_oneof![8 => Just(ACK), 1 => Just(ACK | PSH)],
                prop_oneof![8 => Just(Form::Whole), 1 => Just(Form::Damaged)],
            ),
            1..60,
        )
    ) {
        let mut next = [0; 8];
        let packets: Vec<_> = steps
            .into_iter()
            .map(|(flow, data, flags, form)| {
                let number = &mut next[usize::from(flow)];
                let mut sending = Sending { form, ..sending(flow, *number, data) };
                if let Some(tcp) = &mut sending.tcp {
                    tcp.flags = flags;
                }
                *number += data as u32;
                packet(&sending)
            })
            .collect();
        prop_assert_eq!(joined_by_us(&packets), joined_by_tun_rs(&packets));
    }
}

/// Packets of one flow that `tun-rs` gives as so many, and we as they are, in their order.
fn assert_only_theirs_joins(what: &str, theirs: usize, packets: &[Vec<u8>]) {
    assert_eq!(joined_by_tun_rs(packets).len(), theirs, "{what}");
    let ours: Vec<_> = joined_by_us(packets)
        .into_iter()
        .flat_map(|(header, packet)| cut(header, &packet))
        .collect();
    assert_eq!(ours, packets, "{what}");
}

#[test]
fn what_linux_leaves_apart_we_do_too() {
    let (v4, v6, udp) = (0, 1, 2);
    let pair_of = |flow: u8, change: &dyn Fn(&mut Sending)| {
        let mut second = sending(flow, 100, 100);
        change(&mut second);
        [packet(&sending(flow, 0, 100)), packet(&second)]
    };
    // ipv6_gro_receive: another flow label is another flow.
    let label = pair_of(v6, &|second| second.look.flow_label = 6);
    assert_only_theirs_joins("flow label", 1, &label);
    // tcp_gro_receive: the flag word that must be equal holds the window.
    let window = pair_of(v4, &|second| {
        second.tcp.as_mut().unwrap().window = 501;
    });
    assert_only_theirs_joins("window", 1, &window);
    // inet_gro_receive: what may be fragmented on the way needs its own identification.
    let mut fragmentable = pair_of(v4, &|second| second.look.id = 77);
    for packet in &mut fragmentable {
        packet[6] = 0;
        mend_ip(packet);
    }
    assert_only_theirs_joins("identification", 1, &fragmentable);
    // inet_gro_receive: a header whose checksum is wrong is not for GRO, which would put it right.
    let mut damaged = pair_of(v4, &|_| {});
    damaged[1][10] ^= 1;
    assert_only_theirs_joins("IP checksum", 1, &damaged);
    // udp_gro_receive: the length that UDP itself tells must be the one that IP tells.
    let mut shorter = pair_of(udp, &|_| {});
    shorter[1][25] -= 4;
    mend_udp(&mut shorter[1]);
    assert_only_theirs_joins("UDP length", 1, &shorter);
}

fn mend_ip(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !kernel::sum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Puts the checksum right that covers all that IP says is there.
fn mend_udp(packet: &mut [u8]) {
    packet[26..28].fill(0);
    let upper_len = ((packet.len() - 20) as u16).to_be_bytes();
    let pseudo = [&packet[12..20], &[0, 17], &upper_len].concat();
    let checksum = !kernel::sum(&packet[20..], kernel::sum(&pseudo, 0));
    packet[26..28].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn no_packet_overtakes_another_of_its_flow() {
    let of = |number, data| packet(&sending(0, number, data));
    // Linux gives what it has joined before what ends it (dev_gro_receive: `same_flow` and `flush`).
    let acknowledged = [of(0, 100), of(100, 0), of(100, 100)];
    assert_only_theirs_joins("a bare acknowledgement between", 2, &acknowledged);
    // tcp_gro_receive joins only at the end; what came late stays late.
    let late = [of(100, 100), of(0, 100)];
    assert_only_theirs_joins("the second first", 1, &late);
}

#[test]
fn a_super_packet_without_payload_is_not_lost() {
    // Linux: a packet that is not longer than its segments is one (virtio_net_hdr_to_skb).
    let empty = Sending {
        form: Form::Super(100),
        ..sending(0, 0, 0)
    };
    let pair = Pair::new();
    let empty = Sending {
        addresses: pair.v4(A),
        ..empty
    };
    let (header, given) = empty.left_to_device().remove(0);
    assert!(cut_by_tun_rs(header, &given).unwrap().is_empty());
    assert_eq!(cut_by_us(header, &given), empty.cut_by_kernel());
}

#[test]
fn the_length_of_the_headers_is_read_from_them() {
    // virtio 1.3, 5.1.6.2.2: without VIRTIO_NET_F_GUEST_HDRLEN nobody may rely on `hdr_len`.
    let pair = Pair::new();
    let sending = Sending {
        addresses: pair.v4(A),
        form: Form::Super(100),
        ..sending(0, 0, 250)
    };
    let (mut header, given) = sending.left_to_device().remove(0);
    header.header_len = 40;
    assert_ne!(
        cut_by_tun_rs(header, &given).unwrap(),
        sending.cut_by_kernel()
    );
    assert_eq!(cut_by_us(header, &given), sending.cut_by_kernel());
}
