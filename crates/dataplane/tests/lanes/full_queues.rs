//! Words and flows between two shards that find no room, or a successor that is told of them.

use std::time::Duration;

use dataplane::{Bequest, DropReason, Extent, Limits};

use crate::pair::team::{Arrival, Teams};
use crate::pair::udp_port;
use crate::{
    PORTS, SECOND, SERVICE, eager, lanes, lost, lost_answers, no_drops, open_lanes, passes, teams,
};

/// Longer than what found no room waits before it is said again.
const SOON: Duration = Duration::from_millis(100);

fn flows_of_lanes(teams: &Teams, host: usize) -> u64 {
    // Both hosts know only one peer, the first, whose home is the first shard.
    let lanes = &teams.hosts[host].shards[1..];
    lanes.iter().map(|(_, counters)| counters.flows()).sum()
}

fn flows(teams: &Teams, host: usize) -> u64 {
    let all = teams.hosts[host].shards.iter();
    all.map(|(_, counters)| counters.flows()).sum()
}

fn bequest(teams: &mut Teams, host: usize) -> Bequest {
    let mut left = Bequest::default();
    for number in 0..teams.hosts[host].shards.len() {
        left.merge(teams.with_shard(host, number, |shard, now| {
            shard.bequeath(Extent::PeersAndFlows, now)
        }));
    }
    left
}

#[test]
fn a_lane_that_could_not_be_given_its_flows_gets_them_later() {
    let mut teams = teams([2, 2]);
    for host in [0, 1] {
        teams.refuse_words(host, &["Open"]);
    }
    open_lanes(&mut teams);
    for host in [0, 1] {
        assert_eq!(lanes(&mut teams, host), [0]);
        assert_eq!(flows_of_lanes(&teams, host), 0, "they are at home");
        teams.refuse_words(host, &[]);
    }
    teams.pass(SOON);
    for host in [0, 1] {
        assert_eq!(lanes(&mut teams, host), [0, 1]);
        assert!(flows_of_lanes(&teams, host) > 0);
    }
    assert_eq!(lost_answers(&mut teams), 0);
    no_drops(&teams);
}

#[test]
fn flows_that_could_not_go_back_home_go_later() {
    let mut teams = teams([2, 2]);
    for host in [0, 1] {
        teams.refuse_words(host, &["Open", "Gone"]);
    }
    open_lanes(&mut teams);
    // The lane's session carries nothing, and ends.
    for _ in 0..10 {
        teams.pass(20 * SECOND);
        assert_eq!(lost_answers(&mut teams), 0);
    }
    teams.refuse_words(0, &["Closed", "Gone"]);
    teams.pass(SOON);
    assert!(flows_of_lanes(&teams, 0) > 0, "they came too late");
    assert_eq!(flows(&teams, 0), 128);
    teams.refuse_words(0, &[]);
    teams.pass(SOON);
    assert_eq!(flows_of_lanes(&teams, 0), 0);
    assert_eq!(lost_answers(&mut teams), 0);
    no_drops(&teams);
}

#[test]
fn lanes_neither_open_nor_close_while_a_successor_is_told_of_the_flows() {
    let mut teams = teams([4, 4]);
    teams.refuse_words(0, &["Open"]);
    open_lanes(&mut teams);
    let hold = |teams: &mut Teams| {
        for number in 0..4 {
            teams.with_shard(0, number, |shard, _| shard.hold_lanes());
        }
    };
    let go_on = |teams: &mut Teams| {
        for number in 0..4 {
            teams.with_shard(0, number, |shard, now| shard.reclaim_dates(now));
        }
        teams.pass(SOON);
    };
    hold(&mut teams);
    teams.refuse_words(0, &[]);
    teams.pass(SOON);
    assert_eq!(flows_of_lanes(&teams, 0), 0, "none is opened");
    go_on(&mut teams);
    let spread = flows_of_lanes(&teams, 0);
    assert!(spread > 0);
    hold(&mut teams);
    // Another run of the peer's daemon ends all lanes.
    teams.restart(1, 1);
    let packet = teams.udp(1, 0, (40_000, SERVICE), b"hello");
    teams.send(1, &packet);
    teams.pass(SOON);
    assert_eq!(flows_of_lanes(&teams, 0), spread, "none is closed");
    assert_eq!(bequest(&mut teams, 0).flow_count(), 128);
    go_on(&mut teams);
    assert_eq!(flows_of_lanes(&teams, 0), 0);
    assert_eq!(bequest(&mut teams, 0).flow_count(), 128);
}

#[test]
fn bytes_of_lanes_that_are_gone_are_left_to_a_successor() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    teams.pass(400 * SECOND);
    assert!(lanes(&mut teams, 0).is_empty());
    let sessions = teams.sessions(0, 1);
    assert!(sessions.iter().any(|it| it.lane > 0 && it.sent_bytes > 0));
    let left = bequest(&mut teams, 0);
    let [peer] = &left.peers[..] else {
        panic!("one peer is left: {left:?}");
    };
    let sent: u64 = sessions.iter().map(|it| it.sent_bytes).sum();
    let received: u64 = sessions.iter().map(|it| it.received_bytes).sum();
    assert_eq!((peer.sent_bytes, peer.received_bytes), (sent, received));
    assert!(peer.path.is_some());
}

#[test]
fn greetings_and_rejections_do_not_use_up_each_other() {
    let lanes_with = |limits: Limits| {
        let mut teams = Teams::with(&[2, 2], limits, udp_port(SERVICE));
        teams.arrival = Arrival::Steered;
        open_lanes(&mut teams);
        lanes(&mut teams, 0)
    };
    let no_rejections = Limits {
        rejections_per_peer_per_sec: 0,
        ..eager()
    };
    assert_eq!(lanes_with(no_rejections), [0, 1]);
    let no_greetings = Limits {
        greetings_per_peer_per_sec: 0,
        ..eager()
    };
    assert_eq!(lanes_with(no_greetings), [0]);
}

#[test]
fn a_lane_that_is_begun_anew_while_its_flows_wait_opens_at_both_ends() {
    let mut teams = teams([2, 2]);
    open_lanes(&mut teams);
    teams.refuse_words(0, &["Closed"]);
    // Another run of the peer's daemon ends the lane, and traffic begins it anew.
    teams.restart(1, 2);
    for port in PORTS {
        assert!(passes(&mut teams, 1, 0, (port, SERVICE)), "{port}");
    }
    for _ in 0..4 {
        lost(&mut teams);
        teams.pass(SECOND);
    }
    assert_eq!(lanes(&mut teams, 0), [0, 1]);
    assert!(flows(&teams, 0) > 128, "some are at both places");
    teams.refuse_words(0, &[]);
    teams.pass(SOON);
    assert_eq!(lost(&mut teams), 0);
    assert!(flows_of_lanes(&teams, 0) > 0);
    assert_eq!(flows(&teams, 0), 128);
}

#[test]
fn a_rejection_finds_its_flow_where_one_end_only_has_the_lane_open() {
    let limits = Limits {
        rejections_per_peer_per_sec: 1000,
        ..eager()
    };
    let mut teams = Teams::with(&[2, 2], limits, udp_port(SERVICE));
    teams.arrival = Arrival::Steered;
    teams.refuse_words(1, &["Open"]);
    open_lanes(&mut teams);
    assert!(flows_of_lanes(&teams, 0) > 0);
    assert_eq!(flows_of_lanes(&teams, 1), 0);
    teams.set_traffic(1, udp_port(SERVICE + 1), 2);
    for port in PORTS {
        let packet = teams.udp(0, 1, (port, SERVICE), b"hello");
        teams.send(0, &packet);
    }
    let told = teams.hosts[0]
        .shards
        .iter()
        .map(|(_, it)| it.denied_by_peer());
    assert_eq!(told.sum::<u64>(), PORTS.len() as u64);
    assert_eq!(teams.hosts[0].dropped(DropReason::UnrelatedRejection), 0);
}
