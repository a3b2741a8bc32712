//! Marks of the outer and the inner header: congestion as RFC 6040 says, classes as RFC 2983's pipe.

mod kernel;
mod pair;

use dataplane::DropReason;
use kernel::{ACK, Form, Look, Sending, Tcp};
use pair::{A, B, Pair};

const NOT_CAPABLE: u8 = 0; // RFC 3168 5
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CONGESTION: u8 = 3;
const SEGMENTS: usize = 3;

/// A super-packet of three, or one packet, of that class of service and with that mark.
fn sending(pair: &Pair, is_v4: bool, class: u8, form: Form) -> Sending {
    Sending {
        addresses: if is_v4 { pair.v4(A) } else { pair.v6(A) },
        ports: (5, 80),
        look: Look {
            class,
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
        data: vec![9; SEGMENTS * 100],
        form,
    }
}

fn established() -> Pair {
    let mut pair = Pair::new();
    let hello = pair.udp(A, 1, 1);
    pair.send(A, &hello);
    pair.delivered(B);
    pair
}

/// Offers it, and returns the marks that its datagrams leave with.
fn offer(pair: &mut Pair, sending: &Sending) -> Vec<u8> {
    for (header, mut packet) in sending.left_to_device() {
        pair.offer_with(A, header, &mut packet);
    }
    pair.network.iter().map(|datagram| datagram.ecn).collect()
}

/// The class of service of a packet, with its mark.
fn class(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        4 => packet[1],
        _ => packet[0] << 4 | packet[1] >> 4,
    }
}

const FORMS: [(Form, usize); 2] = [(Form::Super(100), SEGMENTS), (Form::ChecksumLeft, 1)];

#[test]
fn every_inner_mark_under_every_outer_one_is_as_rfc_6040_says() {
    // RFC 6040 4.2, figure 4: by inner mark, under Not-ECT, ECT(1), ECT(0) and CE.
    let rows = [
        (
            NOT_CAPABLE,
            [
                Some(NOT_CAPABLE),
                Some(NOT_CAPABLE),
                Some(NOT_CAPABLE),
                None,
            ],
        ),
        (
            ECT_1,
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CONGESTION)],
        ),
        (
            ECT_0,
            [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CONGESTION)],
        ),
        (CONGESTION, [Some(CONGESTION); 4]),
    ];
    for (inner, expected) in rows {
        for (outer, expected) in (0..4).zip(expected) {
            for (form, count) in FORMS {
                for is_v4 in [true, false] {
                    let mut pair = established();
                    let sending = sending(&pair, is_v4, 0xb8 | inner, form);
                    // RFC 6040 4.1, normal mode.
                    assert_eq!(offer(&mut pair, &sending), vec![inner; count]);
                    for datagram in &mut pair.network {
                        datagram.ecn = outer;
                    }
                    pair.run();
                    let delivered = pair.delivered(B);
                    let dropped = pair.dropped(B, DropReason::CongestionUnmarkable);
                    let Some(mark) = expected else {
                        assert_eq!((delivered.len(), dropped), (0, count as u64));
                        continue;
                    };
                    let mut marked = sending.clone();
                    marked.look.class = 0xb8 | mark;
                    assert_eq!(delivered, marked.cut_by_kernel(), "{inner} under {outer}");
                }
            }
        }
    }
}

#[test]
fn the_class_of_service_stays_inside_and_comes_out_as_it_went_in() {
    for codepoint in 0..64 {
        for is_v4 in [true, false] {
            let mut pair = established();
            let inner = codepoint << 2 | ECT_0;
            let sending = sending(&pair, is_v4, inner, Form::Super(100));
            assert_eq!(
                offer(&mut pair, &sending),
                [ECT_0; SEGMENTS],
                "no class outside"
            );
            // Whatever a network on the way has made of the rest of the byte.
            for datagram in &mut pair.network {
                datagram.ecn = !inner & 0xfc | ECT_0;
            }
            pair.run();
            let delivered = pair.delivered(B);
            assert_eq!(delivered.len(), SEGMENTS);
            assert!(delivered.iter().all(|packet| class(packet) == inner));
        }
    }
}

#[test]
fn what_is_no_packet_of_the_host_carries_no_mark() {
    // A handshake is not congestion-controlled as a flow is: it says Not-ECT.
    let mut pair = Pair::new();
    let hello = sending(&pair, true, ECT_0, Form::ChecksumLeft);
    assert_eq!(offer(&mut pair, &hello), [NOT_CAPABLE], "the initiation");
    pair.run();
    let marks: Vec<u8> = pair.seen.iter().map(|datagram| datagram.ecn).collect();
    assert_eq!(marks[..2], [NOT_CAPABLE; 2], "and its answer");
}
