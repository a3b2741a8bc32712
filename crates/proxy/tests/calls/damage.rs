//! Callers and endpoints that do what they should not.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::rule::{HealthCheck, HealthProbe, Protocol, TrafficSettings};
use proxy::{ProxyLimits, Reason, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::apps::{App, get, say, status};
use crate::run;
use crate::world::{Plan, World, impatient};

#[test]
fn requests_that_can_be_read_in_two_ways_are_refused() {
    run(async {
        let world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        let hidden = "GET /hidden HTTP/1.1\r\nhost: orders\r\n\r\n";
        let mut refused = 0;
        for (what, head) in [
            (
                "two lengths",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            ),
            (
                "a length that is none",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n",
            ),
            (
                "a list of lengths",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\n",
            ),
            (
                "a length and chunks",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunks and a length",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunks twice",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunks that are not last",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n",
            ),
            (
                "chunks in disguise",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
            ),
            (
                "chunks of HTTP/1.0",
                "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "a space before the colon",
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\n",
            ),
            (
                "a line that goes on",
                "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
            ),
            (
                "a bare CR",
                "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb: c\r\n\r\n",
            ),
            ("a NUL", "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n"),
            ("no host", "GET / HTTP/1.1\r\n\r\n"),
            ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
            (
                "another host in the target",
                "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n",
            ),
            ("a tunnel", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"),
            ("a broken target", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
            ("an unknown version", "GET / HTTP/3.0\r\nhost: a\r\n\r\n"),
        ] {
            let words = format!("{head}{hidden}");
            let heard = say(world.caller().dial().await, words.as_bytes()).await;
            assert!(matches!(status(&heard), 0 | 400), "{what}: {heard}");
            assert_eq!(
                heard.matches("HTTP/1.1 ").count(),
                usize::from(!heard.is_empty()),
                "{what}: {heard}"
            );
            refused += 1;
            let told = world.caller().told.calls(refused).await;
            let (_, told_status, reason, _) = told[refused - 1];
            assert_eq!(reason, Some(Reason::BadRequest), "{what}");
            assert_eq!(told_status, status(&heard), "{what}");
        }
        assert_eq!(app.requests(), 0);
    });
}

#[test]
fn bodies_that_can_be_read_in_two_ways_hide_no_request() {
    run(async {
        let world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        let hidden = "GET /hidden HTTP/1.1\r\nhost: orders\r\n\r\n";
        for (number, (what, body)) in [
            (
                "a chunk longer than any number",
                "10000000000000005\r\nhello\r\n0\r\n\r\n",
            ),
            (
                "a chunk as long as the longest",
                "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            ),
            ("a negative chunk", "-5\r\nhello\r\n0\r\n\r\n"),
            ("a chunk in another notation", "0x5\r\nhello\r\n0\r\n\r\n"),
            ("a chunk of no length", "\r\nhello\r\n0\r\n\r\n"),
            ("a chunk of two lengths", "5 5\r\nhello\r\n0\r\n\r\n"),
            ("a chunk that does not end", "5\r\nhello0\r\n\r\n"),
            ("a chunk that ends elsewhere", "5\r\nhell\r\n0\r\n\r\n"),
            ("an extension that breaks off", "5;x\nhello\r\n0\r\n\r\n"),
        ]
        .into_iter()
        .enumerate()
        {
            let head = "POST /echo HTTP/1.1\r\nhost: orders\r\ntransfer-encoding: chunked\r\n\r\n";
            let words = format!("{head}{body}{hidden}");
            let mut stream = world.caller().dial().await;
            stream.write_all(words.as_bytes()).await.unwrap();
            // No more comes, however long a chunk was to be.
            stream.shutdown().await.unwrap();
            let heard = say(stream, b"").await;
            assert!(heard.matches("HTTP/1.1 ").count() <= 1, "{what}: {heard}");
            assert!(!heard.ends_with("0\r\n\r\n"), "{what}: {heard}");
            assert!(app.requests() <= number + 1, "{what}: {heard}");
        }
        assert!(app.paths().iter().all(|path| path == "/echo"));
    });
}

#[test]
fn lines_that_end_in_half_are_read_in_one_way() {
    run(async {
        let world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        // RFC 9112, 2.2 lets a recipient take a bare LF for the end of a line: what goes on is
        // written anew, so that the program sees no such thing.
        let words = b"GET /headers HTTP/1.1\nhost: orders\nx-a: b\nconnection: close\n\n";
        let heard = say(world.caller().dial().await, words).await;
        assert_eq!(status(&heard), 200, "{heard}");
        assert!(heard.contains("\"x-a\": \"b\""), "{heard}");
        // Two lengths are noticed in such lines, too.
        let words = b"POST /echo HTTP/1.1\nhost: orders\ncontent-length: 4\n\
            transfer-encoding: chunked\n\n0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
        let heard = say(world.caller().dial().await, words).await;
        assert_eq!(status(&heard), 400, "{heard}");
        assert_eq!(app.requests(), 1);
    });
}

#[test]
fn heads_that_are_too_large_are_refused() {
    run(async {
        let world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        let one = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
            "x".repeat(70 << 10)
        );
        let many = format!(
            "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
            "x: y\r\n".repeat(5000)
        );
        for words in [one, many] {
            let heard = say(world.caller().dial().await, words.as_bytes()).await;
            assert_eq!(status(&heard), 431, "{heard}");
        }
        assert_eq!(app.requests(), 0);
        let told = world.caller().told.calls(2).await;
        let expected = (Side::Source, 431, Some(Reason::BadRequest), 0);
        assert_eq!(told, [expected; 2]);
    });
}

#[test]
fn who_does_not_finish_its_head_is_not_waited_for() {
    run(async {
        let world = World::new(Plan {
            limits: impatient(),
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        // Silence counts, too.
        let mut silent = world.caller().dial().await;
        let _ = silent.read_to_end(&mut heard).await;
    });
}

#[test]
fn who_does_not_read_its_answer_is_not_waited_for() {
    run(async {
        let world = World::new(Plan {
            limits: impatient(),
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        let words = b"POST /echo HTTP/1.1\r\nhost: orders\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(words).await.unwrap();
        let piece = vec![0; 1 << 20];
        // Sends for as long as anybody takes it, and reads nothing.
        while stream.write_all(&piece).await.is_ok() {}
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].0, Side::Source);
    });
}

#[test]
fn a_user_who_is_silent_on_all_its_connections_keeps_out_nobody_else() {
    run(async {
        let world = World::new(Plan {
            limits: ProxyLimits {
                connections: 8,
                connections_of_user: 4,
                ..ProxyLimits::default()
            },
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let machine = &world.caller().machine;
        machine.runs_as(1000, None);
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(world.caller().dial().await);
        }
        for _ in 0..16 {
            assert!(is_broken_off(world.caller().orders).await);
        }
        let told = world.caller().told.calls(16).await;
        assert_eq!(told[0], (Side::Source, 0, Some(Reason::Overflow), 0));
        machine.runs_as(1001, None);
        assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
        // And what it gives back it may have again.
        drop(silent);
        world.caller().machine.runs_as(1000, None);
        while is_broken_off(world.caller().orders).await {}
    });
}

/// Returns whether a connection ends before anything was said.
async fn is_broken_off(at: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(at).await else {
        return true;
    };
    let words = b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n";
    stream.write_all(words).await.is_err() || stream.read(&mut [0; 1]).await.is_err()
}

#[test]
fn an_endpoint_that_never_answers_is_given_up() {
    run(async {
        let settings = TrafficSettings {
            request_timeout: Some(Duration::from_millis(300)),
            ..TrafficSettings::default()
        };
        let world = World::new(Plan {
            settings,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let (status, heard) = get(world.caller().dial().await, "/never").await;
        assert_eq!(status, 504, "{heard}");
        assert!(heard.contains("mesh-reason: deadline"), "{heard}");
        assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
    });
}

#[test]
fn an_endpoint_that_accepts_and_says_nothing_is_given_up() {
    run(async {
        let settings = TrafficSettings {
            request_timeout: Some(Duration::from_millis(300)),
            ..TrafficSettings::default()
        };
        let world = World::new(Plan {
            settings,
            ..Plan::default()
        });
        let _listener = world.app_listener(1);
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 504, "{heard}");
    });
}

#[test]
fn a_failure_is_tried_at_another_endpoint() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            ..Plan::default()
        });
        // The second host's program is not there, and the third's is.
        let app = App::start("there", world.app_listener(2));
        for _ in 0..6 {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            assert_eq!(status, 200, "{heard}");
        }
        assert_eq!(app.requests(), 6);
        let told = world.caller().told.calls(6).await;
        assert!(told.iter().any(|call| call.3 == 2), "{told:?}");
    });
}

#[test]
fn what_may_be_sent_twice_is_sent_elsewhere_after_503_and_what_may_not_is_not() {
    run(async {
        let world = World::new(Plan {
            hosts: 3,
            ..Plan::default()
        });
        let apps = [
            App::start("one", world.app_listener(1)),
            App::start("two", world.app_listener(2)),
        ];
        assert_eq!(get(world.caller().dial().await, "/503").await.0, 503);
        assert_eq!(apps.each_ref().map(|app| app.requests()), [1, 1]);
        let words = "POST /503 HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let heard = say(world.caller().dial().await, words.as_bytes()).await;
        assert_eq!(status(&heard), 503);
        assert_eq!(apps[0].requests() + apps[1].requests(), 3);
        let words =
            "PUT /503 HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
        let heard = say(world.caller().dial().await, words.as_bytes()).await;
        assert_eq!(status(&heard), 503);
        assert_eq!(apps[0].requests() + apps[1].requests(), 5);
    });
}

#[test]
fn an_error_of_the_mesh_is_told_to_grpc_in_its_own_way() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Grpc,
            allow: Vec::new(),
            ..Plan::default()
        });
        let answer = grpc(&world, "http://orders/orders.Orders/Get", None).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "7");
        assert_eq!(answer.headers()["mesh-reason"], "denied");
    });
}

#[test]
fn the_deadline_of_a_grpc_call_is_kept() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Grpc,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let answer = grpc(&world, "http://orders/never", Some("200m")).await;
        assert_eq!(answer.headers()["grpc-status"], "4");
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].2, Some(Reason::Deadline));
    });
}

pub(crate) async fn grpc(world: &World, uri: &str, timeout: Option<&str>) -> Response<Incoming> {
    let stream = TokioIo::new(world.caller().dial().await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(uri).header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let body = Full::new(Bytes::from_static(b"\0\0\0\0\0"));
    sender
        .send_request(request.body(body).unwrap())
        .await
        .unwrap()
}

#[test]
fn streams_that_are_reset_at_once_end_their_connection() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Grpc,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let stream = world.caller().dial().await;
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let is_over = async {
            for _ in 0..100_000 {
                let Ok(ready) = sender.clone().ready().await else {
                    return;
                };
                sender = ready;
                let request = Request::get("http://orders/never").body(()).unwrap();
                let Ok((_, mut body)) = sender.send_request(request, false) else {
                    return;
                };
                body.send_reset(h2::Reason::CANCEL);
                // The connection sends what is queued.
                tokio::task::yield_now().await;
            }
            panic!("nobody minds");
        };
        is_over.await;
        connection.abort();
        // Everybody else is served.
        assert_eq!(grpc(&world, "http://orders/", None).await.status(), 200);
    });
}

#[test]
fn a_broken_body_is_not_passed_on_as_a_whole_one() {
    run(async {
        let world = World::new(Plan::default());
        let listener = world.app_listener(1);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
            stream.write_all(answer).await.unwrap();
        });
        let (status, heard) = get(world.caller().dial().await, "/").await;
        // Of what came before, some may be there.
        assert!([0, 200].contains(&status), "{heard:?}");
        assert!(!heard.ends_with("0\r\n\r\n"), "{heard:?}");
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0].2, Some(Reason::Broken));
    });
}

#[test]
fn a_host_that_cannot_be_reached_is_named_by_reason_alone() {
    run(async {
        let world = World::new(Plan::default());
        world.caller().machine.cut_off();
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 503, "{heard}");
        assert!(heard.contains("mesh-reason: unreachable"), "{heard}");
        assert!(!heard.contains("127.0.0.1"), "{heard}");
    });
}

#[test]
fn a_stop_lets_what_is_under_way_end() {
    run(async {
        let mut world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        let head = b"POST /echo HTTP/1.1\r\nhost: orders\r\ncontent-length: 10\r\n\r\nhello";
        stream.write_all(head).await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        let proxy = world.hosts[0].proxy.take().unwrap();
        let stopping = tokio::task::spawn_blocking(move || proxy.stop(Duration::from_secs(20)));
        let heard = say(stream, b"again").await;
        assert!(heard.ends_with("again"), "{heard}");
        stopping.await.unwrap();
    });
}

#[test]
fn a_stop_takes_who_waits_to_be_accepted() {
    run(async {
        let limits = ProxyLimits {
            connections: 1,
            ..ProxyLimits::default()
        };
        let mut world = World::new(Plan {
            limits,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let mut first = world.caller().dial().await;
        let head = b"POST /echo HTTP/1.1\r\nhost: orders\r\ncontent-length: 10\r\n\r\nhello";
        first.write_all(head).await.unwrap();
        first.read_exact(&mut [0; 15]).await.unwrap();
        // Another has the only place: the kernel keeps this one.
        let mut waiting = world.caller().dial().await;
        waiting
            .write_all(b"GET /headers HTTP/1.1\r\nhost: orders\r\n\r\n")
            .await
            .unwrap();
        let proxy = world.hosts[0].proxy.take().unwrap();
        let stopping = tokio::task::spawn_blocking(move || proxy.stop(Duration::from_secs(20)));
        assert_eq!(status(&say(waiting, b"").await), 200);
        let heard = say(first, b"again").await;
        assert!(heard.ends_with("again"), "{heard}");
        stopping.await.unwrap();
    });
}

#[test]
fn bodies_stay_whole_when_read_slowly() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(world.caller().dial().await))
                .await
                .unwrap();
        tokio::spawn(connection);
        let body: Bytes = (0..4_000_000_u32)
            .map(|number| number as u8)
            .collect::<Vec<_>>()
            .into();
        let request = Request::post("/echo").header("host", "orders");
        let request = request.body(Full::new(body.clone())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    });
}

#[test]
fn a_program_that_fails_its_checks_gets_no_calls() {
    run(async {
        let settings = TrafficSettings {
            health: Some(HealthCheck {
                probe: HealthProbe::Http {
                    path: "/503".parse().unwrap(),
                },
                interval: Some(Duration::from_millis(50)),
                timeout: None,
            }),
            ..TrafficSettings::default()
        };
        let world = World::new(Plan {
            settings,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        loop {
            let (status, heard) = get(world.caller().dial().await, "/").await;
            if status == 503 {
                assert!(heard.contains("mesh-reason: unhealthy"), "{heard}");
                return;
            }
        }
    });
}
