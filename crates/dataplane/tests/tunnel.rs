//! Sessions: handshakes, waiting packets, paths, dates, peers that come and go.

mod pair;

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::{Command, DataCipher, DropReason, Event, Path, ShardConfig};
use model::time::{Now, UnixTime};
use pair::{A, B, PEER, Pair, UNIX_START, packets};

fn established(pair: &mut Pair, host: usize) -> usize {
    let is_established = |event: &Event| matches!(event, Event::SessionEstablished { .. });
    pair.events(host)
        .iter()
        .filter(|event| is_established(event))
        .count()
}

fn unanswered(pair: &mut Pair, host: usize) -> Vec<Option<Path>> {
    let path = |event| match event {
        Event::PathUnanswered { peer, path } if peer == PEER => Some(path),
        _ => None,
    };
    pair.events(host).into_iter().filter_map(path).collect()
}

#[test]
fn the_first_packet_makes_a_session_and_arrives() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1000, 2000);
    pair.offer(A, &packet);
    assert_eq!(pair.hosts[A].counters.queued(), 1);
    pair.run();
    assert_eq!(pair.delivered(B), [packet]);
    assert_eq!(established(&mut pair, A), 1);
    assert_eq!(established(&mut pair, B), 1);
    let back = pair.udp(B, 2000, 1000);
    pair.send(B, &back);
    assert_eq!(pair.delivered(A), [back]);
}

#[test]
fn ipv6_packets_arrive_too() {
    let mut pair = Pair::new();
    let (source, destination) = pair.v6(A);
    let packet = packets::udp(source, destination, 1000, 2000, &[7; 1300]);
    pair.send(A, &packet);
    assert_eq!(pair.delivered(B), [packet]);
}

#[test]
fn both_sides_may_begin_at_once() {
    let mut pair = Pair::new();
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 3, 4));
    pair.offer(A, &there);
    pair.offer(B, &back);
    pair.run();
    pair.pass(Duration::from_secs(20));
    assert_eq!(pair.delivered(B), [there]);
    assert_eq!(pair.delivered(A), [back]);
}

#[test]
fn sessions_are_renewed_under_traffic_without_a_loss() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    for _ in 0..600 {
        pair.send(A, &packet);
        pair.pass(Duration::from_secs(1));
    }
    assert_eq!(pair.delivered(B).len(), 600);
    assert!((4..=6).contains(&established(&mut pair, A)));
}

#[test]
fn waiting_packets_are_bounded_and_the_oldest_go_first() {
    let mut pair = Pair::new();
    let limit = ShardConfig::default().limits.pending_packets_per_peer as u16;
    for port in 0..limit + 10 {
        let packet = pair.udp(A, port, 9);
        pair.offer(A, &packet);
    }
    assert_eq!(pair.dropped(A, DropReason::PendingOverflow), 10);
    pair.run();
    let delivered = pair.delivered(B);
    assert_eq!(delivered.len(), usize::from(limit));
    assert_eq!(delivered[0], pair.udp(A, 10, 9));
}

#[test]
fn a_peer_that_never_answers_is_given_up_and_the_host_is_told() {
    let mut pair = Pair::new();
    pair.hosts[B].underlay.set_port(1);
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    pair.pass(Duration::from_secs(120));
    assert_eq!(pair.dropped(A, DropReason::PeerUnreachable), 1);
    assert_eq!(pair.hosts[A].counters.queued(), 0);
    let told = pair.delivered(A);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0][20..22], [3, 1], "host unreachable");
    let tried = unanswered(&mut pair, A);
    assert!(
        tried.len() > 10 && tried.iter().all(Option::is_some),
        "{tried:?}"
    );
}

#[test]
fn a_path_that_comes_while_an_initiation_is_made_sees_that_one_only() {
    let mut pair = Pair::new();
    let right = pair.hosts[B].underlay;
    let dead = "192.0.2.99:51820".parse().unwrap();
    pair.set_path(A, dead);
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    // The retry: the shard asks for another path and for a job, and the path comes first.
    let (at, _) = pair.hosts[A].shard.poll_timeout().unwrap();
    pair.now.monotonic = at;
    let now = pair.now;
    pair.hosts[A].with(|shard, wire| shard.handle_timeout(now, wire));
    let mut jobs = Vec::new();
    while let Some(event) = pair.hosts[A].shard.poll_event() {
        if let Event::Handshake(job) = event {
            jobs.push(job);
        }
    }
    let path = Path {
        remote: right,
        source: None,
    };
    let command = Command::SetPath { index: PEER, path };
    pair.hosts[A].with(|shard, wire| shard.handle_commands(vec![command], now, wire));
    assert!(
        pair.hosts[A].wire.datagrams.is_empty(),
        "what was given up is sent nowhere"
    );
    for job in jobs {
        pair.hosts[A].with(|shard, wire| shard.handle_handshake(job.run(), now, wire));
    }
    assert_eq!(pair.hosts[A].wire.datagrams.len(), 1);
    pair.command(A, Vec::new());
    pair.run();
    assert_eq!(pair.dropped(B, DropReason::HandshakeTooFrequent), 0);
    assert_eq!(pair.delivered(B), [packet]);
}

#[test]
fn a_peer_without_a_path_is_asked_for_and_reached_once_there_is_one() {
    let mut pair = Pair::strangers(ShardConfig::default());
    pair.introduce(A);
    pair.introduce(B);
    pair.set_bundle(&pair::bundle(
        vec![pair::rule("all", model::rule::Traffic::All)],
        vec![],
    ));
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert_eq!(unanswered(&mut pair, A), [None]);
    let there = pair.hosts[B].underlay;
    pair.set_path(A, there);
    pair.run();
    assert_eq!(pair.delivered(B), [packet], "without waiting for a retry");
}

#[test]
fn another_path_is_tried_at_once_while_a_handshake_waits() {
    let mut pair = Pair::new();
    let nowhere = "192.0.2.99:9".parse().unwrap();
    pair.set_path(A, nowhere);
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert!(pair.delivered(B).is_empty());
    let there = pair.hosts[B].underlay;
    pair.set_path(A, there);
    pair.run();
    assert_eq!(pair.delivered(B), [packet]);
}

#[test]
fn a_proven_path_stays_whatever_is_proposed() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    pair.set_path(A, "192.0.2.99:9".parse().unwrap());
    pair.send(A, &packet);
    assert_eq!(pair.delivered(B).len(), 2);
}

#[test]
fn a_path_that_died_is_told_and_replaced() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    // B moves when it has nothing more to say; A must notice by itself.
    pair.pass(Duration::from_secs(12));
    pair.events(A);
    pair.hosts[B].underlay = "198.51.100.7:4000".parse().unwrap();
    pair.send(A, &packet);
    pair.pass(Duration::from_secs(25));
    assert!(!unanswered(&mut pair, A).is_empty());
    let there = pair.hosts[B].underlay;
    pair.set_path(A, there);
    pair.run();
    pair.delivered(B);
    pair.send(A, &packet);
    assert_eq!(pair.delivered(B), [packet]);
}

#[test]
fn a_peer_that_moves_is_followed_at_its_first_authentic_packet() {
    let mut pair = Pair::new();
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    pair.send(A, &there);
    pair.events(A);
    let moved = "198.51.100.7:4000".parse().unwrap();
    pair.hosts[B].underlay = moved;
    pair.send(B, &back);
    let source = Some(pair.hosts[A].underlay.ip());
    let events = pair.events(A);
    let path = Path {
        remote: moved,
        source,
    };
    let followed =
        |event: &Event| matches!(event, Event::PeerMoved { path: to, .. } if *to == path);
    assert_eq!(
        events.iter().filter(|event| followed(event)).count(),
        1,
        "{events:?}"
    );
    pair.send(A, &there);
    assert_eq!(pair.delivered(B).len(), 2);
}

#[test]
fn a_peer_that_sends_from_inside_the_overlay_does_not_move_there() {
    let mut pair = Pair::new();
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    pair.send(A, &there);
    pair.events(A);
    let (of_peer, _) = pair.v4(B);
    let home = std::mem::replace(&mut pair.hosts[B].underlay, SocketAddr::new(of_peer, 51820));
    pair.send(B, &back);
    let events = pair.events(A);
    let has_moved = |event: &Event| matches!(event, Event::PeerMoved { .. });
    assert!(!events.iter().any(has_moved), "{events:?}");
    pair.hosts[B].underlay = home;
    pair.send(A, &there);
    assert_eq!(pair.delivered(B).len(), 2, "its path is the one of before");
}

#[test]
fn a_removed_peer_is_forgotten_with_everything_that_waited() {
    let mut pair = Pair::new();
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    pair.send(A, &there);
    pair.command(A, vec![Command::RemovePeer { index: PEER }]);
    pair.send(A, &there);
    assert_eq!(pair.dropped(A, DropReason::UnknownDestination), 1);
    pair.send(B, &back);
    assert_eq!(pair.dropped(A, DropReason::UnknownReceiver), 1);
    assert_eq!(pair.hosts[A].counters.flows(), 0);
    pair.pass(Duration::from_secs(30));
    assert!(pair.dropped(A, DropReason::HandshakeUnknownKey) > 0);
}

#[test]
fn packets_that_wait_for_a_removed_peer_are_dropped() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.offer(A, &packet);
    pair.command(A, vec![Command::RemovePeer { index: PEER }]);
    assert_eq!(pair.dropped(A, DropReason::PeerRemoved), 1);
    assert_eq!(pair.hosts[A].counters.queued(), 0);
}

#[test]
fn a_job_of_a_removed_peer_does_nothing() {
    let mut pair = Pair::new();
    let (now, mut packet) = (pair.now, pair.udp(A, 1, 2));
    let host = &mut pair.hosts[A];
    host.with(|shard, wire| {
        shard.handle_overlay_packet(Default::default(), &mut packet, now, wire);
    });
    let mut jobs = Vec::new();
    while let Some(event) = host.shard.poll_event() {
        if let Event::Handshake(job) = event {
            jobs.push(job);
        }
    }
    assert_eq!(jobs.len(), 1);
    let again = pair.peer(A);
    pair.command(A, vec![Command::RemovePeer { index: PEER }, again]);
    let done = jobs.remove(0).run();
    pair.hosts[A].with(|shard, wire| shard.handle_handshake(done, now, wire));
    assert!(pair.hosts[A].wire.datagrams.is_empty());
}

#[test]
fn a_preshared_key_must_agree() {
    use model::key::Secret;
    let mut pair = Pair::new();
    let with = |command: Command, byte| match command {
        Command::SetPeer {
            index,
            kind,
            key,
            addresses,
            keepalive,
            ..
        } => {
            let preshared = Some(Secret::from_bytes([byte; 32]));
            Command::SetPeer {
                index,
                kind,
                key,
                addresses,
                preshared,
                keepalive,
                cipher: DataCipher::default(),
            }
        }
        other => other,
    };
    let (a, b) = (with(pair.peer(A), 1), with(pair.peer(B), 2));
    pair.command(A, vec![a]);
    pair.command(B, vec![b]);
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert!(pair.delivered(B).is_empty());
    assert_eq!(pair.dropped(A, DropReason::HandshakeForged), 1);
    let b = with(pair.peer(B), 1);
    pair.command(B, vec![b]);
    pair.pass(Duration::from_secs(6));
    assert_eq!(pair.delivered(B), [packet]);
}

#[test]
fn keepalives_begin_a_session_and_keep_it() {
    let mut pair = Pair::new();
    let command = match pair.peer(A) {
        Command::SetPeer {
            index,
            kind,
            key,
            addresses,
            preshared,
            ..
        } => {
            let keepalive = Some(Duration::from_secs(25));
            Command::SetPeer {
                index,
                kind,
                key,
                addresses,
                preshared,
                keepalive,
                cipher: DataCipher::default(),
            }
        }
        other => other,
    };
    pair.command(A, vec![command]);
    pair.pass(Duration::from_secs(400));
    assert!(established(&mut pair, B) >= 2);
    let balance = pair.hosts[B].counters.balance();
    assert!(
        balance.consumed > 10 && balance.delivered == 0,
        "{balance:?}"
    );
}

#[test]
fn a_clock_a_year_back_after_a_restart_still_handshakes() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    let used = |event| match event {
        Event::TimestampUsed(time) => Some(time),
        _ => None,
    };
    let floor = pair.events(A).into_iter().filter_map(used).max().unwrap();
    assert!(floor > UnixTime::from_secs(UNIX_START));
    pair.now = Now {
        unix: UnixTime::from_secs(UNIX_START - 31_536_000),
        ..pair.now
    };
    let all = pair::bundle(vec![pair::rule("all", model::rule::Traffic::All)], vec![]);
    pair.restart(A, &all, UnixTime::default());
    pair.send(A, &packet);
    assert_eq!(
        pair.dropped(B, DropReason::HandshakeReplayed),
        1,
        "without the floor"
    );
    pair.restart(A, &all, floor);
    pair.pass(Duration::from_secs(1));
    pair.delivered(B);
    pair.send(A, &packet);
    assert_eq!(pair.delivered(B), [packet]);
}

#[test]
fn packets_are_sealed_with_what_the_initiator_was_told_and_reports_tell_it() {
    for cipher in DataCipher::ALL {
        let mut pair = Pair::new();
        let mut command = pair.peer(A);
        let Command::SetPeer { cipher: chosen, .. } = &mut command else {
            panic!("{command:?}");
        };
        *chosen = cipher;
        pair.command(A, vec![command]);
        let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
        pair.send(A, &there);
        pair.send(B, &back);
        assert_eq!(pair.delivered(B), [there]);
        assert_eq!(pair.delivered(A), [back]);
        for host in [A, B] {
            pair.events(host);
            pair.command(host, vec![Command::Report]);
            let Some(Event::Report(report)) = pair.events(host).pop() else {
                panic!("a report was asked for");
            };
            assert_eq!(report.peers[0].cipher, Some(cipher));
        }
    }
}

#[test]
fn a_report_tells_of_every_peer() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    pair.events(A);
    pair.command(A, vec![Command::Report]);
    let report = match pair.events(A).pop() {
        Some(Event::Report(report)) => report,
        other => panic!("{other:?}"),
    };
    assert_eq!(report.peers.len(), 1);
    let peer = &report.peers[0];
    assert_eq!(
        peer.path.map(|path| path.remote),
        Some(pair.hosts[B].underlay)
    );
    assert_eq!(peer.last_handshake, Some(pair.now.monotonic));
    assert_eq!(
        peer.sent_bytes,
        148 + 80,
        "an initiation, a packet of 33 bytes padded and sealed"
    );
    assert_eq!(peer.received_bytes, 92, "a response");
}

#[test]
fn a_full_outbox_is_counted() {
    let mut pair = Pair::new();
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    pair.hosts[A].wire.is_full = true;
    pair.offer(A, &packet);
    assert_eq!(pair.dropped(A, DropReason::OutboxFull), 1);
    pair.hosts[A].wire.is_full = false;
    pair.hosts[B].wire.is_full = true;
    pair.send(A, &packet);
    assert_eq!(pair.dropped(B, DropReason::OutboxFull), 1);
}

#[test]
fn a_refusal_that_nobody_took_is_not_counted() {
    let mut pair = Pair::new();
    let (source, _) = pair.v4(A);
    let nobody = "100.64.9.9".parse().unwrap();
    let packet = packets::udp(source, nobody, 1, 2, b"hello");
    pair.hosts[A].wire.is_full = true;
    pair.offer(A, &packet);
    assert_eq!(pair.dropped(A, DropReason::UnknownDestination), 1);
    assert_eq!(pair.hosts[A].counters.refusals(), 0);
    pair.hosts[A].wire.is_full = false;
    pair.offer(A, &packet);
    assert_eq!(pair.hosts[A].counters.refusals(), 1);
}

#[test]
fn a_new_identity_ends_every_session() {
    let mut pair = Pair::new();
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    pair.send(A, &there);
    pair.hosts[A].private = [9; 32];
    let identity = pair.identity(A, UnixTime::default());
    pair.command(A, vec![identity]);
    pair.send(B, &back);
    assert_eq!(pair.dropped(A, DropReason::UnknownReceiver), 1);
    let peer = pair.peer(B);
    pair.command(B, vec![peer]);
    let remote = pair.hosts[A].underlay;
    pair.set_path(B, remote);
    // Two handshakes are five seconds apart.
    pair.pass(Duration::from_secs(6));
    pair.delivered(A);
    pair.send(B, &back);
    assert_eq!(pair.delivered(A), [back]);
}
