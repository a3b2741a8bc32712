//! What is answered where no endpoint takes a call: the service's fallback, if it has one.

use std::time::Duration;

use model::rule::{HealthCheck, HealthProbe, Protocol, Selector, StaticAnswer, TrafficSettings};
use proxy::Reason;
use tokio::io::AsyncReadExt;

use crate::apps::{App, get, say, status};
use crate::damage::grpc;
use crate::run;
use crate::world::{Plan, World, requests, rule};

/// A service that has a fallback.
fn with_fallback() -> TrafficSettings {
    let fallback = StaticAnswer {
        status: 203,
        content_type: "text/plain".into(),
        body: "later".into(),
    };
    TrafficSettings {
        fallback: Some(fallback),
        ..TrafficSettings::default()
    }
}

/// A program is asked often whether it takes connections.
fn checked(settings: TrafficSettings) -> TrafficSettings {
    TrafficSettings {
        health: Some(HealthCheck {
            probe: HealthProbe::Tcp,
            interval: Some(Duration::from_millis(10)),
            timeout: None,
        }),
        ..settings
    }
}

fn with(settings: TrafficSettings) -> World {
    World::new(Plan {
        settings,
        ..Plan::default()
    })
}

async fn assert_answered(world: &World, expected: (u16, &str, &str)) {
    let (status, reason, body) = expected;
    let (answered, heard) = get(world.caller().dial().await, "/").await;
    assert_eq!(answered, status, "{heard}");
    let reason = format!("mesh-reason: {reason}\r\n");
    assert!(heard.contains(&reason), "{heard}");
    assert!(
        heard.contains("mesh-call: ") && heard.contains(body),
        "{heard}"
    );
}

#[test]
fn where_the_program_is_not_there_its_fallback_is_answered_by_each_call() {
    for (settings, status, body) in [
        (TrafficSettings::default(), 503, "takes no connection"),
        (with_fallback(), 203, "\r\n\r\nlater"),
    ] {
        run(async {
            let world = with(settings);
            for _ in 0..12 {
                assert_answered(&world, (status, "connection-refused", body)).await;
            }
            let told = world.caller().told.calls(12).await;
            let refused = Some(Reason::ConnectionRefused);
            assert!(
                told.iter()
                    .all(|call| (call.1, call.2) == (status, refused)),
                "{told:?}"
            );
        });
    }
}

#[test]
fn where_nobody_offers_the_service_its_fallback_is_answered() {
    run(async {
        let world = World::new(Plan {
            settings: with_fallback(),
            has_endpoints: false,
            ..Plan::default()
        });
        assert_answered(&world, (203, "no-endpoint", "\r\n\r\nlater")).await;
        let told = world.caller().told.calls(1).await;
        assert_eq!((told[0].1, told[0].2), (203, Some(Reason::NoEndpoint)));
    });
}

#[test]
fn where_nobody_offers_the_service_who_may_not_call_it_gets_no_fallback() {
    run(async {
        let mut world = World::new(Plan {
            settings: with_fallback(),
            has_endpoints: false,
            allow: Vec::new(),
            ..Plan::default()
        });
        let refused = (503, "no-endpoint", "no host offers it");
        assert_answered(&world, refused).await;
        let reads = rule("reads", Selector::Any, &[requests("GET", "/v1/**")]);
        world.apply(vec![reads]);
        assert_answered(&world, refused).await;
        let everything = rule("all", Selector::Any, &[]);
        world.apply(vec![everything.clone()]);
        assert_answered(&world, (203, "no-endpoint", "\r\n\r\nlater")).await;
        world.deny(vec![everything]);
        assert_answered(&world, refused).await;
    });
}

#[test]
fn where_the_program_fails_its_checks_its_fallback_is_answered() {
    run(async {
        let world = with(checked(with_fallback()));
        // Its host finds out, and the caller by the next call.
        loop {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            assert_eq!(status, 203, "{heard}");
            if heard.contains("mesh-reason: unhealthy\r\n") {
                break;
            }
        }
        // From now on it is known, and a call goes there only now and then.
        assert_answered(&world, (203, "no-endpoint", "\r\n\r\nlater")).await;
        let _app = App::start("it", world.app_listener(1));
        loop {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            if status == 200 {
                break;
            }
            assert_eq!(status, 203, "{heard}");
        }
        for _ in 0..5 {
            assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
        }
    });
}

#[test]
fn an_upgrade_that_no_endpoint_takes_gets_the_fallback() {
    run(async {
        let world = with(with_fallback());
        let words =
            b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\r\n";
        let heard = say(world.caller().dial().await, words).await;
        assert_eq!(status(&heard), 203, "{heard}");
        assert!(heard.contains("mesh-reason: connection-refused"), "{heard}");
    });
}

#[test]
fn what_the_policy_denies_gets_no_fallback() {
    run(async {
        let world = World::new(Plan {
            settings: with_fallback(),
            allow: Vec::new(),
            ..Plan::default()
        });
        assert_answered(&world, (403, "denied", "the policy")).await;
    });
}

#[test]
fn a_program_that_fails_speaks_for_itself() {
    run(async {
        let world = with(with_fallback());
        let _app = App::start("it", world.app_listener(1));
        let (status, heard) = get(world.caller().dial().await, "/503").await;
        assert_eq!(status, 503, "{heard}");
        assert!(!heard.contains("later"), "{heard}");
    });
}

#[test]
fn grpc_gets_no_fallback_that_it_could_not_read() {
    run(async {
        for has_endpoints in [true, false] {
            let world = World::new(Plan {
                protocol: Protocol::Grpc,
                settings: with_fallback(),
                has_endpoints,
                ..Plan::default()
            });
            let answer = grpc(&world, "http://orders/orders.Orders/Get", None).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["grpc-status"], "14");
        }
    });
}

#[test]
fn a_connection_of_bytes_has_nothing_that_could_be_answered() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Tcp,
            settings: with_fallback(),
            ..Plan::default()
        });
        let mut stream = world.caller().dial().await;
        let mut heard = Vec::new();
        assert!(stream.read_to_end(&mut heard).await.is_err(), "{heard:?}");
        assert!(heard.is_empty(), "{heard:?}");
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].2, Some(Reason::ConnectionRefused));
    });
}

#[test]
fn a_call_goes_to_another_endpoint_before_anything_else_is_answered() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            settings: checked(with_fallback()),
            ..Plan::default()
        });
        // The second host's program is not there, and the third's is.
        let app = App::start("there", world.app_listener(2));
        for number in 1..=40 {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            assert_eq!(status, 200, "{heard}");
            assert_eq!(app.requests(), number);
        }
    });
}
