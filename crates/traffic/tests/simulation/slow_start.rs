//! Who joins or comes back gets its share little by little, from one proxy and from many.

use std::time::Duration;

use traffic::{Failure, Settings};

use crate::world::{Fate, World};

#[test]
fn the_share_of_one_that_joins_grows_with_its_time() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(20); 3]);
    world.run(1000, Duration::from_secs(20));
    world.count_anew();
    let begin = world.now;
    world.join(Fate::answers(20));
    world.run(1000, Duration::from_secs(20));

    let second = |n: u64| {
        let from = begin + Duration::from_secs(n);
        world.attempts_between(3, from, from + Duration::from_secs(1))
    };
    assert!(second(0) < 80, "{} in its first second", second(0));
    assert!(second(0) > 0, "it is measured from its first second on");
    assert!((60..200).contains(&second(4)), "{} in its fifth", second(4));
    assert!(
        (170..330).contains(&second(12)),
        "{} when it is warm",
        second(12)
    );
}

#[test]
fn those_of_the_beginning_are_warm() {
    let mut world = World::new(Settings::default(), vec![Fate::answers(20); 2]);
    assert!(
        world.proxies[0]
            .endpoints(world.now)
            .all(|endpoint| !endpoint.warming)
    );
    world.run(100, Duration::from_secs(1));
    assert!(world.attempts(0) > 20 && world.attempts(1) > 20);
}

#[test]
fn endpoints_that_come_back_together_are_not_overrun_by_many_callers() {
    let servers = vec![Fate::answers(50); 10];
    let mut world = World::of_proxies(40, Settings::default(), servers);
    world.run(50, Duration::from_secs(10));
    for server in 0..5 {
        world.servers[server] = Fate::fails(Failure::Unavailable);
    }
    world.run(50, Duration::from_secs(30));
    for server in 0..5 {
        world.servers[server] = Fate::answers(50);
    }
    world.count_anew();
    world.run(50, Duration::from_secs(90));
    assert!(world.tally.bad.is_empty(), "{:?}", world.tally.bad.first());
    // 2000 calls/s of 50 ms are 100 at once: 20 on each of five, 10 on each of ten.
    for server in 0..10 {
        let crowd = world.tally.crowd[server];
        assert!(crowd <= 45, "{crowd} at once on {server}");
    }
    let first_minute = world.attempts(0);
    assert!(
        first_minute > 3_000,
        "{first_minute}: it has its share again"
    );
}
