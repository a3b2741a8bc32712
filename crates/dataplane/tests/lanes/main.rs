//! Lanes: two hosts with several shards have a session for each pair of them when there is traffic,
//! flows are spread over these, and whatever happens to a lane cuts no flow.

mod claimed;
mod full_queues;
mod initiations;
#[path = "../pair/mod.rs"]
mod pair;
mod what_happens;

use std::collections::BTreeSet;
use std::time::Duration;

use dataplane::{DropReason, Limits};
use pair::team::{Arrival, Teams};
use pair::udp_port;

const SECOND: Duration = Duration::from_secs(1);
/// A service: what comes from here passes only as a reply.
const SERVICE: u16 = 53;
/// Clients' ports, more than enough for every lane to have some.
const PORTS: std::ops::Range<u16> = 40_000..40_064;

/// Any traffic at all is worth a lane.
fn eager() -> Limits {
    Limits {
        lane_bytes_per_sec: 1,
        lane_bytes_kept: 1,
        ..Limits::default()
    }
}

/// Two hosts with so many shards, of which each may ask the other's service.
fn teams(counts: [u16; 2]) -> Teams {
    let mut teams = Teams::with(&counts, eager(), udp_port(SERVICE));
    teams.arrival = Arrival::Steered;
    teams
}

/// Sends one packet and returns whether it arrived as it was.
fn passes(teams: &mut Teams, from: usize, to: usize, ports: (u16, u16)) -> bool {
    let packet = teams.udp(from, to, ports, b"hello");
    teams.send(from, &packet);
    teams.hosts[to].take_delivered() == [packet]
}

/// Clients at both ends ask and are answered; returns how often something was lost.
fn lost(teams: &mut Teams) -> usize {
    let mut lost = 0;
    for port in PORTS {
        for (client, server) in [(0, 1), (1, 0)] {
            lost += usize::from(!passes(teams, client, server, (port, SERVICE)));
            lost += usize::from(!passes(teams, server, client, (SERVICE, port)));
        }
    }
    lost
}

/// Servers only answer, as to clients that wait for more.
fn lost_answers(teams: &mut Teams) -> usize {
    let mut lost = 0;
    for port in PORTS {
        for (client, server) in [(0, 1), (1, 0)] {
            lost += usize::from(!passes(teams, server, client, (SERVICE, port)));
        }
    }
    lost
}

/// Traffic for three seconds: as long as it takes to see that there is some.
fn open_lanes(teams: &mut Teams) {
    for _ in 0..3 {
        assert_eq!(lost(teams), 0);
        teams.pass(SECOND);
    }
    assert_eq!(lost(teams), 0);
}

/// The lanes that a host has a session for, with the main one.
fn lanes(teams: &mut Teams, host: usize) -> Vec<u16> {
    let sessions = teams.sessions(host, 1 - host);
    let live = sessions.iter().filter(|it| it.cipher.is_some());
    live.map(|it| it.lane).collect()
}

fn no_drops(teams: &Teams) {
    for (number, host) in teams.hosts.iter().enumerate() {
        assert_eq!(
            host.dropped_at_all(),
            0,
            "host {number}: {:?}",
            drops(teams, number)
        );
    }
}

fn drops(teams: &Teams, host: usize) -> Vec<(DropReason, u64)> {
    let all = DropReason::ALL.iter();
    let counted = all.map(|reason| (*reason, teams.hosts[host].dropped(*reason)));
    counted.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_pair_of_hosts_has_as_many_lanes_as_both_have_shards_for() {
    for counts in [[4, 4], [4, 2], [2, 8], [2, 2], [8, 64]] {
        for arrival in [Arrival::Steered, Arrival::InTurn] {
            let mut teams = teams(counts);
            teams.arrival = arrival;
            open_lanes(&mut teams);
            let least = *counts.iter().min().unwrap();
            for host in [0, 1] {
                let expected: Vec<u16> = (0..least).collect();
                assert_eq!(lanes(&mut teams, host), expected, "{counts:?}");
                let shards = teams.hosts[host].shards.iter();
                let busy = shards.filter(|(_, counters)| counters.flows() > 0).count();
                assert_eq!(busy, usize::from(least), "{counts:?}: each has its flows");
                let flows = teams.hosts[host].shards.iter().map(|(_, it)| it.flows());
                assert_eq!(flows.sum::<u64>(), 128, "and nobody else");
            }
            assert_eq!(lost(&mut teams), 0);
            no_drops(&teams);
        }
    }
}

#[test]
fn a_host_with_one_shard_has_no_lanes_and_is_asked_for_none() {
    let mut teams = teams([4, 1]);
    open_lanes(&mut teams);
    for host in [0, 1] {
        assert_eq!(lanes(&mut teams, host), [0]);
    }
    no_drops(&teams);
    assert_eq!(teams.hosts[1].hand_overs, 0);
}

#[test]
fn two_hosts_with_one_shard_have_one_session() {
    let mut teams = teams([1, 1]);
    teams.close_hand_overs(0);
    teams.close_hand_overs(1);
    open_lanes(&mut teams);
    for host in [0, 1] {
        assert_eq!(lanes(&mut teams, host), [0]);
        assert_eq!(teams.hosts[host].hand_overs, 0);
    }
    no_drops(&teams);
}

#[test]
fn what_does_not_need_a_second_core_gets_none() {
    let mut teams = Teams::with(&[4, 4], Limits::default(), udp_port(SERVICE));
    open_lanes(&mut teams);
    for host in [0, 1] {
        assert_eq!(lanes(&mut teams, host), [0]);
    }
}

#[test]
fn a_flow_stays_with_one_shard_at_each_end_whichever_its_packets_come_to() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    for port in PORTS {
        let packet = teams.udp(0, 1, (port, SERVICE), b"hello");
        // The kernel gives the packets of a flow to the queue that its answers are written to.
        let without_hand_over = (0..4).filter(|number| {
            let before = [0, 1].map(|host| teams.hosts[host].hand_overs);
            teams.send_by(0, *number, &packet);
            [0, 1].map(|host| teams.hosts[host].hand_overs) == before
        });
        assert_eq!(without_hand_over.count(), 1, "{port}");
        assert_eq!(teams.hosts[1].take_delivered().len(), 4);
    }
    no_drops(&teams);
}

#[test]
fn the_packets_of_a_flow_keep_their_order() {
    for arrival in [Arrival::Steered, Arrival::InTurn] {
        let mut teams = teams([4, 2]);
        teams.arrival = arrival;
        open_lanes(&mut teams);
        for port in PORTS {
            let (mut sent, mut came) = (Vec::new(), Vec::new());
            for number in 0..50u16 {
                let packet = teams.udp(0, 1, (port, SERVICE), &number.to_be_bytes());
                teams.send(0, &packet);
                came.append(&mut teams.hosts[1].take_delivered());
                sent.push(packet);
            }
            assert_eq!(came, sent);
        }
    }
}

#[test]
fn fragments_go_where_their_first_one_goes() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    for port in PORTS {
        for (from, to, ports) in [(0, 1, (port, SERVICE)), (1, 0, (SERVICE, port))] {
            let mut first = teams.udp(from, to, ports, &[7; 1000]);
            first[4..6].copy_from_slice(&port.to_be_bytes());
            let mut later = first.clone();
            first[6..8].copy_from_slice(&0x2000u16.to_be_bytes());
            later[6..8].copy_from_slice(&126u16.to_be_bytes());
            for packet in [&mut first, &mut later] {
                packet[10..12].fill(0);
                let checksum = pair::packets::checksum(&packet[..20]);
                packet[10..12].copy_from_slice(&checksum);
            }
            // The kernel gives the pieces of one packet to one queue.
            let number = usize::from(port % 4);
            teams.send_by(from, number, &first);
            teams.send_by(from, number, &later);
            assert_eq!(teams.hosts[to].take_delivered(), [first, later], "{port}");
        }
    }
    no_drops(&teams);
}

#[test]
fn many_sessions_of_one_shard_at_each_end_have_different_indices() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    teams.seen.clear();
    assert_eq!(lost(&mut teams), 0);
    for host in [0, 1] {
        let address = teams.hosts[host].underlay();
        let data = teams
            .seen
            .iter()
            .filter(|it| it.to == address && it.bytes[0] == 4);
        let shards: BTreeSet<u8> = data.map(|it| it.bytes[4] % 4).collect();
        assert_eq!(shards.len(), 4, "each leads to its shard");
    }
}
