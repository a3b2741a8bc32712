//! Hosts with which no session comes about: their endpoints get no calls, nobody waits for them, and
//! they are found again.

use model::rule::{Protocol, Selector};
use proxy::Reason;

use crate::apps::{App, get};
use crate::run;
use crate::world::{Plan, World, rule};

#[test]
fn calls_of_a_host_that_is_not_reached_are_refused_before_anybody_is_asked() {
    run(async {
        let world = World::new(Plan::default());
        world.caller().machine.cut_off();
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 503, "{heard}");
        assert!(heard.contains("mesh-reason: unreachable"), "{heard}");
        assert_eq!(world.caller().told.calls(1).await[0].3, 1);
        for number in 2..30 {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            assert_eq!(status, 503, "{heard}");
            assert!(heard.contains("mesh-reason: no-endpoint"), "{heard}");
            let told = world.caller().told.calls(number).await;
            let last = told.last().unwrap();
            assert_eq!((last.2, last.3), (Some(Reason::NoEndpoint), 0));
        }
    });
}

#[test]
fn a_host_that_is_reached_again_gets_calls_again() {
    for protocol in [Protocol::Http, Protocol::Auto] {
        run(async {
            let world = World::new(Plan {
                protocol,
                ..Plan::default()
            });
            let app = App::start("it", world.app_listener(1));
            let machine = &world.caller().machine;
            machine.cut_off();
            assert_eq!(get(world.caller().dial().await, "/").await.0, 503);
            // It is tried beside the calls, of which there are none.
            let before = machine.dials();
            while machine.dials() < before + 2 {
                tokio::task::yield_now().await;
            }
            machine.join();
            while get(world.caller().dial().await, "/").await.0 != 200 {}
            assert_eq!(app.requests(), 1);
        });
    }
}

#[test]
fn of_several_hosts_only_those_get_calls_that_are_reached() {
    run(async {
        let mut world = World::new(Plan {
            hosts: 5,
            ..Plan::default()
        });
        let app = App::start("it", world.app_listener(4));
        // Their daemons are gone, and who calls them is to find out.
        for host in &mut world.hosts[1..4] {
            host.proxy = None;
        }
        let (mut failed, calls) = (0, 60);
        for _ in 0..calls {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            failed += usize::from(status != 200);
            assert!([200, 503].contains(&status), "{heard}");
        }
        // A call asks two of them at most, and then they are known.
        assert!(failed <= 1, "{failed}");
        assert_eq!(app.requests(), calls - failed);
        let told = world.caller().told.calls(calls).await;
        let in_vain: usize = told.iter().map(|call| call.3).sum::<usize>() - app.requests();
        assert!(in_vain <= 3, "{told:?}");
    });
}

#[test]
fn a_host_that_moves_is_called_where_it_is_now() {
    run(async {
        let mut world = World::new(Plan::default());
        let app = App::start("it", world.app_listener(1));
        let all = vec![rule("all", Selector::Any, &[])];
        let there = world.hosts[1].streams;
        // Nobody is there.
        world.hosts[1].streams.set_port(9);
        world.apply(all.clone());
        while get(world.caller().dial().await, "/").await.0 == 200 {}
        world.hosts[1].streams = there;
        world.apply(all);
        let before = app.requests();
        while get(world.caller().dial().await, "/").await.0 != 200 {}
        assert_eq!(app.requests(), before + 1);
    });
}
