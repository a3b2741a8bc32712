//! A packet of an established flow costs no allocation: whichever way it goes, alone or in a
//! super-packet, with either cipher, whoever else sends.

mod kernel;
mod pair;

use std::ops::Range;
use std::time::Duration;

use dataplane::{Coalescer, Command, DataCipher, Joins, Outbox, Path, Shard, VirtioHeader};
use kernel::{ACK, Form, Look, Sending, Tcp};
use model::time::Now;
use pair::team::Teams;
use pair::{A, B, Pair};

const ROUNDS: usize = 100;
const CIPHERS: [DataCipher; 2] = [DataCipher::ChaCha20Poly1305, DataCipher::Aes256Gcm];

/// Memory for a burst, lent again and again, as a packet thread's is.
struct Burst {
    memory: Box<[u8]>,
    filled: usize,
    datagrams: Vec<Range<usize>>,
    packets: Coalescer,
    /// Packets for the kernel, each of which may stand for several.
    given: usize,
}

impl Burst {
    fn new() -> Self {
        let joins = Joins {
            tcp: true,
            udp: true,
        };
        Self {
            memory: vec![0; 1 << 18].into_boxed_slice(),
            filled: 0,
            datagrams: Vec::new(),
            packets: Coalescer::new(joins, 1 << 18),
            given: 0,
        }
    }

    /// Brings what was sent to a shard, and gives its kernel what comes out there.
    fn carry(&mut self, from: Path, to: &mut Shard, now: Now, out: &mut Self) {
        for datagram in self.datagrams.drain(..) {
            to.handle_datagram(from, 0, &mut self.memory[datagram], now, out);
        }
        self.filled = 0;
        let given = &mut out.given;
        out.packets.take_all(|_, _| *given += 1);
    }
}

impl Outbox for Burst {
    fn datagram(&mut self, _: Path, _: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.filled;
        let length = write(&mut self.memory[start..start + room]);
        if length > 0 {
            self.filled += length;
            self.datagrams.push(start..self.filled);
        }
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.packets.add(room, write);
    }
}

/// What a host's kernel gives, as it reads it anew each time.
struct Source {
    header: VirtioHeader,
    packet: Vec<u8>,
    memory: Vec<u8>,
}

impl Source {
    fn new(header: VirtioHeader, packet: Vec<u8>) -> Self {
        Self {
            header,
            memory: packet.clone(),
            packet,
        }
    }

    fn give(&mut self, to: &mut Shard, now: Now, out: &mut Burst) {
        self.memory.copy_from_slice(&self.packet);
        to.handle_overlay_packet(self.header, &mut self.memory, now, out);
    }
}

/// A pair with flows, both ways, on sessions of that cipher.
fn established(cipher: DataCipher) -> Pair {
    let mut pair = Pair::new();
    for host in [A, B] {
        let mut introduction = pair.peer(host);
        if let Command::SetPeer { cipher: chosen, .. } = &mut introduction {
            *chosen = cipher;
        }
        pair.command(host, vec![introduction]);
    }
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    for _ in 0..3 {
        pair.send(A, &there);
        pair.send(B, &back);
        pair.pass(Duration::from_secs(1));
    }
    pair
}

/// Has both send to each other; returns how many allocations that took once it had gone well once.
fn allocations(pair: &mut Pair, there: &mut Source, back: &mut Source) -> u64 {
    let now = pair.now;
    let from = [A, B].map(|host| Path {
        remote: pair.hosts[host].underlay,
        source: Some(pair.hosts[1 - host].underlay.ip()),
    });
    let [a, b] = &mut pair.hosts;
    let (mut of_a, mut of_b) = (Burst::new(), Burst::new());
    let mut once = || {
        there.give(&mut a.shard, now, &mut of_a);
        of_a.carry(from[A], &mut b.shard, now, &mut of_b);
        back.give(&mut b.shard, now, &mut of_b);
        of_b.carry(from[B], &mut a.shard, now, &mut of_a);
    };
    once();
    let counted = allocation_counter::measure(|| (0..ROUNDS).for_each(|_| once()));
    assert_eq!((of_a.given, of_b.given), (ROUNDS + 1, ROUNDS + 1));
    counted.count_total
}

#[test]
fn an_established_flow_allocates_nothing() {
    for cipher in CIPHERS {
        let mut pair = established(cipher);
        let plain = |packet| Source::new(VirtioHeader::default(), packet);
        let (mut there, mut back) = (plain(pair.udp(A, 1, 2)), plain(pair.udp(B, 2, 1)));
        assert_eq!(
            allocations(&mut pair, &mut there, &mut back),
            0,
            "{cipher:?}"
        );
    }
}

/// What one kernel leaves to the device at once: forty segments, or one whose checksum is left.
fn bulk(pair: &Pair, from: usize, is_v4: bool, is_tcp: bool, form: Form) -> Source {
    let segments = if matches!(form, Form::Super(_)) {
        40
    } else {
        1
    };
    let (source, destination) = if from == A { (5, 80) } else { (80, 5) };
    let sending = Sending {
        addresses: if is_v4 { pair.v4(from) } else { pair.v6(from) },
        ports: (source, destination),
        look: Look {
            class: 2,
            flow_label: 7,
            hops: 64,
            id: 1,
            dont_fragment: true,
            options: 0,
        },
        tcp: is_tcp.then(|| Tcp {
            sequence: 1,
            acknowledgement: 2,
            flags: ACK,
            window: 500,
            urgent: 0,
            options: Vec::new(),
        }),
        data: vec![9; segments * 1300],
        form,
    };
    let (header, packet) = sending.left_to_device().remove(0);
    Source::new(header, packet)
}

#[test]
fn super_packets_and_what_is_joined_of_them_allocate_nothing() {
    for cipher in CIPHERS {
        for (is_v4, is_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
            for form in [Form::Super(1300), Form::ChecksumLeft] {
                let mut pair = established(cipher);
                let mut there = bulk(&pair, A, is_v4, is_tcp, form);
                let mut back = bulk(&pair, B, is_v4, is_tcp, form);
                let counted = allocations(&mut pair, &mut there, &mut back);
                assert_eq!(counted, 0, "{cipher:?} v4 {is_v4} TCP {is_tcp} {form:?}");
            }
        }
    }
}

#[test]
fn several_peers_by_turns_allocate_nothing() {
    const PEERS: usize = 5;
    let mut teams = Teams::new(&[1; 1 + PEERS]);
    let mut there: Vec<_> = (1..=PEERS)
        .map(|peer| {
            let packet = teams.udp(0, peer, (1, 2), b"hello");
            // A handshake, then a packet back, so that both know of the session.
            teams.send(0, &packet);
            teams.send(peer, &teams.udp(peer, 0, (2, 1), b"hello"));
            Source::new(VirtioHeader::default(), packet)
        })
        .collect();
    let now = teams.now;
    let from = Path {
        remote: teams.hosts[0].underlay(),
        source: None,
    };
    let (hub, peers) = teams.hosts.split_first_mut().expect("there is a first");
    let hub = &mut hub.shards[0].0;
    let (mut sent, mut arrived) = (Burst::new(), Burst::new());
    let mut once = || {
        for (source, peer) in there.iter_mut().zip(&mut *peers) {
            source.give(hub, now, &mut sent);
            sent.carry(from, &mut peer.shards[0].0, now, &mut arrived);
        }
    };
    once();
    let counted = allocation_counter::measure(|| (0..ROUNDS).for_each(|_| once()));
    assert_eq!(arrived.given, PEERS * (ROUNDS + 1));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!(counted.count_total, 1);
}
