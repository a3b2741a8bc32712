//! Endpoints that take no call: how long one is left out for that, and how it comes back.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;
use traffic::{
    Call, CallShape, Change, Ending, Failure, Health, Outcome, Pick, Replay, Settings, Upstream,
};

use crate::balancing::without_breakers;
use crate::world::{Fate, World, at, host};

/// Three that work, after they were called for a while.
fn three() -> World {
    let mut world = World::new(Settings::default(), vec![Fate::answers(10); 3]);
    world.run(100, Duration::from_secs(10));
    world.count_anew();
    world
}

fn all_but(server: usize) -> impl Fn(HostId) -> bool {
    move |endpoint| endpoint != host(server)
}

#[test]
fn one_that_took_no_call_for_a_moment_has_its_share_again_after_a_second_or_so() {
    for failure in [Failure::Connect, Failure::Refused] {
        let mut world = three();
        world.servers[2] = Fate::fails(failure);
        // As long as it takes until it was called once.
        while world.attempts(2) == 0 {
            world.run(100, Duration::from_millis(10));
        }
        let refused = world.now;
        world.servers[2] = Fate::answers(10);
        world.run(100, Duration::from_secs(6));
        let soon = world.attempts_between(2, refused, refused + Duration::from_millis(900));
        assert_eq!(soon, 0, "it would refuse these as well");
        let from = refused + Duration::from_millis(1_600);
        let share = world.attempts_between(2, from, from + Duration::from_secs(4));
        assert!((80..200).contains(&share), "{share} of 400");
        assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    }
}

#[test]
fn those_that_take_no_calls_attract_few_where_no_breaker_opens() {
    let mut servers = vec![Fate::fails(Failure::Connect); 3];
    servers[0] = Fate::answers(20);
    let mut world = World::new(without_breakers(), servers);
    world.run(100, Duration::from_secs(60));
    assert!(world.tally.bad.len() < 5, "{:?}", world.tally.bad);
    for server in [1, 2] {
        let attempts = world.attempts(server);
        assert!((30..150).contains(&attempts), "{attempts} of 6000 calls");
    }
}

#[test]
fn one_that_its_host_calls_down_is_asked_by_one_call_in_a_while_until_it_works() {
    let mut world = three();
    world.servers[2] = Fate::fails(Failure::Unhealthy);
    world.run(100, Duration::from_secs(60));
    // Every second, and half a second more at most; no longer the longer it lasts.
    assert!(
        (40..=61).contains(&world.attempts(2)),
        "{}",
        world.attempts(2)
    );
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    let view = world.proxies[0].endpoints(world.now).nth(2).expect("three");
    assert_eq!(view.health, Health::Down);
    assert!(view.told_down_since < Some(at(20_000)), "{view:?}");
    assert_eq!(view.tripped, None, "its breaker has nothing to do with it");

    world.count_anew();
    world.servers[2] = Fate::answers(10);
    world.run(100, Duration::from_secs(20));
    let told: Vec<_> = world
        .changes
        .iter()
        .map(|(_, change)| *change)
        .filter(|change| matches!(change, Change::ToldDown { .. } | Change::ToldUp { .. }))
        .collect();
    let endpoint = host(2);
    assert_eq!(
        told,
        [Change::ToldDown { endpoint }, Change::ToldUp { endpoint }]
    );
    let share = world.attempts_between(2, at(82_000), at(90_000));
    assert!((160..400).contains(&share), "{share} of 800");
}

#[test]
fn one_that_its_host_called_down_stays_so_until_a_call_is_answered() {
    for (failure, is_answer) in [
        (Failure::Connect, false),
        (Failure::Refused, false),
        (Failure::Timeout, false),
        (Failure::Broken, false),
        (Failure::Unavailable, true),
        (Failure::Shed, true),
        (Failure::Error, true),
    ] {
        let mut world = three();
        world.servers[2] = Fate::fails(Failure::Unhealthy);
        world.run(100, Duration::from_secs(5));
        world.count_anew();
        world.servers[2] = Fate::fails(failure);
        world.run(100, Duration::from_secs(30));
        let endpoint = host(2);
        let is_up = |(_, change): &(_, Change)| *change == Change::ToldUp { endpoint };
        assert_eq!(world.changes.iter().any(is_up), is_answer, "{failure:?}");
        if is_answer {
            continue;
        }
        // It is still asked, as seldom as before.
        let attempts = world.attempts(2);
        assert!((19..=31).contains(&attempts), "{failure:?}: {attempts}");
        let view = world.proxies[0].endpoints(world.now).nth(2).expect("three");
        assert_eq!(view.health, Health::Down, "{failure:?}");
    }
}

#[test]
fn while_all_are_called_down_one_call_in_a_while_asks_and_no_other_is_sent() {
    let mut world = World::new(
        Settings::default(),
        vec![Fate::fails(Failure::Unhealthy); 2],
    );
    world.run(100, Duration::from_secs(10));
    assert_eq!(world.tally.bad.len(), 1000);
    assert!(world.attempts_of_all() <= 22, "{}", world.attempts_of_all());
    let longest = world.tally.times.iter().max().expect("there were calls");
    assert!(*longest < Duration::from_millis(30), "{longest:?}");
    world.servers = vec![Fate::answers(10); 2];
    world.run(100, Duration::from_secs(2));
    world.count_anew();
    world.run(100, Duration::from_secs(5));
    assert_eq!(world.tally.bad.len(), 0);
}

#[test]
fn whose_host_is_not_reached_gets_nothing_until_it_is() {
    let mut world = three();
    world.servers[2] = Fate::fails(Failure::Unreachable);
    world.run(100, Duration::from_secs(60));
    assert_eq!(world.attempts(2), 1, "the first call found out");
    assert!(world.tally.bad.is_empty());
    world.proxies[0].set_reachable(all_but(2), world.now);
    world.run(100, Duration::from_secs(10));
    assert_eq!(world.attempts(2), 1);

    world.servers[2] = Fate::answers(10);
    world.proxies[0].set_reachable(|_| true, world.now);
    world.count_anew();
    world.run(100, Duration::from_secs(20));
    assert!(world.attempts(2) > 200, "{}", world.attempts(2));
}

#[test]
fn what_is_found_out_of_hosts_changes_nothing_of_what_checks_say() {
    let mut world = three();
    let upstream = &mut world.proxies[0];
    upstream.set_health(host(0), Health::Down, at(20_000));
    upstream.set_health(host(1), Health::Up, at(20_000));
    upstream.set_reachable(all_but(2), at(20_000));
    let health = |upstream: &Upstream| -> Vec<_> {
        let views = upstream.endpoints(at(20_000));
        views.map(|view| view.health).collect()
    };
    let expected = [Health::Down, Health::Up, Health::Unreachable];
    assert_eq!(health(upstream), expected);
    upstream.set_reachable(|_| true, at(20_000));
    let expected = [Health::Down, Health::Up, Health::Unknown];
    assert_eq!(health(upstream), expected);
}

/// Two that their host calls down, and one call that asks one of them; when it was sent.
fn asked_anew() -> (Upstream, Call, HostId, u64) {
    let mut upstream = Upstream::new(Settings::default(), Arc::default(), [3; 32], at(0));
    upstream.set_endpoints(&[host(0), host(1)], at(0));
    let unhealthy = Outcome::Failed(Failure::Unhealthy);
    for _ in 0..2 {
        let mut call = upstream.begin(CallShape::default(), at(0));
        chosen(&mut upstream, &mut call, at(0)).expect("one is not asked yet");
        upstream.finished(&mut call, unhealthy, Replay::Impossible, at(0));
        upstream.end(call, Ending::Complete, at(0));
    }
    let mut call = upstream.begin(CallShape::default(), at(1_500));
    let asked = chosen(&mut upstream, &mut call, at(1_500)).expect("it asks anew");
    while upstream.poll_change().is_some() {}
    (upstream, call, asked, 1_500)
}

fn chosen(upstream: &mut Upstream, call: &mut Call, now: Instant) -> Option<HostId> {
    match upstream.poll_pick(call, Waker::noop(), now) {
        Poll::Ready(Pick::Chosen(choice)) => Some(choice.endpoint),
        _ => None,
    }
}

/// Who gets some calls that are answered at once.
fn get(upstream: &mut Upstream, now: Instant) -> Vec<Option<HostId>> {
    let calls = (0..20).map(|_| {
        let mut call = upstream.begin(CallShape::default(), now);
        let got = chosen(upstream, &mut call, now);
        if got.is_some() {
            upstream.finished(&mut call, Outcome::Succeeded, Replay::Possible, now);
        }
        upstream.end(call, Ending::Complete, now);
        got
    });
    calls.collect()
}

#[test]
fn one_whose_host_lets_a_long_call_through_gets_others_before_its_answer() {
    let (mut upstream, long, asked, sent) = asked_anew();
    let after = at(sent + 1_000);
    let view = |upstream: &Upstream, now| {
        let mut views = upstream.endpoints(now);
        let view = views
            .find(|view| view.endpoint == asked)
            .expect("it is one");
        (view.health, view.told_down_since.is_some())
    };
    let before = at(sent + 999);
    assert_eq!(view(&upstream, before), (Health::Down, true));
    assert_eq!(view(&upstream, after), (Health::Unknown, false));
    // The other one may be asked anew meanwhile, by one of them.
    let got = get(&mut upstream, after);
    assert!(got.iter().all(Option::is_some), "{got:?}");
    assert!(got.contains(&Some(asked)), "{got:?}");
    let told = Some(Change::ToldUp { endpoint: asked });
    assert_eq!(upstream.poll_change(), told);
    upstream.end(long, Ending::Abandoned, at(sent + 30_000));
    assert_eq!(view(&upstream, at(sent + 30_000)), (Health::Unknown, false));
}

#[test]
fn a_call_that_asks_is_not_believed_to_be_taken_before_it_must_have_been() {
    let (mut upstream, mut long, asked, sent) = asked_anew();
    // The other one has its own that asks.
    let mut other = upstream.begin(CallShape::default(), at(sent));
    let second = chosen(&mut upstream, &mut other, at(sent));
    assert!(second.is_some_and(|host| host != asked), "{second:?}");
    assert_eq!(get(&mut upstream, at(sent + 999)), [None; 20]);
    // A refusal says that it is down still, and the next asks after a while.
    for call in [&mut long, &mut other] {
        let unhealthy = Outcome::Failed(Failure::Unhealthy);
        upstream.finished(call, unhealthy, Replay::Impossible, at(sent + 999));
    }
    assert_eq!(get(&mut upstream, at(sent + 1_900)), [None; 20]);
    for call in [long, other] {
        upstream.end(call, Ending::Complete, at(sent + 1_900));
    }
}

#[test]
fn one_that_never_answers_the_call_that_asks_is_down_again_unless_it_answered_others() {
    for answers_others in [false, true] {
        let (mut upstream, mut long, asked, sent) = asked_anew();
        // The first call that follows asks the second one anew.
        let [probe, mut other] = [(); 2].map(|()| {
            let mut call = upstream.begin(CallShape::default(), at(sent + 1_000));
            chosen(&mut upstream, &mut call, at(sent + 1_000)).expect("it is taken");
            call
        });
        assert_eq!(other.tried(), [asked]);
        if answers_others {
            let good = Outcome::Succeeded;
            upstream.finished(&mut other, good, Replay::Possible, at(sent + 1_001));
        }
        let timeout = Outcome::Failed(Failure::Timeout);
        upstream.finished(&mut long, timeout, Replay::Impossible, at(sent + 5_000));
        let mut views = upstream.endpoints(at(sent + 5_000));
        let view = views
            .find(|view| view.endpoint == asked)
            .expect("it is one");
        assert_eq!(view.told_down_since.is_none(), answers_others, "{view:?}");
        assert_eq!(view.health.is_down(), !answers_others, "{view:?}");
        drop(views);
        for call in [long, probe, other] {
            upstream.end(call, Ending::Complete, at(sent + 5_000));
        }
    }
}
