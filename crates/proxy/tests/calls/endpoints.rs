//! Which endpoint gets a call: only one that the policy lets it go to, and another when that one
//! cannot be reached.

use model::rule::{HttpMatch, Protocol, Rule, Selector, Sticky, Traffic, TrafficSettings};
use proxy::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::apps::{App, get, say, status};
use crate::run;
use crate::world::{Plan, World, requests, rule};

/// A rule about whatever goes to one host.
fn to_host(number: u8, http: &[HttpMatch]) -> Rule {
    let to = Selector::Host {
        name: format!("vm-{number}").parse().unwrap(),
        id: Some(model::ids::HostId::from_bytes([number; 16])),
    };
    Rule {
        to: vec![to],
        traffic: Traffic::All,
        ..rule("one-host", Selector::Any, http)
    }
}

#[test]
fn an_endpoint_that_the_policy_denies_gets_no_call_while_another_is_allowed() {
    let sticky = TrafficSettings {
        sticky: Some(Sticky::Cookie("user".into())),
        ..TrafficSettings::default()
    };
    for settings in [TrafficSettings::default(), sticky] {
        run(async {
            let world = World::new(Plan {
                hosts: 4,
                settings,
                deny: vec![to_host(3, &[])],
                ..Plan::default()
            });
            let apps = [1, 2, 3].map(|place| App::start("it", world.app_listener(place)));
            for user in 0..40 {
                let words = format!(
                    "GET / HTTP/1.1\r\nhost: orders\r\ncookie: user={user}\r\nconnection: close\r\n\r\n"
                );
                let heard = say(world.caller().dial().await, words.as_bytes()).await;
                assert_eq!(status(&heard), 200, "{heard}");
            }
            let [one, denied, other] = apps.each_ref().map(|app| app.requests());
            assert_eq!(denied, 0);
            assert!(one > 0 && other > 0 && one + other == 40, "{one} {other}");
        });
    }
}

#[test]
fn an_endpoint_is_left_out_for_those_requests_alone_that_it_may_not_get() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            deny: vec![to_host(3, &[requests("GET", "/admin/**")])],
            ..Plan::default()
        });
        let apps = [1, 2].map(|place| App::start("it", world.app_listener(place)));
        for _ in 0..20 {
            let (status, heard) = get(world.caller().dial().await, "/admin/x").await;
            assert_eq!(status, 200, "{heard}");
        }
        assert_eq!(apps.each_ref().map(|app| app.requests()), [20, 0]);
        for _ in 0..40 {
            assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
        }
        assert!(apps[1].requests() > 0);
    });
}

#[test]
fn no_endpoint_is_a_matter_of_policy_only_when_none_is_allowed() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            deny: vec![to_host(3, &[])],
            ..Plan::default()
        });
        // The only one that is allowed is not there; the other would be.
        let denied = App::start("denied", world.app_listener(2));
        for _ in 0..12 {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            assert_eq!(status, 503, "{heard}");
        }
        assert_eq!(denied.requests(), 0);
        let none = World::new(Plan {
            hosts: 3,
            deny: vec![to_host(2, &[]), to_host(3, &[])],
            ..Plan::default()
        });
        let (status, heard) = get(none.caller().dial().await, "/").await;
        assert_eq!(status, 403, "{heard}");
        assert!(heard.contains("mesh-reason: denied"), "{heard}");
    });
}

#[test]
fn a_connection_of_bytes_goes_to_an_endpoint_that_is_allowed() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Tcp,
            hosts: 3,
            deny: vec![to_host(2, &[])],
            ..Plan::default()
        });
        let _denied = world.app_listener(1);
        let listener = world.app_listener(2);
        for _ in 0..8 {
            let mut near = world.caller().dial().await;
            near.write_all(b"x").await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'x');
        }
    });
}

#[test]
fn a_service_that_no_host_offers_has_no_endpoint_and_is_not_denied() {
    run(async {
        let world = World::new(Plan {
            hosts: 2,
            has_endpoints: false,
            ..Plan::default()
        });
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 503, "{heard}");
        assert!(heard.contains("mesh-reason: no-endpoint"), "{heard}");
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].2, Some(Reason::NoEndpoint));
    });
}

#[test]
fn a_service_that_a_host_may_not_call_any_more_is_denied_on_connections_that_were_open() {
    run(async {
        let mut world = World::new(Plan::default());
        let app = App::start("it", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        let words = b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
        stream.write_all(words).await.unwrap();
        let mut first = [0; 4096];
        let length = stream.read(&mut first).await.unwrap();
        let heard = String::from_utf8_lossy(&first[..length]).into_owned();
        assert_eq!(status(&heard), 200, "{heard}");
        // A rule about something else does not let it call this one.
        let elsewhere = rule("elsewhere", Selector::Any, &[requests("GET", "/v1/**")]);
        world.forget_service(vec![elsewhere]);
        let words = b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n";
        let heard = say(stream, words).await;
        assert_eq!(status(&heard), 403, "{heard}");
        assert!(heard.contains("mesh-reason: denied"), "{heard}");
        assert_eq!(app.requests(), 1);
        let told = world.caller().told.calls(2).await;
        assert_eq!((told[1].1, told[1].2), (403, Some(Reason::Denied)));
    });
}

#[test]
fn a_service_that_is_gone_from_every_host_is_not_denied_where_a_rule_lets_anything_be_called() {
    run(async {
        let mut world = World::new(Plan::default());
        let mut stream = world.caller().dial().await;
        let words = b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
        stream.write_all(words).await.unwrap();
        let mut first = [0; 4096];
        let length = stream.read(&mut first).await.unwrap();
        assert_ne!(length, 0);
        let anything = Rule {
            to: vec![Selector::Any],
            traffic: Traffic::All,
            ..rule("anything", Selector::Any, &[])
        };
        world.forget_service(vec![anything]);
        let words = b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n";
        let heard = say(stream, words).await;
        assert_eq!(status(&heard), 503, "{heard}");
        assert!(heard.contains("mesh-reason: no-endpoint"), "{heard}");
    });
}

#[test]
fn an_upgrade_is_asked_of_another_endpoint_when_the_first_cannot_be_reached() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            ..Plan::default()
        });
        // The second host's program is not there, and the third's is.
        App::start("there", world.app_listener(2));
        for _ in 0..6 {
            let mut stream = world.caller().dial().await;
            let words =
                b"GET /upgrade HTTP/1.1\r\nhost: orders\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(words).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert_eq!(status(&head), 101, "{head}");
            stream.write_all(b"hello").await.unwrap();
            let mut echoed = [0; 5];
            stream.read_exact(&mut echoed).await.unwrap();
            assert_eq!(&echoed, b"hello");
        }
        let told = world.hosts[2].told.calls(0).await;
        assert!(told.iter().all(|call| call.2.is_none()), "{told:?}");
    });
}

#[test]
fn above_the_limit_of_a_service_calls_are_refused_and_the_limit_is_named() {
    run(async {
        let settings = TrafficSettings {
            limits: model::rule::LimitSettings {
                in_flight: Some(1),
                waiting: Some(0),
                wait: None,
            },
            ..TrafficSettings::default()
        };
        for protocol in [Protocol::Http, Protocol::Tcp] {
            let world = World::new(Plan {
                protocol,
                settings: settings.clone(),
                ..Plan::default()
            });
            let listener = world.app_listener(1);
            let mut first = world.caller().dial().await;
            first
                .write_all(b"GET /never HTTP/1.1\r\nhost: orders\r\n\r\n")
                .await
                .unwrap();
            let _far = listener.accept().await.unwrap();
            if protocol == Protocol::Http {
                let (status, heard) = get(world.caller().dial().await, "/").await;
                assert_eq!(status, 503, "{heard}");
                assert!(
                    heard.contains("mesh-reason: overflow") && heard.contains("1 are under way"),
                    "{heard}"
                );
            } else {
                // It may be reset before it is looked at.
                if let Ok(mut second) = TcpStream::connect(world.caller().orders).await {
                    assert!(second.read_u8().await.is_err());
                }
            }
            let told = world.caller().told.calls(1).await;
            assert_eq!(told[0].2, Some(Reason::Overflow));
        }
    });
}

#[test]
fn a_try_that_no_other_can_follow_has_all_the_time() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            ..Plan::default()
        });
        let _apps = [1, 2].map(|place| App::start("it", world.app_listener(place)));
        // So many that it is known how fast they are, and a try is cut soon.
        for _ in 0..200 {
            let (status, _) = get(world.caller().dial().await, "/").await;
            assert_eq!(status, 200);
        }
        // More than is kept for another try.
        let body = "x".repeat(1 << 20);
        let head = format!(
            "PUT /late HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let heard = say(world.caller().dial().await, (head + &body).as_bytes()).await;
        assert_eq!(status(&heard), 200, "{heard}");
    });
}
