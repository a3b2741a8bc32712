//! Storms of handshakes: what they may take of a host, and who is served all the same.

mod pair;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dataplane::{DropReason, Limits, Outbox, Path, ShardConfig};
use model::rule::Traffic;
use pair::stranger::Stranger;
use pair::{A, B, Pair, bundle, public, rule};

/// Writes nothing down, so that only what the shard keeps is measured.
struct Nowhere([u8; 2048]);

impl Outbox for Nowhere {
    fn datagram(&mut self, _: Path, _: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        write(&mut self.0[..room]);
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        write(&mut self.0[..room]);
    }
}

fn pair_with(limits: Limits) -> Pair {
    let mut pair = Pair::strangers(ShardConfig {
        limits,
        ..ShardConfig::default()
    });
    for host in [A, B] {
        pair.introduce(host);
        let remote = pair.hosts[1 - host].underlay;
        pair.set_path(host, remote);
    }
    pair.set_bundle(&bundle(vec![rule("all", Traffic::All)], Vec::new()));
    pair
}

fn talk(pair: &mut Pair) {
    for from in [A, B] {
        let packet = pair.udp(from, 1 + from as u16, 2 - from as u16);
        pair.send(from, &packet);
        assert_eq!(pair.delivered(1 - from), [packet]);
    }
}

/// An address of its own for each number.
fn source(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number).into(), 1024)
}

/// The host gets datagrams while nobody runs its handshake jobs; returns the bytes it took at most.
fn receives_without_jobs(
    pair: &mut Pair,
    host: usize,
    datagrams: impl Iterator<Item = (SocketAddr, [u8; 148])>,
) -> u64 {
    let now = pair.now;
    let mut nowhere = Nowhere([0; 2048]);
    let shard = &mut pair.hosts[host].shard;
    let taken = allocation_counter::measure(|| {
        for (remote, mut datagram) in datagrams {
            let from = Path {
                remote,
                source: None,
            };
            shard.handle_datagram(from, 0, &mut datagram, now, &mut nowhere);
        }
    });
    taken.bytes_max
}

#[test]
fn a_flood_from_everywhere_takes_bounded_memory() {
    const FLOOD: u32 = 50_000;
    let mut pair = pair_with(Limits::default());
    talk(&mut pair);
    let before = pair.hosts[B].counters.queued();
    let victim = public(pair.hosts[B].private);
    let time = pair.now.monotonic.since_start();
    let initiation = Stranger::new(1, victim).initiation(time);
    let flood = (0..FLOOD).map(|number| (source(number), initiation));
    let bytes = receives_without_jobs(&mut pair, B, flood);
    let jobs = pair.hosts[B].counters.queued() - before;
    let limits = Limits::default();
    assert!(jobs <= limits.handshake_jobs_loaded as u64, "{jobs}");
    assert_eq!(
        pair.dropped(B, DropReason::HandshakeNeedsCookie),
        u64::from(FLOOD) - jobs
    );
    assert!(bytes < 256 << 10, "{bytes} bytes for {FLOOD} initiations");
}

#[test]
fn strangers_with_addresses_of_their_own_cannot_take_the_room_of_our_handshakes() {
    let limits = Limits {
        handshakes_per_sec_loaded: 0,
        handshake_jobs: 40,
        handshake_jobs_reserved: 8,
        ..Limits::default()
    };
    let mut pair = pair_with(limits);
    let victim = public(pair.hosts[B].private);
    let time = pair.now.monotonic.since_start();
    let mut strangers: Vec<Stranger> = (0..100).map(|it| Stranger::new(it, victim)).collect();
    for (number, stranger) in (0..).zip(&mut strangers) {
        let first = stranger.initiation(time);
        pair.receive(B, source(number), 0, &first);
        let reply = pair.network.pop_back().expect("under load, a cookie");
        stranger.take_cookie(&reply.bytes, time);
    }
    let proven: Vec<_> = (0..)
        .zip(&mut strangers)
        .map(|(number, stranger)| (source(number), stranger.initiation(time)))
        .collect();
    receives_without_jobs(&mut pair, B, proven.into_iter());
    assert_eq!(pair.hosts[B].counters.queued(), 32, "the rest is reserved");
    assert_eq!(pair.dropped(B, DropReason::HandshakeOverload), 68);
    let packet = pair.udp(B, 1, 2);
    let (now, mut offered) = (pair.now, packet.clone());
    let mut nowhere = Nowhere([0; 2048]);
    pair.hosts[B].shard.handle_overlay_packet(
        dataplane::VirtioHeader::default(),
        &mut offered,
        now,
        &mut nowhere,
    );
    assert_eq!(pair.hosts[B].counters.handshakes_started(), 1);
}

#[test]
fn a_cookie_of_one_shard_is_good_at_the_others() {
    for (other_seed, is_good) in [([9; 32], true), ([10; 32], false)] {
        let limits = Limits {
            handshakes_per_sec_loaded: 0,
            ..Limits::default()
        };
        let mut pair = pair_with(limits);
        let config = ShardConfig {
            limits,
            ..ShardConfig::default()
        };
        let victim = public(pair.hosts[B].private);
        let time = pair.now.monotonic.since_start();
        let mut stranger = Stranger::new(1, victim);
        for (number, seed) in [(0, [9; 32]), (1, other_seed)] {
            let counters = pair.hosts[B].counters.clone();
            let shard = dataplane::Shard::new(config, [number; 32], pair.now, counters);
            pair.hosts[B].shard = shard.with_cookie_seed(seed);
            pair.introduce(B);
            pair.network.clear();
            let initiation = stranger.initiation(time);
            if number == 1 {
                receives_without_jobs(&mut pair, B, [(source(1), initiation)].into_iter());
                assert_eq!(pair.hosts[B].counters.queued() == 1, is_good);
                continue;
            }
            pair.receive(B, source(1), 0, &initiation);
            let reply = pair.network.pop_back().expect("under load, a cookie");
            stranger.take_cookie(&reply.bytes, time);
        }
    }
}

#[test]
fn one_address_has_its_share_and_no_more() {
    let limits = Limits {
        handshakes_per_sec_loaded: 0,
        ..Limits::default()
    };
    let mut pair = pair_with(limits);
    let victim = public(pair.hosts[B].private);
    let time = pair.now.monotonic.since_start();
    let mut stranger = Stranger::new(1, victim);
    let first = stranger.initiation(time);
    pair.receive(B, source(1), 0, &first);
    let reply = pair.network.pop_back().expect("under load, a cookie");
    stranger.take_cookie(&reply.bytes, time);
    let proven = stranger.initiation(time);
    for _ in 0..200 {
        pair.receive(B, source(1), 0, &proven);
    }
    assert_eq!(pair.dropped(B, DropReason::HandshakeUnknownKey), 20);
    assert_eq!(pair.dropped(B, DropReason::HandshakeOverload), 180);
}

#[test]
fn peers_talk_through_a_flood_and_renew_their_sessions_in_it() {
    // The limits are small so that the test is: what counts is that the flood is far above them.
    let limits = Limits {
        handshakes_per_sec_loaded: 5,
        ..Limits::default()
    };
    let mut pair = pair_with(limits);
    talk(&mut pair);
    let victims = [A, B].map(|host| public(pair.hosts[host].private));
    let first = [A, B].map(|host| pair.hosts[host].counters.handshakes_completed());
    for second in 0..400 {
        pair.pass(Duration::from_secs(1));
        let time = pair.now.monotonic.since_start();
        for host in [A, B] {
            let flood = Stranger::new(second, victims[host]).initiation(time);
            for number in 0..50 {
                pair.receive(host, source(second * 50 + number), 0, &flood);
            }
            // Nobody is at these addresses to take the cookies.
            pair.network.clear();
        }
        talk(&mut pair);
    }
    for host in [A, B] {
        let renewed = pair.hosts[host].counters.handshakes_completed() - first[host];
        assert!(renewed >= 2, "{renewed}");
        assert!(pair.dropped(host, DropReason::HandshakeNeedsCookie) > 15_000);
    }
}

#[test]
fn a_peer_without_a_session_gets_in_through_a_flood() {
    let limits = Limits {
        handshakes_per_sec_loaded: 5,
        ..Limits::default()
    };
    let mut pair = pair_with(limits);
    let victim = public(pair.hosts[B].private);
    let packet = pair.udp(A, 1, 2);
    let mut waited = 0;
    while pair.delivered(B).is_empty() {
        let time = pair.now.monotonic.since_start();
        let flood = Stranger::new(waited, victim).initiation(time);
        for number in 0..50 {
            pair.receive(B, source(number), 0, &flood);
        }
        pair.network.clear();
        if waited == 0 {
            pair.send(A, &packet);
        }
        pair.pass(Duration::from_secs(1));
        waited += 1;
        assert!(waited < 12, "two retries are enough");
    }
    assert!(pair.dropped(B, DropReason::HandshakeNeedsCookie) > 0);
}

#[test]
fn a_handshake_that_found_no_room_is_not_counted_as_unanswered() {
    let mut pair = pair_with(Limits {
        handshake_jobs: 1,
        handshake_jobs_reserved: 0,
        ..Limits::default()
    });
    pair.set_path(A, "192.0.2.99:9".parse().unwrap());
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    // The job of the second one stays out, and those after it find no room.
    let end = pair.now.monotonic + Duration::from_secs(30);
    while let Some((at, _)) = pair.hosts[A].shard.poll_timeout().filter(|it| it.0 <= end) {
        pair.now.monotonic = at;
        let now = pair.now;
        pair.hosts[A].with(|shard, wire| shard.handle_timeout(now, wire));
    }
    let counters = &pair.hosts[A].counters;
    let (begun, unanswered) = (
        counters.handshakes_started(),
        counters.handshakes_unanswered(),
    );
    assert_eq!((begun, unanswered), (2, 1));
}
