//! Who is left alone, for how long, and how they come back.

use std::time::Duration;

use model::time::Instant;
use traffic::{BalanceSettings, Change, Failure, Health, Settings, Tripped};

use crate::world::{Fate, World, at, host};

/// Balancing that takes a failure for an answer, to see what breakers do alone.
fn blind() -> Settings {
    Settings {
        balance: BalanceSettings {
            failure_latency: Duration::ZERO,
            ..BalanceSettings::default()
        },
        ..Settings::default()
    }
}

/// A world of three servers of which the last fails from the tenth second on.
fn one_of_three_fails() -> World {
    let mut world = World::new(blind(), vec![Fate::answers(10); 3]).not_idempotent();
    world.run(100, Duration::from_secs(10));
    world.servers[2] = Fate::fails(Failure::Unavailable);
    world.count_anew();
    world
}

fn ejections(world: &World) -> Vec<(Instant, Tripped, Duration)> {
    let changes = world.changes.iter();
    let ejected = changes.filter_map(|(when, change)| match change {
        Change::Ejected { why, penalty, .. } => Some((*when, *why, *penalty)),
        _ => None,
    });
    ejected.collect()
}

#[test]
fn a_breaker_opens_probes_with_one_call_at_a_time_and_closes() {
    let mut world = one_of_three_fails();
    world.run(100, Duration::from_secs(60));
    let ejections = ejections(&world);
    assert!(ejections.len() >= 4, "{ejections:?}");
    assert!(matches!(
        ejections[0].1,
        Tripped::Consecutive(_) | Tripped::SuccessRate { .. }
    ));
    for pair in ejections.windows(2) {
        assert_eq!(pair[1].1, Tripped::Probe);
        let (_, _, penalty) = pair[0];
        let between = world.attempts_between(2, pair[0].0 + Duration::from_millis(20), pair[1].0);
        assert!(between <= 1, "{between} calls in a penalty of {penalty:?}");
        assert!(pair[1].0 - pair[0].0 >= penalty, "the penalty was served");
    }
    let failures = world.tally.bad.len();
    assert!(failures <= 25, "{failures} of 6000 calls failed");

    world.servers[2] = Fate::answers(10);
    world.run(100, Duration::from_secs(60));
    let recovered = Change::Recovered { endpoint: host(2) };
    assert!(world.changes.iter().any(|(_, change)| *change == recovered));
    world.count_anew();
    world.run(100, Duration::from_secs(30));
    assert!(world.tally.bad.is_empty());
    let share = world.attempts(2) as f64 / 3000.0;
    assert!((0.2..0.45).contains(&share), "{share} after it recovered");
}

#[test]
fn penalties_grow_to_a_minute_while_probes_fail() {
    let mut world = one_of_three_fails();
    world.run(20, Duration::from_secs(600));
    let penalties: Vec<_> = ejections(&world)
        .iter()
        .map(|(_, _, p)| p.as_secs_f64())
        .collect();
    for (penalty, expected) in penalties
        .iter()
        .zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
    {
        let within = expected..expected * 1.5 + 0.001;
        assert!(within.contains(penalty), "{penalty} of {penalties:?}");
    }
    assert!(penalties.len() >= 8, "{penalties:?}");
}

#[test]
fn calls_that_may_be_sent_twice_are_the_probes_and_no_caller_sees_a_failure() {
    let mut world = World::new(blind(), vec![Fate::answers(10); 3]);
    world.run(100, Duration::from_secs(10));
    world.servers[2] = Fate::fails(Failure::Unavailable);
    world.run(100, Duration::from_secs(120));
    assert!(ejections(&world).len() >= 5);
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad);
}

#[test]
fn half_of_them_are_ejected_at_most_and_the_spared_are_told_of() {
    let mut world = World::new(Settings::default(), vec![Fate::fails(Failure::Error); 4]);
    world.run(100, Duration::from_secs(5));
    let first: Vec<_> = ejections(&world)
        .into_iter()
        .filter(|(_, why, _)| *why != Tripped::Probe)
        .collect();
    assert_eq!(first.len(), 2, "{first:?}");
    assert!(
        world
            .changes
            .iter()
            .any(|(_, change)| matches!(change, Change::Spared { .. }))
    );
}

#[test]
fn the_only_endpoint_is_never_ejected() {
    let mut world = World::new(Settings::default(), vec![Fate::fails(Failure::Error)]);
    world.run(100, Duration::from_secs(5));
    assert_eq!(world.attempts(0), 500);
    assert!(ejections(&world).is_empty());
}

#[test]
fn below_half_healthy_all_are_used_and_it_is_said() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(10); 5]);
    world.run(100, Duration::from_secs(5));
    for server in 0..3 {
        world.proxies[0].set_health(host(server), Health::Down, world.now);
    }
    assert!(world.proxies[0].is_using_all());
    world.run(10, Duration::from_secs(1));
    let using_all = Change::UsingAll { healthy: 2, of: 5 };
    assert!(world.changes.iter().any(|(_, change)| *change == using_all));

    // The healthy ones get what they can take, and the others what is above that.
    world.count_anew();
    world.run(50, Duration::from_secs(10));
    assert_eq!(
        (0..3).map(|server| world.attempts(server)).sum::<usize>(),
        0
    );
    world.count_anew();
    world.servers = vec![Fate::answers(2_000); 5];
    world.run(200, Duration::from_secs(20));
    assert!((0..3).all(|server| world.attempts(server) > 0));

    world.proxies[0].set_health(host(0), Health::Up, world.now);
    assert!(!world.proxies[0].is_using_all());
}

#[test]
fn endpoints_that_are_all_down_get_nothing_and_calls_fail_fast() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(10); 3]);
    for server in 0..3 {
        world.proxies[0].set_health(host(server), Health::Down, at(0));
    }
    assert!(!world.proxies[0].is_using_all());
    world.run(10, Duration::from_secs(3));
    assert_eq!(world.attempts_of_all(), 0);
    assert_eq!(world.tally.bad.len(), 30);
}
