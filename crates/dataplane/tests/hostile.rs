//! What the network may send: replays, damage, lies, floods, and noise.

mod pair;

use std::net::IpAddr;
use std::time::Duration;

use dataplane::{DropReason, Event, Limits, Path, ShardConfig};
use model::rule::Traffic;
use pair::packets;
use pair::rogue::Rogue;
use pair::{A, B, Datagram, Pair, bundle, rule, udp_port};
use proptest::prelude::*;

/// A pair with a session, and a sealed packet from A to B that is still on the wire.
fn with_datagram() -> (Pair, Datagram) {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    pair.delivered(B);
    pair.offer(A, &packet);
    let datagram = pair.network.pop_front().expect("a session seals at once");
    (pair, datagram)
}

fn deliver(pair: &mut Pair, datagram: &Datagram) {
    pair.receive(B, datagram.from, 0, &datagram.bytes);
}

#[test]
fn a_replayed_datagram_is_dropped() {
    let (mut pair, datagram) = with_datagram();
    deliver(&mut pair, &datagram);
    assert_eq!(pair.delivered(B).len(), 1);
    deliver(&mut pair, &datagram);
    assert_eq!(pair.dropped(B, DropReason::Replayed), 1);
    assert!(pair.delivered(B).is_empty());
}

#[test]
fn a_source_that_nobody_can_answer_is_no_path_even_for_an_authentic_datagram() {
    let (mut pair, datagram) = with_datagram();
    pair.events(B);
    for from in ["10.0.0.1:0", "224.0.0.1:5", "[::]:5"] {
        pair.receive(B, from.parse().unwrap(), 0, &datagram.bytes);
    }
    assert_eq!(pair.dropped(B, DropReason::ImpossibleSource), 3);
    assert!(pair.events(B).is_empty());
}

#[test]
fn a_damaged_or_truncated_datagram_is_dropped_and_moves_nothing() {
    let (mut pair, datagram) = with_datagram();
    pair.events(B);
    let elsewhere = "203.0.113.9:9".parse().unwrap();
    for at in 16..datagram.bytes.len() {
        let mut bytes = datagram.bytes.clone();
        bytes[at] ^= 1;
        pair.receive(B, elsewhere, 0, &bytes);
    }
    let damaged = datagram.bytes.len() as u64 - 16;
    assert_eq!(pair.dropped(B, DropReason::Forged), damaged);
    for length in 0..datagram.bytes.len() {
        pair.receive(B, elsewhere, 0, &datagram.bytes[..length]);
    }
    assert_eq!(pair.dropped(B, DropReason::NotWireguard), 32);
    assert!(pair.events(B).is_empty(), "the path did not move");
    deliver(&mut pair, &datagram);
    assert_eq!(pair.delivered(B).len(), 1, "the real one still counts");
}

#[test]
fn a_handshake_of_before_a_restart_moves_nobody_when_replayed() {
    let mut pair = Pair::new();
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    pair.send(A, &there);
    let initiation = pair.seen[0].clone();
    let all = bundle(vec![rule("all", Traffic::All)], Vec::new());
    pair.restart(B, &all, Default::default());
    pair.events(B);
    // B has forgotten which handshakes it has seen, and answers; whoever replayed it can do
    // nothing with the answer.
    pair.receive(B, "203.0.113.9:9".parse().unwrap(), 0, &initiation.bytes);
    pair.run();
    let events = pair.events(B);
    let has_moved = |event: &Event| matches!(event, Event::PeerMoved { .. });
    assert!(!events.iter().any(has_moved), "{events:?}");
    // One initiation later, by the path that B has kept, and not after A has noticed the silence.
    pair.delivered(A);
    pair.send(B, &back);
    pair.pass(Duration::from_secs(6)); // WireGuard whitepaper 6.1: REKEY_TIMEOUT, and its jitter
    assert_eq!(pair.delivered(A), [back]);
}

#[test]
fn a_peer_can_only_speak_for_itself_and_to_us() {
    let mut pair = Pair::new();
    let mut rogue = Rogue::in_place_of_a(&mut pair);
    let (own, other) = pair.v4(A);
    let third: IpAddr = "100.64.0.3".parse().unwrap();
    let (own6, other6) = pair.v6(A);
    let third6: IpAddr = "fd00::3".parse().unwrap();
    for (own, other, third) in [(own, other, third), (own6, other6, third6)] {
        let honest = packets::udp(own, other, 1, 2, b"");
        rogue.sends(&mut pair, &honest);
        assert_eq!(pair.delivered(B), [honest]);
        rogue.sends(&mut pair, &packets::udp(third, other, 1, 2, b""));
        rogue.sends(&mut pair, &packets::udp(other, other, 1, 2, b""));
        rogue.sends(&mut pair, &packets::udp(own, third, 1, 2, b""));
    }
    assert_eq!(pair.dropped(B, DropReason::SpoofedSource), 4);
    assert_eq!(pair.dropped(B, DropReason::NotOurAddress), 2);
    assert!(pair.delivered(B).is_empty());
}

#[test]
fn a_peer_that_keeps_to_no_rule_meets_ours() {
    let mut pair = Pair::with_bundle(&bundle(vec![rule("dns", udp_port(53))], Vec::new()));
    let mut rogue = Rogue::in_place_of_a(&mut pair);
    let (own, other) = pair.v4(A);
    rogue.sends(&mut pair, &packets::udp(own, other, 1, 54, b""));
    rogue.sends(&mut pair, &packets::tcp(own, other, 1, 22, packets::SYN));
    rogue.sends(
        &mut pair,
        &packets::tcp(own, other, 40000, 22, packets::ACK),
    );
    rogue.sends(
        &mut pair,
        &packets::udp(own, other, 53, 40000, b"posing as a reply"),
    );
    assert_eq!(pair.dropped(B, DropReason::DeniedInbound), 4);
    rogue.sends(&mut pair, &packets::echo(own, other, false, 1));
    assert_eq!(pair.dropped(B, DropReason::UnrelatedReply), 1);
    let ours = packets::udp(other, own, 1, 2, b"");
    rogue.sends(&mut pair, &packets::unreachable(own, other, &ours));
    assert_eq!(pair.dropped(B, DropReason::UnrelatedIcmp), 1);
    assert!(pair.delivered(B).is_empty());
    assert_eq!(pair.hosts[B].counters.flows(), 0);
}

#[test]
fn a_sealed_packet_that_is_wrong_in_itself_is_dropped() {
    let mut pair = Pair::new();
    let mut rogue = Rogue::in_place_of_a(&mut pair);
    let good = pair.udp(A, 1, 2);
    rogue.sends(&mut pair, b"what is this");
    rogue.sends(&mut pair, &good[..19]);
    let mut long = good.clone();
    long[3] += 32;
    rogue.sends(&mut pair, &long);
    assert_eq!(pair.dropped(B, DropReason::NotIp), 1);
    assert_eq!(pair.dropped(B, DropReason::Truncated), 2);
    let before = pair.hosts[B].counters.balance().consumed;
    rogue.sends(&mut pair, b"");
    assert_eq!(
        pair.hosts[B].counters.balance().consumed,
        before + 1,
        "a keepalive"
    );
}

#[test]
fn a_session_ends_with_its_time() {
    let (mut pair, datagram) = with_datagram();
    pair.pass(Duration::from_secs(181));
    deliver(&mut pair, &datagram);
    assert_eq!(pair.dropped(B, DropReason::UnknownReceiver), 1);
}

#[test]
fn a_replayed_initiation_is_refused_after_its_work() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    let initiation = pair
        .seen
        .iter()
        .find(|datagram| datagram.bytes.len() == 148)
        .unwrap()
        .clone();
    pair.events(B);
    pair.pass(Duration::from_secs(1));
    pair.receive(B, "203.0.113.9:9".parse().unwrap(), 0, &initiation.bytes);
    assert_eq!(pair.dropped(B, DropReason::HandshakeReplayed), 1);
    assert!(pair.events(B).is_empty() && pair.network.is_empty());
}

#[test]
fn handshakes_of_strangers_are_dropped() {
    let mut pair = Pair::new();
    pair.hosts[A].private = [9; 32];
    let identity = pair.identity(A, Default::default());
    pair.command(A, vec![identity]);
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert_eq!(pair.dropped(B, DropReason::HandshakeUnknownKey), 1);
    let initiation = pair.seen[0].bytes.clone();
    let mut for_another = initiation.clone();
    for_another[120] ^= 1;
    pair.receive(B, pair.hosts[A].underlay, 0, &for_another);
    assert_eq!(pair.dropped(B, DropReason::HandshakeBadMac), 1);
}

#[test]
fn an_answer_to_nothing_is_dropped_before_any_work() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    let response = pair
        .seen
        .iter()
        .find(|datagram| datagram.bytes.len() == 92)
        .unwrap()
        .clone();
    pair.receive(A, response.from, 0, &response.bytes);
    assert_eq!(pair.dropped(A, DropReason::HandshakeUnexpected), 1);
    let mut cookie = vec![3, 0, 0, 0];
    cookie.extend(&response.bytes[8..12]);
    cookie.resize(64, 0);
    pair.receive(A, response.from, 0, &cookie);
    assert_eq!(pair.dropped(A, DropReason::CookieRejected), 1);
}

#[test]
fn under_load_strangers_prove_their_address_first() {
    let limits = Limits {
        handshakes_per_sec_loaded: 0,
        ..Limits::default()
    };
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
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert_eq!(pair.dropped(B, DropReason::HandshakeNeedsCookie), 1);
    assert!(pair.delivered(B).is_empty());
    // The second initiation carries the cookie; then the response needs one, and so on.
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.delivered(B), [packet]);
    assert_eq!(pair.dropped(B, DropReason::HandshakeNeedsCookie), 1);
}

#[test]
fn no_more_jobs_are_out_than_there_may_be() {
    let limits = Limits {
        handshake_jobs: 3,
        handshake_jobs_reserved: 0,
        handshake_jobs_loaded: 1000,
        ..Limits::default()
    };
    let mut pair = Pair::strangers(ShardConfig {
        limits,
        ..ShardConfig::default()
    });
    pair.introduce(A);
    pair.introduce(B);
    let mut other = Pair::new();
    let packet = other.udp(A, 1, 2);
    other.send(A, &packet);
    let initiation = other.seen[0].bytes.clone();
    let from = Path {
        remote: pair.hosts[A].underlay,
        source: None,
    };
    let now = pair.now;
    for _ in 0..5 {
        let mut bytes = initiation.clone();
        pair.hosts[B].with(|shard, wire| shard.handle_datagram(from, 0, &mut bytes, now, wire));
    }
    assert_eq!(pair.dropped(B, DropReason::HandshakeOverload), 2);
    assert_eq!(pair.hosts[B].counters.queued(), 3);
    assert!(pair.hosts[B].counters.balance().holds());
}

/// One thing that the world does to a host.
#[derive(Clone, Debug)]
enum Step {
    Noise(Vec<u8>),
    /// A datagram that was really sent, damaged at one place.
    Damaged {
        which: usize,
        at: usize,
        value: u8,
        cut: usize,
    },
    /// A sealed packet of arbitrary bytes, as a hacked peer would send.
    Sealed {
        six: bool,
        ip_protocol: u8,
        upper: Vec<u8>,
    },
    /// The same without any header.
    SealedNoise(Vec<u8>),
    /// Arbitrary bytes of this host.
    Overlay(Vec<u8>),
    /// A packet of this host, damaged at one place.
    DamagedOverlay {
        at: usize,
        value: u8,
        cut: usize,
        six: bool,
    },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        bytes().prop_map(Step::Noise),
        (any::<usize>(), any::<usize>(), any::<u8>(), 0usize..300).prop_map(
            |(which, at, value, cut)| Step::Damaged {
                which,
                at,
                value,
                cut
            }
        ),
        (any::<bool>(), any::<u8>(), bytes()).prop_map(|(six, ip_protocol, upper)| Step::Sealed {
            six,
            ip_protocol,
            upper
        }),
        bytes().prop_map(Step::SealedNoise),
        bytes().prop_map(Step::Overlay),
        (0usize..100, any::<u8>(), 1usize..100, any::<bool>()).prop_map(|(at, value, cut, six)| {
            Step::DamagedOverlay {
                at,
                value,
                cut,
                six,
            }
        }),
        (0u64..20_000).prop_map(Step::Pass),
    ]
}

fn take(pair: &mut Pair, rogue: &mut Rogue, step: Step) {
    let known = |protocol: u8| [1, 6, 17, 58][usize::from(protocol % 4)];
    let addresses = |pair: &Pair, six| if six { pair.v6(A) } else { pair.v4(A) };
    match step {
        Step::Noise(bytes) => {
            let from = pair.hosts[A].underlay;
            pair.receive(B, from, 3, &bytes);
        }
        Step::Damaged {
            which,
            at,
            value,
            cut,
        } => {
            let Some(datagram) = pair.seen.get(which % pair.seen.len().max(1)).cloned() else {
                return;
            };
            let mut bytes = datagram.bytes;
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length.min(cut + 40));
            pair.receive(B, datagram.from, 1, &bytes);
        }
        Step::Sealed {
            six,
            ip_protocol,
            upper,
        } => {
            let (source, destination) = addresses(pair, six);
            let ip_protocol = if ip_protocol < 128 {
                known(ip_protocol)
            } else {
                ip_protocol
            };
            let packet = packets::ip(source, destination, ip_protocol, &upper);
            rogue.sends(pair, &packet);
        }
        Step::SealedNoise(bytes) => rogue.sends(pair, &bytes),
        Step::Overlay(bytes) => pair.send(A, &bytes),
        Step::DamagedOverlay {
            at,
            value,
            cut,
            six,
        } => {
            let (source, destination) = addresses(pair, six);
            let mut packet = packets::tcp(source, destination, 1, 2, packets::SYN);
            let length = packet.len();
            packet[at % length] = value;
            packet.truncate(cut.max(1));
            pair.send(A, &packet);
        }
        Step::Pass(millis) => pair.pass(Duration::from_millis(millis)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `Pair` asserts after every step that each packet is accounted for.
    #[test]
    fn whatever_comes_nothing_panics_and_all_is_accounted(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        let mut pair = Pair::new();
        let packet = pair.udp(A, 1, 2);
        pair.send(A, &packet);
        pair.pass(Duration::from_secs(1));
        let mut rogue = Rogue::in_place_of_a(&mut pair);
        for step in steps {
            take(&mut pair, &mut rogue, step);
            pair.run();
        }
        pair.pass(Duration::from_secs(300));
        pair.delivered(B);
        pair.send(A, &packet);
        prop_assert!(pair.delivered(B).contains(&packet), "and the mesh still works");
    }
}
