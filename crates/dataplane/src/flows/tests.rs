//! Bounds and eviction.

use std::collections::BTreeSet;

use model::map::PeerIndex;
use model::rule::ip_protocol::UDP;
use proptest::prelude::*;

use super::*;
use crate::packet::Upper;

const NOW: Instant = Instant::START;

fn upper(port: u16) -> Upper {
    Upper::Udp {
        source_port: port,
        destination_port: 53,
    }
}

fn key(peer: u32, port: u16) -> FlowKey {
    FlowKey::new(
        upper(port),
        UDP,
        false,
        Direction::Outbound,
        PeerIndex(peer),
    )
}

fn flow(peer: u32, port: u16) -> Flow {
    Flow::new(
        key(peer, port),
        Direction::Outbound,
        Direction::Outbound,
        1,
        NOW,
    )
}

fn established(peer: u32, port: u16) -> Flow {
    let mut flow = flow(peer, port);
    flow.note(upper(port), Direction::Inbound, NOW);
    flow
}

fn has(flows: &mut Flows, peer: u32, port: u16) -> bool {
    flows.find_mut(&key(peer, port), NOW).is_some()
}

#[test]
fn unreplied_flows_make_room_and_established_ones_of_others_stay() {
    let mut flows = Flows::new(8, 8, 1);
    for port in 0..6 {
        assert!(flows.insert(established(0, port), NOW));
    }
    for port in 0..100 {
        assert!(flows.insert(flow(1, port), NOW));
    }
    assert_eq!(flows.len(), 8);
    assert_eq!(flows.evicted(), 98);
    assert!((0..6).all(|port| has(&mut flows, 0, port)));
}

#[test]
fn a_table_full_of_established_flows_in_fair_shares_refuses_others() {
    let mut flows = Flows::new(8, 8, 1);
    for port in 0..8 {
        assert!(flows.insert(established(u32::from(port) % 4, port), NOW));
    }
    assert!(!flows.insert(flow(9, 1), NOW));
    let later = NOW + Duration::from_secs(3600);
    assert!(flows.insert(flow(9, 1), later), "idle flows make room");
    assert_eq!(flows.evicted(), 0, "their time was over");
}

#[test]
fn a_peer_with_more_than_its_share_yields_to_one_with_less() {
    let mut flows = Flows::new(8, 8, 1);
    for port in 0..7 {
        assert!(flows.insert(established(0, port), NOW));
    }
    assert!(flows.insert(established(1, 0), NOW));
    assert!(flows.insert(established(2, 0), NOW));
    assert!(flows.insert(established(2, 1), NOW));
    assert!(
        !flows.insert(established(2, 2), NOW),
        "8 among 3 are 2 for each"
    );
    assert!(
        has(&mut flows, 1, 0),
        "who has less than its share keeps it"
    );
    assert_eq!(flows.len(), 8);
    assert_eq!(*flows.count_of(0), 5);
}

#[test]
fn a_table_without_places_refuses() {
    assert!(!Flows::new(0, 8, 1).insert(flow(0, 1), NOW));
    assert!(!Flows::new(8, 0, 1).insert(flow(0, 1), NOW));
}

#[test]
fn a_peer_at_its_bound_pushes_out_its_own() {
    let mut flows = Flows::new(100, 4, 1);
    for port in 0..4 {
        assert!(flows.insert(established(0, port), NOW));
    }
    assert!(flows.insert(established(1, 1), NOW));
    assert!(flows.insert(flow(0, 10), NOW));
    assert_eq!(flows.len(), 5);
    assert!(has(&mut flows, 0, 10) && has(&mut flows, 1, 1));
}

#[test]
fn a_sweep_forgets_what_has_idled_out() {
    let mut flows = Flows::new(100, 100, 1);
    for port in 0..50 {
        flows.insert(
            if port % 2 == 0 {
                flow(0, port)
            } else {
                established(0, port)
            },
            NOW,
        );
    }
    flows.sweep(NOW + Duration::from_secs(31));
    assert_eq!(flows.len(), 25);
    flows.sweep(NOW + Duration::from_secs(181));
    assert_eq!(flows.len(), 0);
}

proptest! {
    #[test]
    fn the_table_is_a_set_of_keys(steps in proptest::collection::vec((0u32..4, 0u16..40, 0u8..8), 0..400)) {
        let mut flows = Flows::new(64, 64, 7);
        let mut model = BTreeSet::new();
        for (peer, port, step) in steps {
            match step {
                0 => {
                    flows.remove_peer(peer);
                    model.retain(|(other, _)| *other != peer);
                }
                1 | 2 => {
                    flows.remove(&key(peer, port));
                    model.remove(&(peer, port));
                }
                _ if model.len() < 64 => {
                    prop_assert!(flows.insert(flow(peer, port), NOW));
                    model.insert((peer, port));
                }
                _ => {}
            }
            prop_assert_eq!(flows.len(), model.len());
        }
        for peer in 0..4 {
            let count = model.iter().filter(|(other, _)| *other == peer).count();
            prop_assert_eq!(*flows.count_of(peer) as usize, count);
            prop_assert!(flows.peers <= 4 && (flows.peers == 0) == model.is_empty());
            for port in 0..40 {
                prop_assert_eq!(has(&mut flows, peer, port), model.contains(&(peer, port)));
            }
        }
    }
}
