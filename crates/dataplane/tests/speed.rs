//! What peers, first packets and floods cost a shard. It prints figures and judges none of them:
//! whoever runs it knows the machine.
//! `cargo test -p dataplane --test speed -- --ignored --nocapture`

#![allow(clippy::disallowed_methods)] // measuring needs a clock
#![allow(clippy::print_stdout)] // figures are for people

mod pair;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::{Command, Path, PeerKind, Shard, VirtioHeader};
use model::address::HostAddresses;
use model::ids::PolicyVersion;
use model::map::PeerIndex;
use model::rule::{Bundle, Rule, Selector};
use pair::packets::{self, SYN};
use pair::stranger::Stranger;
use pair::{A, B, PEER, Pair, Wire, bundle, public, record, rule, tcp_port};
use policy::Table;
use wireguard::{
    DataCipher, Initiation, KeyPair, PresharedKey, PrivateKey, PublicKey, Timestamp, Tunnel,
    TunnelConfig, consume_initiation, sealed_len,
};

#[test]
#[ignore = "long: measures"]
fn memory_of_idle_peers() {
    for count in [1_000, 10_000] {
        let mut pair = Pair::strangers(Default::default());
        let commands = vec![pair.identity(A, Default::default())];
        pair.command(A, commands);
        let known = allocation_counter::measure(|| {
            pair.command(A, introductions(count));
        });
        let talked = allocation_counter::measure(|| {
            for number in 0..count {
                shake_hands(&mut pair, number);
            }
        });
        let each = |bytes: i64| bytes / i64::from(count);
        println!(
            "{count:>6} peers: {} bytes each, {} more with a session",
            each(known.bytes_current),
            each(talked.bytes_current)
        );
        let start = Instant::now();
        pair.pass(Duration::from_secs(600));
        println!("{:>13} ten idle minutes took {:?}", "", start.elapsed());
    }
}

fn private(number: u32) -> [u8; 32] {
    let mut private = [0x11; 32];
    private[..4].copy_from_slice(&number.to_be_bytes());
    private
}

fn overlay(number: u32) -> HostAddresses {
    HostAddresses {
        v4: Ipv4Addr::from(0x6440_1000 + number),
        v6: Ipv6Addr::from(0xfd00_0000_0000_0000_0000_0000_0001_0000 + u128::from(number)),
    }
}

fn underlay(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + number).into(), 51820)
}

fn introductions(count: u32) -> Vec<Command> {
    let introduce = |number: u32| {
        let index = PeerIndex(number);
        let path = Path {
            remote: underlay(number),
            source: None,
        };
        let peer = Command::SetPeer {
            index,
            kind: PeerKind::Mesh,
            key: public(private(number)),
            addresses: overlay(number),
            preshared: None,
            keepalive: None,
            cipher: DataCipher::default(),
        };
        [peer, Command::SetPath { index, path }]
    };
    (0..count).flat_map(introduce).collect()
}

/// A peer begins a session with A, and says no more.
fn shake_hands(pair: &mut Pair, number: u32) {
    let time = pair.now.monotonic.since_start();
    let keys = KeyPair::new(&PrivateKey::from_bytes(private(number)));
    let mut tunnel = Tunnel::new(
        TunnelConfig {
            peer: PublicKey::from_bytes(*public(pair.hosts[A].private).as_bytes()),
            preshared_key: PresharedKey::default(),
            persistent_keepalive: None,
            cipher: DataCipher::default(),
            jitter_seed: 0,
        },
        time,
    );
    tunnel.request_handshake(time);
    let date = Timestamp::from_unix(pair.now.unix.since_epoch());
    let job = tunnel.begin_initiation(PrivateKey::from_bytes([5; 32]), 7, date);
    let created = job.run(&keys).expect("A has a real key");
    let initiation = tunnel.install_initiation(created, time).expect("asked for");
    // No more handshakes in a second than go without cookies.
    pair.pass(Duration::from_millis(10));
    pair.receive(A, underlay(number), 0, &initiation);
    let response = pair.network.pop_back().expect("A answers");
    let response = wireguard::Response::parse(&response.bytes).expect("with a response");
    let job = tunnel.begin_completion(response).expect("to this");
    let session = job.run(&keys).expect("made with our keys");
    tunnel.install_session(session, time).expect("asked for");
    let mut datagram = vec![0; sealed_len(0, 1420)];
    tunnel
        .seal_into(&[], 1420, &mut datagram, time)
        .expect("there is a session");
    pair.receive(A, underlay(number), 0, &datagram);
    pair.events(A);
}

/// Half concern this pair, at ports of their own; half concern nobody here.
fn ten_thousand_rules() -> Bundle {
    let numbered = |number: u16| -> Rule {
        let rule = rule(&format!("r{number}"), tcp_port(1 + number));
        if number.is_multiple_of(2) {
            return rule;
        }
        let nobody = "role=nobody".parse().expect("a label");
        Rule {
            to: vec![Selector::Labels(vec![nobody])],
            ..rule
        }
    };
    bundle((0..10_000).map(numbered).collect(), Vec::new())
}

#[test]
#[ignore = "long: measures"]
fn first_packets_with_ten_thousand_rules() {
    const PACKETS: u32 = 60_000;
    let mut pair = Pair::new();
    let (from, to) = pair.v4(A);
    pair.send(A, &packets::udp(from, to, 1, 2, b"?"));
    let bundle = ten_thousand_rules();
    let (me, other) = (record(&pair.hosts[A]), record(&pair.hosts[B]));
    let start = Instant::now();
    let table = Table::compile(&me, &[(PEER, &other)], &bundle, PolicyVersion(9), 9);
    println!("{:>30} {:?}", "compile", start.elapsed());
    pair.command(A, vec![Command::SetTable(Arc::new(table))]);
    let first = |number: u32| {
        let source_port = 1024 + number as u16;
        packets::tcp(from, to, source_port, 1 + (number % 5_000) as u16 * 2, SYN)
    };
    let fresh: Vec<Vec<u8>> = (0..PACKETS).map(first).collect();
    let again = vec![fresh[0].clone(); PACKETS as usize];
    let of_new_flows = each(&mut pair, fresh);
    let of_a_known_one = each(&mut pair, again);
    println!("{:>30} {of_new_flows:?}", "first packet, in all");
    println!("{:>30} {of_a_known_one:?}", "packet of a known flow");
    println!(
        "{:>30} {:?}",
        "so deciding and remembering",
        of_new_flows.saturating_sub(of_a_known_one)
    );
}

/// Time for a packet of A.
fn each(pair: &mut Pair, packets: Vec<Vec<u8>>) -> Duration {
    let (now, count) = (pair.now, packets.len() as u32);
    let host = &mut pair.hosts[A];
    let sent = host.counters.sent().0;
    let start = Instant::now();
    for mut packet in packets {
        host.with(|shard, wire| {
            shard.handle_overlay_packet(VirtioHeader::default(), &mut packet, now, wire);
        });
        host.wire.datagrams.clear();
    }
    let took = start.elapsed();
    assert_eq!(host.counters.sent().0 - sent, u64::from(count));
    took / count
}

#[test]
#[ignore = "long: measures"]
fn throughput_in_a_flood_of_initiations() {
    const PACKETS: u32 = 200_000;
    let mut pair = Pair::new();
    let (from, to) = pair.v4(A);
    let packet = packets::udp(from, to, 1, 2, &[0; 1300]);
    pair.send(A, &packet);
    let alone = each(&mut pair, vec![packet; PACKETS as usize]);
    let time = pair.now.monotonic.since_start();
    let initiation = Stranger::new(1, public(pair.hosts[A].private)).initiation(time);
    let begun = flood(&mut pair, initiation);
    println!("{:>30} {alone:?}", "a sealed packet of 1300 bytes");
    println!("{:>30} {begun:?}", "an initiation under load");
    println!(
        "{:>30} {:?}",
        "the work that it asked for",
        consuming(&pair, initiation)
    );
    for rate in [1_000, 10_000, 100_000] {
        let left = 1.0 - begun.as_secs_f64() * f64::from(rate);
        println!(
            "{rate:>24} a second {:>5.1} % of the throughput is left",
            left * 100.0
        );
    }
}

fn flood(pair: &mut Pair, initiation: [u8; Initiation::LEN]) -> Duration {
    const INITIATIONS: u32 = 100_000;
    let now = pair.now;
    let mut wire = Wire::default();
    let shard: &mut Shard = &mut pair.hosts[A].shard;
    let start = Instant::now();
    for number in 0..INITIATIONS {
        let from = Path {
            remote: underlay(number),
            source: None,
        };
        let mut datagram = initiation;
        shard.handle_datagram(from, 0, &mut datagram, now, &mut wire);
        wire.datagrams.clear();
    }
    start.elapsed() / INITIATIONS
}

fn consuming(pair: &Pair, initiation: [u8; Initiation::LEN]) -> Duration {
    const TIMES: u32 = 1_000;
    let keys = KeyPair::new(&PrivateKey::from_bytes(pair.hosts[A].private));
    let message = Initiation::parse(&initiation).expect("an initiation");
    let start = Instant::now();
    for _ in 0..TIMES {
        consume_initiation(&keys, &message, &[DataCipher::default()]).expect("for this key");
    }
    start.elapsed() / TIMES
}
