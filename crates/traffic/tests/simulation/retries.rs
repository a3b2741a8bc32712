//! What is sent twice, and how much of it there is.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;
use traffic::{
    BudgetSettings, Call, CallShape, Ending, Failure, GiveUp, Health, Outcome, Pick, Replay,
    RetrySettings, Settings, Upstream,
};

use crate::balancing::without_breakers;
use crate::world::{Fate, World, at, host};

#[test]
fn a_storm_of_retries_is_bounded_by_a_fifth_of_the_calls() {
    let settings = Settings {
        retry: RetrySettings {
            attempts: 8,
            ..RetrySettings::default()
        },
        ..without_breakers()
    };
    let mut world = World::new(settings, vec![Fate::fails(Failure::Unavailable); 10]);
    world.run(500, Duration::from_secs(10));
    world.count_anew();
    world.run(500, Duration::from_secs(60));
    let retries = world.attempts_of_all() as f64 - 30_000.0;
    assert!(
        retries <= 0.2 * 30_000.0 + 30.0 * 7.0,
        "{retries} of 30000 calls"
    );
    assert!(retries > 0.15 * 30_000.0, "the budget is used: {retries}");
    assert!(world.tally.bad.contains(&Some(GiveUp::Budget)));
}

#[test]
fn one_bad_endpoint_of_three_is_hidden_from_callers() {
    let servers = vec![
        Fate::answers(10),
        Fate::fails(Failure::Connect),
        Fate::answers(10),
    ];
    let mut world = World::new(Settings::default(), servers).not_idempotent();
    world.run(200, Duration::from_secs(30));
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    assert!(world.attempts(1) > 0);
}

#[test]
fn a_call_is_never_sent_to_the_same_endpoint_twice_while_there_are_others() {
    let settings = Settings {
        retry: RetrySettings {
            attempts: 3,
            ..RetrySettings::default()
        },
        ..without_breakers()
    };
    let mut world = World::new(settings, vec![Fate::fails(Failure::Unavailable); 3]);
    world.run(1, Duration::from_secs(5));
    for server in 0..3 {
        assert_eq!(world.attempts(server), 5, "each of five calls went to each");
    }
}

#[test]
fn a_stream_that_the_only_endpoint_refused_is_sent_there_again() {
    let mut world = World::new(Settings::default(), vec![Fate::fails(Failure::Refused)]);
    world.run(1, Duration::from_secs(3));
    assert_eq!(world.attempts(0), 6);
    assert_eq!(world.tally.bad, [Some(GiveUp::Attempts); 3]);
}

#[test]
fn auto_cuts_a_hanging_attempt_short_by_what_the_service_takes_usually() {
    let mut world = World::new(without_breakers(), vec![Fate::answers(30); 2]);
    world.run(100, Duration::from_secs(10));
    world.servers[0] = Fate::Hangs;
    world.count_anew();
    world.run(20, Duration::from_secs(2));
    assert!(world.tally.bad.is_empty());
    let longest = world.tally.times.iter().max().expect("calls were made");
    // 3 × p99 (37 ms, as the bucket says) + back-off up to 25 ms + 30 ms.
    assert!(*longest < Duration::from_millis(180), "{longest:?}");
    assert!(
        *longest > Duration::from_millis(90),
        "one did hang: {longest:?}"
    );
}

#[test]
fn auto_makes_no_failures_of_a_service_that_becomes_slow_altogether() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(20); 3]);
    world.run(100, Duration::from_secs(20));
    world.servers = vec![Fate::answers(2_000); 3];
    world.count_anew();
    world.run(100, Duration::from_secs(120));
    let bad = world.tally.bad.len();
    assert!(
        bad <= 30,
        "{bad} of 12000 calls failed: {:?}",
        world.tally.bad.first()
    );
    assert!(world.tally.good > 11_000);
}

#[test]
fn calls_that_need_most_of_their_time_get_it() {
    let request = Settings::default().timeouts.request;
    let needed = u64::try_from(request.as_millis() * 2 / 3).unwrap();
    let mut world = World::new(Settings::default(), vec![Fate::answers(needed); 2]);
    world.run(10, Duration::from_secs(60));
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    assert!(world.tally.good > 400);
}

#[test]
fn calls_that_may_not_be_sent_twice_have_all_the_time_of_the_request() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(20); 3]).not_idempotent();
    world.run(100, Duration::from_secs(10));
    world.servers = vec![Fate::answers(14_000); 3];
    world.count_anew();
    world.run(10, Duration::from_secs(20));
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    assert!(world.tally.good > 0);
}

/// Two endpoints whose calls take little time usually, and a call that is cut short by that.
fn cut_short() -> (Upstream, Call, HostId) {
    let mut upstream = Upstream::new(Settings::default(), Arc::default(), [5; 32], at(0));
    upstream.set_endpoints(&[host(0), host(1)], at(0));
    let mut number = 0;
    loop {
        let shape = CallShape {
            idempotent: true,
            ..CallShape::default()
        };
        let mut call = upstream.begin(shape, at(number));
        let picked = upstream.poll_pick(&mut call, Waker::noop(), at(number));
        let Poll::Ready(Pick::Chosen(choice)) = picked else {
            panic!("{picked:?}");
        };
        if call.try_until() < call.deadline() {
            return (upstream, call, choice.endpoint);
        }
        number += 10;
        assert!(number < 10_000, "it is known by now what calls take");
        let good = Outcome::Succeeded;
        upstream.finished(&mut call, good, Replay::Possible, at(number));
        upstream.end(call, Ending::Complete, at(number));
    }
}

#[test]
fn an_attempt_that_was_cut_short_goes_on_where_no_other_can_follow_any_more() {
    let whole_time = |what: &str, replay, change: fn(&mut Upstream, HostId, Instant)| {
        let (mut upstream, mut call, at_work) = cut_short();
        let cut = call.try_until();
        let other = if at_work == host(0) { host(1) } else { host(0) };
        change(&mut upstream, other, cut);
        let until = upstream.go_on(&call, replay, None, cut);
        assert_eq!(call.try_until(), until.unwrap_or(cut), "{what}");
        assert!(until.is_none_or(|until| until == call.deadline()), "{what}");
        let deadline = call.deadline();
        assert_eq!(upstream.go_on(&call, replay, None, deadline), None);
        let good = Outcome::Succeeded;
        upstream.finished(&mut call, good, replay, deadline);
        upstream.end(call, Ending::Complete, deadline);
        until.is_some()
    };
    let (kept, gone) = (Replay::Possible, Replay::Impossible);
    assert!(!whole_time("the other one is well", kept, |_, _, _| {}));
    assert!(whole_time("its body is gone", gone, |_, _, _| {}));
    assert!(whole_time("the other is down", kept, |all, other, now| {
        all.set_health(other, Health::Down, now);
    }));
    assert!(whole_time("the other has left", kept, |all, other, now| {
        let left = if other == host(0) { host(1) } else { host(0) };
        all.set_endpoints(&[left], now);
    }));
    assert!(whole_time("others had the budget", kept, |all, _, now| {
        let budget = BudgetSettings {
            percent: 0,
            minimum_in_window: 0,
        };
        let mut settings = all.settings().clone();
        settings.retry.budget = budget;
        all.set_settings(settings, now);
    }));
}

#[test]
fn an_attempt_that_was_cut_short_goes_on_where_those_that_are_left_may_not_have_it() {
    let (mut upstream, call, at_work) = cut_short();
    let cut = call.try_until();
    let nobody_else = |host| host == at_work;
    let anybody = |_| true;
    let replay = Replay::Possible;
    assert_eq!(upstream.go_on(&call, replay, Some(&anybody), cut), None);
    let until = upstream.go_on(&call, replay, Some(&nobody_else), cut);
    assert_eq!(until, Some(call.deadline()));
    upstream.end(call, Ending::Abandoned, cut);
}

#[test]
fn no_slow_answer_is_lost_when_the_other_endpoint_goes_down_meanwhile() {
    let mut world = World::new(without_breakers(), vec![Fate::answers(10); 2]);
    world.run(100, Duration::from_secs(10));
    world.servers[0] = Fate::answers(4_000);
    world.run(100, Duration::from_millis(40));
    world.proxies[0].set_health(host(1), Health::Down, world.now);
    world.run(10, Duration::from_secs(10));
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    assert!(world.tally.good > 1_050);
}
