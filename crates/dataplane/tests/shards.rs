//! Hosts with several shards: each peer has one of them, whichever a packet comes to.

mod pair;

use dataplane::{Command, DropReason, Event};
use pair::team::{Arrival, Teams};

/// Both directions, twice, by whichever shard; returns what was not delivered as it was sent.
fn lost(teams: &mut Teams, one: usize, other: usize) -> usize {
    let mut lost = 0;
    for port in [1, 2] {
        for (from, to) in [(one, other), (other, one)] {
            let packet = teams.udp(from, to, (port, port), b"hello");
            teams.send(from, &packet);
            lost += usize::from(teams.hosts[to].take_delivered() != [packet]);
        }
    }
    lost
}

#[test]
fn a_host_with_several_shards_talks_to_hosts_with_any_number() {
    for counts in [&[4, 1, 1, 1, 1, 1, 1][..], &[4, 2, 8], &[2, 2], &[64, 1]] {
        for arrival in [Arrival::InTurn, Arrival::Steered] {
            let mut teams = Teams::new(counts);
            teams.arrival = arrival;
            for one in 0..counts.len() {
                for other in one + 1..counts.len() {
                    assert_eq!(lost(&mut teams, one, other), 0, "{counts:?} {one} {other}");
                }
            }
            for host in &teams.hosts {
                assert_eq!(host.dropped_at_all(), 0);
            }
        }
    }
}

#[test]
fn each_peer_has_one_shard_with_all_that_is_its_own() {
    let mut teams = Teams::new(&[4, 1, 1, 1, 1, 1, 1]);
    for peer in 1..7 {
        lost(&mut teams, 0, peer);
    }
    teams.hosts[0].events.clear();
    for number in 0..4u32 {
        let report = teams.report(0, number as usize);
        let indices: Vec<u32> = report.iter().map(|peer| peer.peer.0).collect();
        let expected: Vec<u32> = (0..6).filter(|index| index % 4 == number).collect();
        assert_eq!(indices, expected);
        assert!(report.iter().all(|peer| peer.last_handshake.is_some()));
        let (_, counters) = &teams.hosts[0].shards[number as usize];
        assert_eq!(counters.flows(), 2 * expected.len() as u64);
    }
}

#[test]
fn what_the_kernel_steers_is_not_handed_over() {
    let mut teams = Teams::new(&[4, 1, 1, 1, 1]);
    teams.arrival = Arrival::Steered;
    for peer in 1..5 {
        let shard = teams.index(0, peer).0 as usize;
        let packet = teams.udp(peer, 0, (1, 2), b"hello");
        teams.send(peer, &packet);
        let answer = teams.udp(0, peer, (2, 1), b"hello");
        for _ in 0..10 {
            teams.send_by(0, shard, &answer);
            teams.send(peer, &packet);
        }
        assert_eq!(teams.hosts[peer].take_delivered().len(), 10);
    }
    assert_eq!(teams.hosts[0].take_delivered().len(), 44);
    // The front desk is the first peer's shard; the other three were introduced.
    assert_eq!(teams.hosts[0].hand_overs, 3);
}

#[test]
fn packets_of_one_flow_keep_their_order_on_the_way_through_two_shards() {
    let mut teams = Teams::new(&[4, 2, 1]);
    let (mut sent, mut came) = (Vec::new(), Vec::new());
    for number in 0..200u16 {
        let packet = teams.udp(0, 1, (1, 2), &number.to_be_bytes());
        teams.send_by(0, 3, &packet);
        came.append(&mut teams.hosts[1].take_delivered());
        sent.push(packet);
    }
    assert_eq!(came, sent);
    assert!(
        teams.hosts[0].hand_overs >= 200,
        "none came to its own shard"
    );
}

#[test]
fn what_no_shard_has_room_for_is_counted() {
    let mut teams = Teams::new(&[2, 1, 1]);
    assert_eq!(lost(&mut teams, 0, 2), 0);
    teams.close_hand_overs(0);
    let packet = teams.udp(0, 2, (1, 1), b"hello");
    let index = teams.index(0, 2).0 as usize;
    teams.send_by(0, index, &packet);
    assert_eq!(teams.hosts[2].take_delivered().len(), 1);
    teams.send_by(0, 1 - index, &packet);
    assert_eq!(teams.hosts[2].take_delivered().len(), 0);
    assert_eq!(teams.hosts[0].dropped(DropReason::HandOverFull), 1);
}

#[test]
fn a_removed_peer_is_gone_from_every_shard() {
    let mut teams = Teams::new(&[4, 1, 1]);
    assert_eq!(lost(&mut teams, 0, 2), 0);
    let index = teams.index(0, 2);
    teams.command(0, &[Command::RemovePeer { index }]);
    let packet = teams.udp(0, 2, (1, 1), b"hello");
    for number in 0..4 {
        teams.send_by(0, number, &packet);
    }
    assert_eq!(teams.hosts[0].dropped(DropReason::UnknownDestination), 4);
    // With another number it has another shard, and talks as before.
    let index = model::map::PeerIndex(index.0 + 2);
    let commands = [teams.introduction(index, 2), teams.path_to(index, 2)];
    teams.command(0, &commands);
    let unknown_to_the_rules = teams.udp(0, 2, (1, 1), b"hello");
    teams.send(0, &unknown_to_the_rules);
    assert_eq!(teams.hosts[0].dropped(DropReason::DeniedOutbound), 1);
}

#[test]
fn an_introduction_can_be_replayed_no_more_than_an_initiation() {
    let mut teams = Teams::new(&[4, 1, 1, 1]);
    let packet = teams.udp(3, 0, (1, 2), b"hello");
    teams.send(3, &packet);
    assert_eq!(teams.hosts[0].take_delivered(), [packet]);
    let initiation = teams.seen[0].clone();
    assert_eq!(initiation.bytes.len(), 148);
    let established = |teams: &Teams| {
        let is_one = |event: &&Event| matches!(event, Event::SessionEstablished { .. });
        teams.hosts[0].events.iter().filter(is_one).count()
    };
    let before = established(&teams);
    for _ in 0..4 {
        teams.receive(&initiation);
    }
    assert_eq!(teams.hosts[0].dropped(DropReason::HandshakeReplayed), 4);
    assert_eq!(established(&teams), before);
}

#[test]
fn the_only_shard_hands_nothing_over() {
    let mut teams = Teams::new(&[1, 1]);
    teams.close_hand_overs(0);
    teams.close_hand_overs(1);
    assert_eq!(lost(&mut teams, 0, 1), 0);
    assert_eq!(teams.hosts[0].hand_overs, 0);
}
