//! Initiations of lanes that somebody else recorded or changed.

use dataplane::DropReason;

use crate::pair::Datagram;
use crate::pair::team::Teams;
use crate::{SECOND, SERVICE, drops, lanes, open_lanes, passes, teams};

/// Every beginning of a handshake that went to a host.
pub(crate) fn initiations(teams: &Teams, to: usize) -> Vec<Datagram> {
    let address = teams.hosts[to].underlay();
    let seen = teams.seen.iter();
    seen.filter(|it| it.bytes[0] == 1 && it.to == address)
        .cloned()
        .collect()
}

#[test]
fn initiations_of_lanes_cannot_be_replayed_in_any_lane() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    let replayed = initiations(&teams, 1);
    assert_eq!(
        replayed.len() + initiations(&teams, 0).len(),
        4,
        "one for each lane"
    );
    let before = teams.sessions(1, 0);
    for initiation in &replayed {
        teams.receive(initiation);
    }
    let count = replayed.len() as u64;
    assert_eq!(teams.hosts[1].dropped(DropReason::HandshakeReplayed), count);
    assert_eq!(teams.sessions(1, 0), before);
    // Nor after they are gone.
    teams.pass(400 * SECOND);
    assert!(lanes(&mut teams, 1).is_empty());
    for initiation in &replayed {
        teams.receive(initiation);
    }
    assert_eq!(
        teams.hosts[1].dropped(DropReason::HandshakeReplayed),
        2 * count
    );
}

#[test]
fn what_was_said_to_another_run_of_the_daemon_begins_no_lane() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    let recorded = initiations(&teams, 1);
    teams.restart(1, 4);
    assert!(passes(&mut teams, 1, 0, (40_000, SERVICE)));
    open_lanes(&mut teams);
    let before = drops(&teams, 1);
    for initiation in &recorded {
        teams.receive(initiation);
    }
    // All but that of the main session, for which nothing is remembered.
    let refused = teams.hosts[1].dropped(DropReason::HandshakeUnexpected)
        + teams.hosts[1].dropped(DropReason::HandshakeReplayed);
    assert_eq!((before, refused), (vec![], recorded.len() as u64 - 1));
}

#[test]
fn a_forged_number_of_a_lane_is_nothing_but_a_broken_message() {
    let mut teams = teams([4, 4]);
    open_lanes(&mut teams);
    let genuine = initiations(&teams, 1);
    let before = teams.sessions(1, 0);
    for (at, bit) in [(4, 1), (7, 0x80), (100, 1), (115, 4), (120, 1)] {
        let mut forged = genuine[0].clone();
        forged.bytes[at] ^= bit;
        teams.receive(&forged);
    }
    assert_eq!(teams.hosts[1].dropped(DropReason::HandshakeBadMac), 5);
    assert_eq!(teams.sessions(1, 0), before);
}
