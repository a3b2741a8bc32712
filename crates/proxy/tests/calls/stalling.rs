//! Callers that begin a body and do not go on with it, and programs that do not read one.

use std::time::Duration;

use futures_util::future::join_all;
use model::rule::{Protocol, TrafficSettings};
use proxy::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use traffic::BreakerState;

use crate::apps::{App, say, status};
use crate::run;
use crate::world::{Plan, World};

/// More of them than an endpoint may fail.
const CALLS: usize = 16;

/// Two endpoints, and calls that are soon over.
fn world() -> (World, [std::sync::Arc<App>; 2]) {
    let world = World::new(Plan {
        hosts: 3,
        settings: TrafficSettings {
            request_timeout: Some(Duration::from_millis(400)),
            ..TrafficSettings::default()
        },
        ..Plan::default()
    });
    let apps = [1, 2].map(|place| App::start("it", world.app_listener(place)));
    (world, apps)
}

#[test]
fn who_does_not_go_on_with_its_body_is_told_so_and_no_endpoint_is_blamed() {
    for method in ["POST", "PUT"] {
        for rest in ["", "expect: 100-continue\r\n"] {
            run(async {
                let (world, _apps) = world();
                let words = format!(
                    "{method} /collect HTTP/1.1\r\nhost: orders\r\n{rest}content-length: 40\r\n\r\nhi"
                );
                let calls = (0..CALLS)
                    .map(async |_| say(world.caller().dial().await, words.as_bytes()).await);
                for heard in join_all(calls).await {
                    let answer = heard.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
                    assert_eq!(status(answer), 408, "{heard}");
                    assert!(answer.contains("mesh-reason: request-stalled"), "{heard}");
                    assert!(answer.contains("did not send the rest"), "{heard}");
                }
                let told = world.caller().told.calls(CALLS).await;
                let stalled = Some(Reason::RequestStalled);
                let is_expected = told
                    .iter()
                    .all(|call| (call.1, call.2, call.3) == (408, stalled, 1));
                assert!(is_expected, "{told:?}");
                let seen = world.caller().told.service().await;
                for endpoint in &seen.endpoints {
                    assert_eq!(endpoint.breaker, BreakerState::Closed, "{endpoint:?}");
                    assert_eq!((endpoint.tripped, endpoint.latency), (None, None));
                }
            });
        }
    }
}

#[test]
fn a_program_that_does_not_read_a_body_has_taken_too_long() {
    run(async {
        let (world, _apps) = world();
        let head = "POST /never HTTP/1.1\r\nhost: orders\r\ncontent-length: 16777216\r\n\r\n";
        let words = [head.as_bytes(), &vec![b'x'; 16 << 20]].concat();
        let calls = (0..CALLS).map(async |_| {
            let (mut answers, mut caller) = split(world.caller().dial().await);
            // It is answered before all of it is sent.
            let sending = async { caller.write_all(&words).await };
            let answer = async {
                let mut heard = [0; 256];
                let length = answers.read(&mut heard).await.unwrap();
                String::from_utf8_lossy(&heard[..length]).into_owned()
            };
            tokio::select! {
                answer = answer => answer,
                answer = async { let _ = sending.await; std::future::pending().await } => answer,
            }
        });
        for heard in join_all(calls).await {
            assert_eq!(status(&heard), 504, "{heard}");
            assert!(heard.contains("mesh-reason: deadline"), "{heard}");
        }
        let seen = world.caller().told.service().await;
        assert!(
            seen.endpoints.iter().any(|it| it.tripped.is_some()),
            "{seen:?}"
        );
    });
}

#[test]
fn a_caller_that_stands_still_for_less_than_the_call_may_take_goes_on() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            protocol: Protocol::Http,
            settings: TrafficSettings {
                per_try_timeout: Some(model::rule::PerTryTimeout::Fixed(Duration::from_millis(
                    700,
                ))),
                ..TrafficSettings::default()
            },
            ..Plan::default()
        });
        let _apps = [1, 2].map(|place| App::start("it", world.app_listener(place)));
        let mut caller = world.caller().dial().await;
        let words = b"PUT /collect HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-length: 4\r\n\r\nhi";
        caller.write_all(words).await.unwrap();
        // Two tries long.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let heard = say(caller, b"ho").await;
        assert_eq!(status(&heard), 200, "{heard}");
        assert!(heard.ends_with("hiho"), "{heard}");
        let told = world.caller().told.calls(1).await;
        assert_eq!((told[0].2, told[0].3), (None, 1));
    });
}
