//! Who gets the calls.

use std::time::Duration;

use traffic::{BreakerSettings, Failure, Settings};

use crate::world::{Fate, World};

/// Breakers that never open, to see what balancing does alone.
pub(crate) fn without_breakers() -> Settings {
    Settings {
        breaker: BreakerSettings {
            consecutive_failures: u32::MAX,
            success_percent_min: 0,
            ..BreakerSettings::default()
        },
        ..Settings::default()
    }
}

#[test]
fn an_endpoint_that_fails_fast_attracts_no_traffic() {
    let servers = vec![
        Fate::answers(20),
        Fate::answers(20),
        Fate::fails(Failure::Error),
    ];
    let mut world = World::new(without_breakers(), servers);
    world.run(100, Duration::from_secs(60));
    assert!(
        world.attempts(2) <= 60,
        "{} of 6000 calls",
        world.attempts(2)
    );
    assert!(world.attempts(2) > 0, "it was tried, and is tried again");
}

#[test]
fn equal_endpoints_get_equal_shares_of_a_few() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(20); 4]);
    world.run(400, Duration::from_secs(60));
    for server in 0..4 {
        let share = world.attempts(server) as f64 / 24_000.0;
        assert!((0.2..0.3).contains(&share), "{server} got {share}");
    }
}

#[test]
fn equal_endpoints_get_equal_shares_of_many() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(20); 50]);
    world.run(2000, Duration::from_secs(30));
    let shares: Vec<_> = (0..50).map(|server| world.attempts(server)).collect();
    let (low, high) = (shares.iter().min(), shares.iter().max());
    assert!(
        low > Some(&900) && high < Some(&1500),
        "{low:?} to {high:?} of 1200"
    );
}

#[test]
fn a_slow_endpoint_gets_as_much_less_as_it_is_slower() {
    let servers = vec![Fate::answers(20), Fate::answers(20), Fate::answers(80)];
    let mut world = World::new(Settings::default(), servers);
    world.run(1000, Duration::from_secs(60));
    let share = world.attempts(2) as f64 / 60_000.0;
    // In flight × latency is equal: a quarter of the others' rate squared is a sixteenth.
    assert!((0.01..0.12).contains(&share), "{share}");
}

#[test]
fn one_that_begins_to_hang_is_left_within_a_few_calls() {
    let mut world = World::new(without_breakers(), vec![Fate::answers(10); 3]);
    world.run(300, Duration::from_secs(20));
    world.count_anew();
    world.servers[1] = Fate::Hangs;
    world.run(300, Duration::from_secs(20));
    let late = world.tally.times.iter();
    let late = late
        .filter(|time| **time > Duration::from_millis(500))
        .count();
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
    assert!(late < 10, "{late} calls of 6000 took long");
}
