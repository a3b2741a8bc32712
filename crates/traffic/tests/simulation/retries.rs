//! What is sent twice, and how much of it there is.

use std::time::Duration;

use traffic::{Failure, GiveUp, RetrySettings, Settings};

use crate::balancing::without_breakers;
use crate::world::{Fate, World};

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
