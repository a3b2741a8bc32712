//! Calls with one key go to one endpoint, unless that has too much to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Poll, Waker};

use model::ids::HostId;
use model::time::Instant;
use traffic::{Call, CallShape, Ending, Health, Outcome, Pick, Replay, Settings, Upstream, Why};

use crate::world::{at, host};

fn upstream(endpoints: usize) -> Upstream {
    let mut upstream = Upstream::new(Settings::default(), Arc::default(), [5; 32], at(0));
    upstream.set_endpoints(&(0..endpoints).map(host).collect::<Vec<_>>(), at(0));
    upstream
}

fn pick(upstream: &mut Upstream, key: u64, now: Instant) -> (Call, HostId, Why) {
    let shape = CallShape {
        key: Some(key),
        ..CallShape::default()
    };
    let mut call = upstream.begin(shape, now);
    match upstream.poll_pick(&mut call, Waker::noop(), now) {
        Poll::Ready(Pick::Chosen(choice)) => (call, choice.endpoint, choice.why),
        other => panic!("{other:?}"),
    }
}

fn homes(upstream: &mut Upstream) -> BTreeMap<u64, HostId> {
    let home = |key: u64| {
        let (mut call, endpoint, why) = pick(upstream, key, at(0));
        assert_eq!(why, Why::Sticky);
        upstream.finished(&mut call, Outcome::Succeeded, Replay::Possible, at(0));
        upstream.end(call, Ending::Complete, at(0));
        (key, endpoint)
    };
    (0..2000).map(home).collect()
}

#[test]
fn keys_stay_with_their_endpoint_and_only_those_of_one_that_leaves_move() {
    let mut upstream = upstream(10);
    let before = homes(&mut upstream);
    assert_eq!(before, homes(&mut upstream));
    for server in 0..10 {
        let keys = before
            .values()
            .filter(|home| **home == host(server))
            .count();
        assert!((140..260).contains(&keys), "{keys} of 200 at {server}");
    }

    upstream.set_health(host(3), Health::Down, at(0));
    let after = homes(&mut upstream);
    for (key, home) in &before {
        if *home == host(3) {
            assert_ne!(after[key], host(3));
        } else {
            assert_eq!(after[key], *home);
        }
    }
    upstream.set_health(host(3), Health::Up, at(0));
    assert_eq!(before, homes(&mut upstream), "they come back to it");
}

#[test]
fn two_proxies_agree_where_a_key_goes() {
    let (mut one, mut other) = (upstream(7), upstream(7));
    assert_eq!(homes(&mut one), homes(&mut other));
}

#[test]
fn a_hot_key_spills_over_before_its_endpoint_has_a_quarter_more_than_the_average() {
    let mut upstream = upstream(4);
    let calls: Vec<_> = (0..400).map(|_| pick(&mut upstream, 42, at(0))).collect();
    let most = upstream.endpoints(at(0)).map(|view| view.in_flight).max();
    assert!(most <= Some(126), "{most:?} of 400 at one of 4");
    assert!(calls.iter().any(|(_, _, why)| *why == Why::StickySpilled));
    for (call, ..) in calls {
        upstream.end(call, Ending::Abandoned, at(1));
    }
    assert!(upstream.endpoints(at(1)).all(|view| view.in_flight == 0));
}
