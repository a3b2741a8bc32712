//! Calls that not every endpoint may have.

use std::sync::Arc;
use std::task::{Poll, Waker};

use model::ids::HostId;
use model::time::Instant;
use traffic::{
    Call, CallShape, Ending, Failure, Health, Next, NoneReady, Outcome, Pick, Replay, Settings,
    Upstream,
};

use crate::world::{at, host};

fn upstream(endpoints: usize) -> Upstream {
    let mut upstream = Upstream::new(Settings::default(), Arc::default(), [5; 32], at(0));
    upstream.set_endpoints(&(0..endpoints).map(host).collect::<Vec<_>>(), at(0));
    upstream
}

fn pick(upstream: &mut Upstream, call: &mut Call, may: &[HostId], now: Instant) -> Pick {
    let may = |host| may.contains(&host);
    match upstream.poll_pick_among(call, Some(&may), Waker::noop(), now) {
        Poll::Ready(pick) => pick,
        Poll::Pending => panic!("it waits"),
    }
}

fn shape(key: Option<u64>) -> CallShape {
    CallShape {
        key,
        idempotent: true,
        ..CallShape::default()
    }
}

#[test]
fn only_those_that_may_have_a_call_get_it() {
    // A few are looked at all, of many two are drawn.
    for endpoints in [2, 8, 30] {
        let mut upstream = upstream(endpoints);
        let may = [host(1), host(endpoints - 1)];
        for number in 0..300 {
            let mut call = upstream.begin(shape((number % 3 == 0).then_some(number)), at(number));
            match pick(&mut upstream, &mut call, &may, at(number)) {
                Pick::Chosen(choice) => assert!(may.contains(&choice.endpoint)),
                Pick::NoneReady(why) => panic!("{why:?}"),
            }
            upstream.finished(
                &mut call,
                Outcome::Succeeded,
                Replay::Possible,
                at(number + 1),
            );
            upstream.end(call, Ending::Complete, at(number + 1));
        }
    }
}

#[test]
fn nobody_who_may_not_is_tried_after_a_failure() {
    let mut upstream = upstream(3);
    let mut call = upstream.begin(shape(None), at(0));
    let Pick::Chosen(choice) = pick(&mut upstream, &mut call, &[host(2)], at(0)) else {
        panic!("one may");
    };
    assert_eq!(choice.endpoint, host(2));
    let failed = Outcome::Failed(Failure::Unavailable);
    let next = upstream.finished(&mut call, failed, Replay::Possible, at(1));
    assert!(matches!(next, Next::GiveUp(_)), "{next:?}");
    upstream.end(call, Ending::Complete, at(1));
}

#[test]
fn one_that_is_ejected_serves_those_that_may_go_nowhere_else() {
    let mut upstream = upstream(4);
    let may = [host(0)];
    for number in 0..20 {
        let mut call = upstream.begin(shape(None), at(number));
        let Pick::Chosen(choice) = pick(&mut upstream, &mut call, &may, at(number)) else {
            panic!("it is refused at {number}");
        };
        assert_eq!(choice.endpoint, host(0));
        let failed = Outcome::Failed(Failure::Connect);
        upstream.finished(&mut call, failed, Replay::Impossible, at(number));
        upstream.end(call, Ending::Complete, at(number));
    }
}

#[test]
fn a_call_that_only_those_may_have_that_are_down_is_refused_at_once() {
    let mut upstream = upstream(3);
    upstream.set_health(host(0), Health::Down, at(0));
    let mut call = upstream.begin(shape(None), at(0));
    let picked = pick(&mut upstream, &mut call, &[host(0)], at(0));
    assert_eq!(picked, Pick::NoneReady(NoneReady::NotAllowed));
    upstream.end(call, Ending::Complete, at(0));
}
