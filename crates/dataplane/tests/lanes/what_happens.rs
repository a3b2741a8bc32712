//! Whatever happens to a host, a peer or a lane, flows go on.

use std::time::Duration;

use dataplane::{
    Bequest, Command, DataCipher, DropReason, Event, Extent, Limits, PeerKind, PeerReport,
};

use crate::initiations::initiations;
use crate::pair::team::{Arrival, Teams};
use crate::pair::udp_port;
use crate::{
    PORTS, SECOND, SERVICE, drops, eager, lanes, lost, lost_answers, no_drops, open_lanes, passes,
    teams,
};

#[test]
fn a_host_that_restarts_with_another_number_cuts_no_flow() {
    for (before, after) in [(4, 2), (4, 1), (2, 4), (1, 4), (4, 4), (4, 64)] {
        let mut teams = teams([4, before]);
        open_lanes(&mut teams);
        teams.restart(1, after);
        // The one that restarted forgot its flows, and speaks first.
        for port in PORTS {
            assert!(
                passes(&mut teams, 1, 0, (port, SERVICE)),
                "{before} {after} {port}"
            );
        }
        for port in PORTS {
            assert!(
                passes(&mut teams, 0, 1, (port, SERVICE)),
                "{before} {after} {port}"
            );
            assert!(
                passes(&mut teams, 0, 1, (SERVICE, port)),
                "{before} {after} {port}"
            );
        }
        assert_eq!(drops(&teams, 0), []);
        // An initiation in the same lane may not follow another sooner.
        open_lanes(&mut teams);
        open_lanes(&mut teams);
        assert_eq!(lanes(&mut teams, 0).len(), usize::from(after.min(4)));
        no_drops(&teams);
    }
}

#[test]
fn a_peer_that_speaks_of_no_shards_any_more_has_no_lanes_soon() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    teams.restart(1, 1);
    // As an older daemon does, it takes greetings for nothing.
    let index = teams.index(1, 0);
    let Command::SetPeer {
        key,
        addresses,
        preshared,
        keepalive,
        cipher,
        ..
    } = teams.introduction(index, 0)
    else {
        unreachable!("an introduction is one")
    };
    let plain = Command::SetPeer {
        index,
        kind: PeerKind::Standard,
        key,
        addresses,
        preshared,
        keepalive,
        cipher,
    };
    teams.command(1, &[plain]);
    assert!(passes(&mut teams, 1, 0, (40_000, SERVICE)));
    teams.pass(3 * SECOND);
    assert_eq!(lanes(&mut teams, 0)[0], 0);
    for port in PORTS {
        assert!(passes(&mut teams, 0, 1, (port, SERVICE)));
    }
}

#[test]
fn a_removed_peer_loses_all_its_lanes_at_once() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    let index = teams.index(0, 1);
    teams.command(0, &[Command::RemovePeer { index }]);
    assert_eq!(teams.sessions(0, 1), []);
    let flows = teams.hosts[0].shards.iter().map(|(_, it)| it.flows());
    assert_eq!(flows.sum::<u64>(), 0);
    for port in PORTS {
        assert!(!passes(&mut teams, 1, 0, (port, SERVICE)), "{port}");
        assert!(!passes(&mut teams, 0, 1, (port, SERVICE)), "{port}");
    }
    let unknown = teams.hosts[0].dropped(DropReason::UnknownReceiver);
    assert_eq!(unknown, PORTS.len() as u64);
    teams.pass(200 * SECOND);
    assert_eq!(teams.sessions(0, 1), []);
}

#[test]
fn rules_that_change_reach_the_flows_of_every_lane() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    teams.set_traffic(0, udp_port(SERVICE + 1), 2);
    for port in PORTS {
        assert!(!passes(&mut teams, 0, 1, (port, SERVICE)), "{port}");
        assert!(!passes(&mut teams, 1, 0, (port, SERVICE)), "{port}");
    }
    let count = PORTS.len() as u64;
    assert_eq!(teams.hosts[0].dropped(DropReason::DeniedOutbound), count);
    assert_eq!(teams.hosts[0].dropped(DropReason::DeniedInbound), count);
}

#[test]
fn lanes_that_carry_little_go_and_their_flows_stay() {
    let limits = Limits {
        lane_bytes_kept: 1 << 30,
        ..eager()
    };
    let mut teams = Teams::with(&[4, 4], limits, udp_port(SERVICE));
    teams.arrival = Arrival::Steered;
    open_lanes(&mut teams);
    assert_eq!(lanes(&mut teams, 0), [0, 1, 2, 3]);
    let bytes = |sessions: &[PeerReport]| -> u64 {
        let bytes = sessions.iter().map(|it| it.received_bytes + it.sent_bytes);
        bytes.sum()
    };
    let mut before = bytes(&teams.sessions(0, 1));
    // Answers that come now and then, to who asked before there were lanes.
    for _ in 0..60 {
        teams.pass(20 * SECOND);
        assert_eq!(lost_answers(&mut teams), 0);
        let now = bytes(&teams.sessions(0, 1));
        assert!(now > before, "no byte is forgotten");
        before = now;
    }
    no_drops(&teams);
}

#[test]
fn a_peer_that_idles_keeps_nothing_but_its_main_session_s_place() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    teams.pass(400 * SECOND);
    for host in [0, 1] {
        assert!(lanes(&mut teams, host).is_empty());
    }
    open_lanes(&mut teams);
    assert_eq!(lanes(&mut teams, 0), [0, 1, 2, 3]);
    no_drops(&teams);
}

#[test]
fn lanes_are_renewed_as_long_as_there_is_traffic() {
    let mut teams = teams([2, 2]);
    open_lanes(&mut teams);
    let first = initiations(&teams, 0).len() + initiations(&teams, 1).len();
    for _ in 0..300 {
        teams.pass(SECOND);
        assert_eq!(lost_answers(&mut teams), 0);
    }
    assert_eq!(lanes(&mut teams, 0), [0, 1]);
    let all = initiations(&teams, 0).len() + initiations(&teams, 1).len();
    assert!((first + 4..=first + 6).contains(&all), "{first} {all}");
    no_drops(&teams);
}

#[test]
fn shards_without_room_for_a_word_hear_it_later() {
    let mut teams = teams([4, 4]);
    assert_eq!(lost(&mut teams), 0);
    for host in [0, 1] {
        teams.close_hand_overs(host);
    }
    for _ in 0..4 {
        teams.pass(SECOND);
        lost(&mut teams);
    }
    for host in [0, 1] {
        teams.open_hand_overs(host);
    }
    open_lanes(&mut teams);
    assert_eq!(lanes(&mut teams, 0), [0, 1, 2, 3]);
    // Full again, while the peer goes.
    teams.close_hand_overs(0);
    teams.restart(1, 2);
    for port in PORTS {
        let _ = passes(&mut teams, 1, 0, (port, SERVICE));
    }
    teams.open_hand_overs(0);
    teams.pass(SECOND);
    assert_eq!(lost(&mut teams), 0);
    open_lanes(&mut teams);
    assert_eq!(lanes(&mut teams, 0), [0, 1]);
}

#[test]
fn a_peer_that_moves_is_followed_by_all_lanes() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    let elsewhere = "198.51.100.7:999".parse().unwrap();
    teams.move_host(1, elsewhere);
    // One lane hears of it.
    assert!(passes(&mut teams, 1, 0, (PORTS.start + 5, SERVICE)));
    teams.pass(Duration::from_millis(1));
    for port in PORTS {
        assert!(passes(&mut teams, 0, 1, (port, SERVICE)), "{port}");
    }
    let moved = |event: &&Event| matches!(event, Event::PeerMoved { .. });
    assert!(teams.hosts[0].events.iter().filter(moved).count() >= 1);
    for session in teams.sessions(0, 1) {
        assert_eq!(session.path.unwrap().remote, elsewhere, "{session:?}");
    }
}

#[test]
fn a_successor_takes_the_flows_of_all_lanes() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    let mut left = Bequest::default();
    for number in 0..4 {
        let bequest = teams.with_shard(0, number, |shard, now| {
            shard.bequeath(Extent::PeersAndFlows, now)
        });
        left.merge(bequest);
    }
    assert_eq!(left.peers.len(), 1);
    assert_eq!(left.flow_count(), 128);
    let bytes: u64 = teams.sessions(0, 1).iter().map(|it| it.sent_bytes).sum();
    assert_eq!(left.peers[0].sent_bytes, bytes);
    assert!(left.peers[0].path.is_some() && left.peers[0].wants_session);
    let left = Bequest::decode(&left.encode()).unwrap();
    teams.restart(0, 4);
    let taken: usize = (0..4)
        .map(|number| teams.with_shard(0, number, |shard, now| shard.inherit_flows(&left, now)))
        .sum();
    assert_eq!(taken, 128);
    // Answers to those that asked before.
    assert!(passes(&mut teams, 0, 1, (40_000, SERVICE)));
    assert_eq!(lost_answers(&mut teams), 0);
}

#[test]
fn another_cipher_reaches_the_lanes_with_their_next_session() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    for host in [0, 1] {
        let index = teams.index(host, 1 - host);
        let mut introduction = teams.introduction(index, 1 - host);
        if let Command::SetPeer { cipher, .. } = &mut introduction {
            *cipher = DataCipher::Aes256Gcm;
        }
        teams.command(host, &[introduction]);
    }
    for _ in 0..140 {
        teams.pass(SECOND);
        assert_eq!(lost_answers(&mut teams), 0);
    }
    for host in [0, 1] {
        let sessions = teams.sessions(host, 1 - host);
        let ciphers: Vec<_> = sessions.iter().map(|it| it.cipher).collect();
        assert_eq!(ciphers, [Some(DataCipher::Aes256Gcm); 4]);
    }
    no_drops(&teams);
}

/// Whatever happens in whatever order, every packet is counted, which the team checks after every
/// step, no two shards pass one to each other for ever, and when it is over all is well again.
#[test]
fn after_any_order_of_restarts_moves_and_full_queues_everything_passes() {
    for seed in 0..40u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            (dice >> 33) % sides
        };
        let mut teams = teams([4, 4]);
        for _ in 0..60 {
            let host = roll(2) as usize;
            match roll(10) {
                0 => teams.restart(host, 1 << roll(4)),
                1 => teams.close_hand_overs(host),
                2 => teams.open_hand_overs(host),
                3 => teams.arrival = Arrival::InTurn,
                4 => teams.arrival = Arrival::Steered,
                5 => teams.move_host(
                    host,
                    format!("198.51.100.{}:7", 1 + roll(200)).parse().unwrap(),
                ),
                6 => teams.pass(Duration::from_millis(roll(200_000))),
                _ => {
                    for _ in 0..20 {
                        let port = PORTS.start + roll(64) as u16;
                        let ports = if roll(2) == 0 {
                            (port, SERVICE)
                        } else {
                            (SERVICE, port)
                        };
                        let number = roll(teams.hosts[host].shards.len() as u64) as usize;
                        let packet = teams.udp(host, 1 - host, ports, b"hello");
                        teams.send_by(host, number, &packet);
                    }
                    teams.pass(Duration::from_millis(roll(3_000)));
                }
            }
        }
        for host in [0, 1] {
            teams.open_hand_overs(host);
        }
        // Longer than any session of before is believed in.
        teams.pass(200 * SECOND);
        for host in [0, 1] {
            let index = teams.index(host, 1 - host);
            let path = teams.path_to(index, 1 - host);
            teams.command(host, &[path]);
        }
        lost(&mut teams);
        teams.pass(10 * SECOND);
        for host in &mut teams.hosts {
            host.delivered.clear();
        }
        assert_eq!(lost(&mut teams), 0, "seed {seed}");
    }
}
