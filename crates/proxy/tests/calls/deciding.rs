//! What policy decides: at the source, at the destination, and again when it changes.

use std::rc::Rc;

use model::rule::{HeaderMatch, HeaderValue, HttpMatch, Protocol, Selector};
use proxy::{ProxyBody, Reason, Sessions, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

use crate::apps::{App, get, is_there, say, status};
use crate::run;
use crate::speaking::{ask, caller};
use crate::world::{ORDERS, Plan, World, name, requests, rule, workload};

#[test]
fn the_source_refuses_what_no_rule_allows() {
    run(async {
        let reads = rule("reads", Selector::Any, &[requests("GET", "/v1/**")]);
        let world = World::new(Plan {
            allow: vec![reads],
            ..Plan::default()
        });
        let app = App::start("one", world.app_listener(1));
        assert_eq!(get(world.caller().dial().await, "/v1/items").await.0, 200);
        let (status, heard) = get(world.caller().dial().await, "/admin").await;
        assert_eq!(status, 403, "{heard}");
        assert!(
            heard.contains("mesh-reason: denied") && heard.contains("mesh-call: "),
            "{heard}"
        );
        assert_eq!(app.requests(), 1);
        let told = world.caller().told.calls(2).await;
        assert_eq!(told[1], (Side::Source, 403, Some(Reason::Denied), 0));
    });
}

#[test]
fn the_destination_believes_its_own_policy() {
    run(async {
        let world = World::new(Plan {
            allow_there: Some(Vec::new()),
            ..Plan::default()
        });
        let app = App::start("one", world.app_listener(1));
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 403, "{heard}");
        assert!(heard.contains("mesh-reason: denied"), "{heard}");
        assert_eq!(app.requests(), 0);
        let told = world.hosts[1].told.calls(1).await;
        assert_eq!(told[0], (Side::Destination, 403, Some(Reason::Denied), 1));
    });
}

#[test]
fn a_rule_about_a_workload_is_for_its_unit_alone() {
    run(async {
        let world = World::new(Plan {
            allow: vec![rule("web", Selector::Workload(name("web")), &[])],
            workloads: vec![
                workload("web", "web.service"),
                workload("other", "other.service"),
            ],
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 403);
        assert!(heard.contains("mesh-reason: unknown-workload"), "{heard}");
        world.caller().machine.runs("other.service");
        assert_eq!(get(world.caller().dial().await, "/").await.0, 403);
        world.caller().machine.runs("web.service");
        let (status, heard) = get(world.caller().dial().await, "/headers").await;
        assert_eq!(status, 200, "{heard}");
        assert!(heard.contains("spiffe://prod/workload/web"), "{heard}");
    });
}

#[test]
fn a_path_that_means_two_things_is_refused_where_a_rule_reads_it() {
    run(async {
        let denied = rule("no-admin", Selector::Any, &[requests("GET", "/admin/**")]);
        let world = World::new(Plan {
            deny: vec![denied],
            ..Plan::default()
        });
        let app = App::start("one", world.app_listener(1));
        for path in [
            "/v1/../admin/x",
            "//admin/x",
            "/v1/%2e%2e/admin/x",
            "/admin%2fx",
            "/%61dmin;/x",
        ] {
            let (status, heard) = get(world.caller().dial().await, path).await;
            assert_eq!(status, 400, "{path}: {heard}");
            assert!(heard.contains("mesh-reason: ambiguous-path"), "{heard}");
        }
        assert_eq!(get(world.caller().dial().await, "/%61dmin/x").await.0, 403);
        assert_eq!(app.requests(), 0);
    });
}

#[test]
fn where_no_rule_reads_paths_they_may_be_what_they_like() {
    let by_method = HttpMatch {
        headers: vec![team("*")],
        ..requests("GET", "/**")
    };
    for http in [vec![], vec![by_method]] {
        run(async {
            let world = World::new(Plan {
                allow: vec![rule("all", Selector::Any, &http)],
                ..Plan::default()
            });
            let app = App::start("one", world.app_listener(1));
            for path in ["/a//b", "/a;v=1/b", "/a%2fb", "/../x", "/%ff", "/a%25b"] {
                let words = format!(
                    "GET {path} HTTP/1.1\r\nhost: orders\r\nx-team: shop\r\nconnection: close\r\n\r\n"
                );
                let heard = say(world.caller().dial().await, words.as_bytes()).await;
                assert_eq!(status(&heard), 200, "{path}: {heard}");
            }
            assert_eq!(app.requests(), 6);
        });
    }
}

/// A header `x-team`; `*` for whatever it says.
fn team(value: &str) -> HeaderMatch {
    header("x-team", value)
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.parse().unwrap(),
        value: match value {
            "*" => HeaderValue::Present,
            value => HeaderValue::Exact(value.parse().unwrap()),
        },
    }
}

/// Nobody may send this header so.
fn without(name: &str, value: &str) -> Plan {
    let http = HttpMatch {
        headers: vec![header(name, value)],
        ..requests("GET", "/**")
    };
    Plan {
        deny: vec![rule("without", Selector::Any, &[http])],
        ..Plan::default()
    }
}

#[test]
fn a_denied_header_is_denied_whatever_is_put_around_it() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..without("x-role", "admin")
            });
            let app = App::start("one", world.app_listener(usize::from(hosts) - 1));
            let mut sender = caller(&world).await;
            for (role, expected) in [
                ("admin", 403),
                (" admin", 400),
                ("admin ", 400),
                ("\tadmin", 400),
                ("admin \t", 400),
                (" ", 400),
                ("", 200),
                ("user", 200),
            ] {
                let request = http::Request::get("http://orders/").header("x-role", role);
                let answer = ask(&mut sender, request, "").await;
                assert_eq!(answer.status(), expected, "{role:?}");
            }
            // In HTTP/1.1 it is no part of the value.
            for (role, expected) in [("\t admin \t", 403), (" \tuser\t ", 200)] {
                let words = format!(
                    "GET / HTTP/1.1\r\nhost: orders\r\nx-role:{role}\r\nconnection: close\r\n\r\n"
                );
                let heard = say(world.caller().dial().await, words.as_bytes()).await;
                assert_eq!(status(&heard), expected, "{role:?}: {heard}");
            }
            assert_eq!(app.requests(), 3);
        });
    }
}

#[test]
fn a_denied_cookie_is_denied_in_crumbs() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..without("cookie", "a=b; c=d")
            });
            let app = App::start("one", world.app_listener(usize::from(hosts) - 1));
            let mut sender = caller(&world).await;
            for (crumbs, expected) in [
                (&["a=b; c=d"][..], 403),
                (&["a=b", "c=d"], 403),
                (&["", "a=b", "c=d", ""], 403),
                (&["a=b"], 200),
                (&["c=d", "a=b"], 200),
            ] {
                let mut request = http::Request::get("http://orders/");
                for crumb in crumbs {
                    request = request.header("cookie", *crumb);
                }
                let answer = ask(&mut sender, request, "").await;
                assert_eq!(answer.status(), expected, "{crumbs:?}");
            }
            let words = "GET / HTTP/1.1\r\nhost: orders\r\ncookie: a=b\r\ncookie: c=d\r\n\
                         connection: close\r\n\r\n";
            let heard = say(world.caller().dial().await, words.as_bytes()).await;
            assert_eq!(status(&heard), 403, "{heard}");
            assert_eq!(app.requests(), 2);
        });
    }
}

#[test]
fn the_destination_decides_on_what_its_program_would_see() {
    for (name, values, expected) in [
        ("x-role", &[" admin"][..], 400),
        ("cookie", &["a=b", "c=d"], 403),
    ] {
        run(LocalSet::new().run_until(async {
            let denied = if name == "cookie" {
                "a=b; c=d"
            } else {
                "admin"
            };
            let world = World::new(without(name, denied));
            let app = App::start("one", world.app_listener(1));
            let sessions = Sessions::new(
                world.caller().snapshots.clone(),
                Rc::new(|_| TcpSocket::new_v4()),
            );
            // As a host sends it that looks at nothing.
            let mut request = http::Request::get("/")
                .header("host", "orders")
                .header("mesh-service", ORDERS)
                .header("mesh-call", "00000000000000ff");
            for value in values {
                request = request.header(name, *value);
            }
            let request = request.body(ProxyBody::Empty).unwrap();
            let answer = sessions.request(world.host_id(1), request).await.unwrap();
            assert_eq!(answer.status(), expected, "{name}");
            assert_eq!(app.requests(), 0);
        }));
    }
}

/// Opens a stream whose answer never ends, and reads its beginning.
async fn endless(world: &World, headers: &str) -> TcpStream {
    let mut stream = world.caller().dial().await;
    let words = format!("GET /endless HTTP/1.1\r\nhost: orders\r\n{headers}\r\n");
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"first\r\n") {
        heard.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[test]
fn a_deny_by_a_header_that_nobody_looked_at_before_cuts_open_streams() {
    run(async {
        let mut world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut stream = endless(&world, "x-team: shop\r\n").await;
        let by_team = HttpMatch {
            headers: vec![team("shop")],
            ..requests("GET", "/**")
        };
        world.deny(vec![rule("no-shop", Selector::Any, &[by_team])]);
        // To its end, however it ends.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].2, Some(Reason::CutByPolicy));
    });
}

#[test]
fn a_header_that_a_rule_looked_at_is_known_when_rules_change() {
    run(async {
        let deny = |value: &str| {
            let by_team = HttpMatch {
                headers: vec![team(value)],
                ..requests("GET", "/**")
            };
            vec![rule("no-team", Selector::Any, &[by_team])]
        };
        let mut world = World::new(Plan {
            deny: deny("other"),
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        // In the order in which they are looked at again.
        let mut without = endless(&world, "").await;
        let mut own = endless(&world, "x-team: own\r\n").await;
        let mut shop = endless(&world, "x-team: shop\r\n").await;
        world.deny(deny("shop"));
        let _ = shop.read_to_end(&mut Vec::new()).await;
        for stream in [&mut without, &mut own] {
            assert!(!is_there(stream.read_u8()).await);
        }
        let told = world.caller().told.calls(1).await;
        assert_eq!(told.len(), 1, "{told:?}");
    });
}

#[test]
fn bytes_that_a_rule_about_requests_would_allow_are_refused() {
    run(async {
        let reads = rule("reads", Selector::Any, &[requests("GET", "/**")]);
        let world = World::new(Plan {
            protocol: Protocol::Auto,
            allow: vec![reads],
            ..Plan::default()
        });
        let listener = world.app_listener(1);
        let heard = say(world.caller().dial().await, b"\0binary").await;
        assert_eq!(heard, "");
        App::start("one", listener);
        assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
    });
}

#[test]
fn a_stream_that_is_not_allowed_any_more_is_cut() {
    run(async {
        let mut world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        stream
            .write_all(b"GET /endless HTTP/1.1\r\nhost: orders\r\n\r\n")
            .await
            .unwrap();
        let mut heard = Vec::new();
        while !heard.windows(5).any(|five| five == b"first") {
            heard.push(stream.read_u8().await.unwrap());
        }
        world.apply(vec![rule(
            "others",
            Selector::Any,
            &[requests("GET", "/other")],
        )]);
        let rest = say(stream, b"").await;
        assert!(
            !rest.contains("0\r\n\r\n"),
            "it ended as if it were whole: {rest:?}"
        );
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].2, Some(Reason::CutByPolicy));
    });
}

#[test]
fn a_connection_of_bytes_that_is_not_allowed_any_more_is_cut() {
    for hosts in [1, 2] {
        run(async {
            let mut world = World::new(Plan {
                protocol: Protocol::Tcp,
                hosts,
                ..Plan::default()
            });
            let listener = world.app_listener(usize::from(hosts) - 1);
            let mut near = world.caller().dial().await;
            near.write_all(b"x").await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'x');
            world.apply(Vec::new());
            assert!(near.read(&mut [0; 8]).await.is_err());
            assert!(matches!(far.read(&mut [0; 8]).await, Ok(0) | Err(_)));
        });
    }
}

#[test]
fn an_upgraded_connection_that_is_not_allowed_any_more_is_cut() {
    run(async {
        let mut world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        let words =
            b"GET /upgrade HTTP/1.1\r\nhost: orders\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(words).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(status(&String::from_utf8(head).unwrap()), 101);
        world.apply(Vec::new());
        assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    });
}

#[test]
fn a_host_may_not_speak_for_a_workload_of_another() {
    run(LocalSet::new().run_until(async {
        let mut elsewhere = workload("web", "web.service");
        elsewhere.hosts = vec![Selector::Host {
            name: name("vm-2"),
            id: None,
        }];
        let world = World::new(Plan {
            allow: vec![
                rule("web", Selector::Workload(name("web")), &[]),
                rule("anybody", Selector::Any, &[requests("GET", "/open")]),
            ],
            workloads: vec![elsewhere],
            ..Plan::default()
        });
        let app = App::start("one", world.app_listener(1));
        let sessions = Sessions::new(
            world.caller().snapshots.clone(),
            Rc::new(|_| TcpSocket::new_v4()),
        );
        // As a host would that does not keep to its own policy.
        let call = async |path: &str, marks: &[(&str, &str)]| {
            let mut request = http::Request::get(path).header("host", "orders");
            for (name, value) in marks {
                request = request.header(*name, *value);
            }
            let request = request.body(ProxyBody::Empty).unwrap();
            let answer = sessions.request(world.host_id(1), request).await.unwrap();
            let reason = answer.headers().get("mesh-reason").cloned();
            let reason = reason.map(|reason| reason.to_str().unwrap().to_owned());
            (answer.status().as_u16(), reason)
        };
        let refused = |reason: &str| (403, Some(reason.to_owned()));
        let (service, id) = (("mesh-service", ORDERS), ("mesh-call", "00000000000000ff"));
        let web = ("mesh-workload", "web");
        assert_eq!(
            call("/open", &[service, id, web]).await,
            refused("claim-refused")
        );
        assert_eq!(call("/", &[service, id]).await, refused("denied"));
        assert_eq!(call("/open", &[service, id]).await, (200, None));
        for marks in [&[service][..], &[id], &[service, id, ("mesh-port", "22")]] {
            let bad = (400, Some("bad-request".to_owned()));
            assert_eq!(call("/open", marks).await, bad, "{marks:?}");
        }
        let too_late = ("mesh-deadline", "0");
        let deadline = (504, Some("deadline".to_owned()));
        assert_eq!(call("/open", &[service, id, too_late]).await, deadline);
        assert_eq!(app.requests(), 1);
    }));
}
