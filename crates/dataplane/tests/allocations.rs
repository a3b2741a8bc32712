//! A packet of an established flow costs no allocation, whichever way it goes.

mod pair;

use std::time::Duration;

use dataplane::{Outbox, Path, VirtioHeader};
use pair::{A, B, Pair};

/// Lends the same memory again and again, and forgets what was written before.
struct Room {
    bytes: Vec<u8>,
    length: usize,
}

impl Room {
    fn new() -> Self {
        Self {
            bytes: vec![0; 2048],
            length: 0,
        }
    }
}

impl Outbox for Room {
    fn datagram(&mut self, _: Path, _: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.length = write(&mut self.bytes[..room]);
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.length = write(&mut self.bytes[..room]);
    }
}

#[test]
fn an_established_flow_allocates_nothing() {
    let mut pair = Pair::new();
    let (mut there, mut back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    for _ in 0..3 {
        pair.send(A, &there);
        pair.send(B, &back);
        pair.pass(Duration::from_secs(1));
    }
    let now = pair.now;
    let mut room = Room::new();
    let path = |pair: &Pair, from: usize| Path {
        remote: pair.hosts[from].underlay,
        source: Some(pair.hosts[1 - from].underlay.ip()),
    };
    let (from_a, from_b) = (path(&pair, A), path(&pair, B));
    let [a, b] = &mut pair.hosts;
    let mut datagram = [0; 2048];
    let counted = allocation_counter::measure(|| {
        for _ in 0..1000 {
            a.shard
                .handle_overlay_packet(VirtioHeader::default(), &mut there, now, &mut room);
            datagram[..room.length].copy_from_slice(&room.bytes[..room.length]);
            b.shard
                .handle_datagram(from_a, 0, &mut datagram[..room.length], now, &mut room);
            b.shard
                .handle_overlay_packet(VirtioHeader::default(), &mut back, now, &mut room);
            datagram[..room.length].copy_from_slice(&room.bytes[..room.length]);
            a.shard
                .handle_datagram(from_b, 0, &mut datagram[..room.length], now, &mut room);
        }
    });
    assert_eq!(a.counters.delivered().0, 1003);
    assert_eq!(b.counters.delivered().0, 1003);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!(counted.count_total, 1);
}
