//! Lines, deadlines, and services of which nothing is ready.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use traffic::{
    Admission, BalanceSettings, CallShape, Ending, Failure, GiveUp, Health, LimitSettings, Next,
    NoneReady, Outcome, Overflow, PerTry, Pick, Replay, Settings, TimeoutSettings, Upstream,
};

use crate::world::{at, host};

fn upstream(settings: Settings, endpoints: usize) -> Upstream {
    let mut upstream = Upstream::new(settings, Arc::default(), [5; 32], at(0));
    upstream.set_endpoints(&(0..endpoints).map(host).collect::<Vec<_>>(), at(0));
    upstream
}

#[test]
fn what_is_above_the_limit_waits_and_what_is_above_the_line_is_refused() {
    let settings = Settings {
        limits: LimitSettings {
            in_flight: 2,
            waiting: 1,
            ..LimitSettings::default()
        },
        ..Settings::default()
    };
    let mut upstream = upstream(settings, 1);
    let mut calls: Vec<_> = (0..4)
        .map(|_| upstream.begin(CallShape::default(), at(0)))
        .collect();
    let admitted: Vec<_> = calls
        .iter_mut()
        .map(|call| upstream.poll_admission(call, Waker::noop(), at(0)))
        .collect();
    let go = Poll::Ready(Admission::Go);
    let full = Poll::Ready(Admission::Overflow(Overflow::LineFull));
    assert_eq!(admitted, [go, go, Poll::Pending, full]);
    assert_eq!(
        (upstream.gauge().in_flight(), upstream.gauge().waiting()),
        (2, 1)
    );

    upstream.end(calls.remove(0), Ending::Complete, at(5));
    assert_eq!(
        upstream.poll_admission(&mut calls[1], Waker::noop(), at(5)),
        go
    );
    for call in calls {
        upstream.end(call, Ending::Abandoned, at(6));
    }
    assert_eq!(
        (upstream.gauge().in_flight(), upstream.gauge().waiting()),
        (0, 0)
    );
}

#[test]
fn a_call_in_line_does_not_wait_longer_than_its_caller() {
    let settings = Settings {
        limits: LimitSettings {
            in_flight: 0,
            ..LimitSettings::default()
        },
        ..Settings::default()
    };
    let mut upstream = upstream(settings, 1);
    let shape = CallShape {
        deadline: Some(at(300)),
        ..CallShape::default()
    };
    let mut call = upstream.begin(shape, at(0));
    assert!(
        upstream
            .poll_admission(&mut call, Waker::noop(), at(0))
            .is_pending()
    );
    assert!(
        upstream
            .poll_admission(&mut call, Waker::noop(), at(299))
            .is_pending()
    );
    let waited = Poll::Ready(Admission::Overflow(Overflow::Waited));
    assert_eq!(
        upstream.poll_admission(&mut call, Waker::noop(), at(300)),
        waited
    );
    upstream.end(call, Ending::Complete, at(300));
}

#[test]
fn where_there_is_none_the_first_calls_wait_a_second_and_later_ones_fail_at_once() {
    let mut upstream = upstream(Settings::default(), 0);
    let mut first = upstream.begin(CallShape::default(), at(0));
    assert!(
        upstream
            .poll_pick(&mut first, Waker::noop(), at(0))
            .is_pending()
    );
    assert_eq!(first.poll_again_at(), at(1_000));
    let none = Poll::Ready(Pick::NoneReady(NoneReady::NoEndpoints));
    assert_eq!(
        upstream.poll_pick(&mut first, Waker::noop(), at(1_000)),
        none
    );

    let mut second = upstream.begin(CallShape::default(), at(5_000));
    assert_eq!(
        upstream.poll_pick(&mut second, Waker::noop(), at(5_000)),
        none
    );

    upstream.set_endpoints(&[host(0)], at(6_000));
    upstream.set_endpoints(&[], at(7_000));
    let mut third = upstream.begin(CallShape::default(), at(7_000));
    assert!(
        upstream
            .poll_pick(&mut third, Waker::noop(), at(7_000))
            .is_pending()
    );
    upstream.set_endpoints(&[host(0)], at(7_500));
    let picked = upstream.poll_pick(&mut third, Waker::noop(), at(7_500));
    assert!(matches!(picked, Poll::Ready(Pick::Chosen(_))), "{picked:?}");
    for call in [first, second, third] {
        upstream.end(call, Ending::Abandoned, at(8_000));
    }
}

#[test]
fn where_all_are_down_no_call_waits() {
    let mut upstream = upstream(Settings::default(), 2);
    upstream.set_health(host(0), Health::Down, at(0));
    upstream.set_reachable(|id| id != host(1), at(0));
    let mut call = upstream.begin(CallShape::default(), at(0));
    let picked = upstream.poll_pick(&mut call, Waker::noop(), at(0));
    assert_eq!(picked, Poll::Ready(Pick::NoneReady(NoneReady::AllDown)));
    upstream.end(call, Ending::Complete, at(0));
}

#[test]
fn the_nearer_of_two_deadlines_holds_and_no_attempt_is_longer() {
    let settings = Settings {
        timeouts: TimeoutSettings {
            request: Duration::from_secs(2),
            per_try: PerTry::Fixed(Duration::from_millis(800)),
            ..TimeoutSettings::default()
        },
        ..Settings::default()
    };
    let mut upstream = upstream(settings, 2);
    for (told, expected, first_try) in [
        (None, 2_000, 800),
        (Some(500), 500, 500),
        (Some(9_000), 2_000, 800),
    ] {
        let shape = CallShape {
            deadline: told.map(at),
            ..CallShape::default()
        };
        let mut call = upstream.begin(shape, at(0));
        assert_eq!(call.deadline(), at(expected));
        let _ = upstream.poll_pick(&mut call, Waker::noop(), at(0));
        assert_eq!(call.try_until(), at(first_try));
        assert_eq!(call.left(at(100)), Duration::from_millis(expected - 100));
        upstream.end(call, Ending::Abandoned, at(0));
    }
}

#[test]
fn nothing_is_tried_again_that_would_come_too_late() {
    let mut upstream = upstream(Settings::default(), 2);
    let shape = CallShape {
        idempotent: true,
        deadline: Some(at(100)),
        ..CallShape::default()
    };
    let mut call = upstream.begin(shape, at(0));
    let _ = upstream.poll_pick(&mut call, Waker::noop(), at(0));
    let failed = Outcome::Failed(Failure::Timeout);
    let next = upstream.finished(&mut call, failed, Replay::Possible, at(100));
    assert_eq!(next, Next::GiveUp(GiveUp::Deadline));
    upstream.end(call, Ending::Complete, at(100));
}

#[test]
fn an_answer_whose_trailers_say_that_it_failed_counts_against_its_endpoint() {
    let settings = Settings {
        balance: BalanceSettings {
            failure_latency: Duration::ZERO,
            ..BalanceSettings::default()
        },
        ..Settings::default()
    };
    let mut upstream = upstream(settings, 2);
    for _ in 0..40 {
        let mut call = upstream.begin(CallShape::default(), at(0));
        let Poll::Ready(Pick::Chosen(choice)) = upstream.poll_pick(&mut call, Waker::noop(), at(0))
        else {
            panic!("two are ready");
        };
        upstream.finished(&mut call, Outcome::Begun, Replay::Possible, at(0));
        let code = if choice.endpoint == host(0) { 14 } else { 0 };
        upstream.settle(&mut call, Outcome::of_grpc(code), at(0));
        upstream.end(call, Ending::Complete, at(0));
    }
    let ejected = upstream
        .endpoints(at(0))
        .filter(|view| view.tripped.is_some());
    assert_eq!(
        ejected.map(|view| view.endpoint).collect::<Vec<_>>(),
        [host(0)]
    );
}
