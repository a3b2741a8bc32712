//! Callers and programs that do not speak the same.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::rule::{HealthCheck, HealthProbe, Protocol, TrafficSettings};
use proxy::{ProxyLimits, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::apps::{App, Speaks, get, say, status};
use crate::frames::{HEADERS, SETTINGS, frame, opening};
use crate::run;
use crate::world::{Plan, World};

/// More failures than an endpoint may have before it is left alone.
const MANY: usize = 12;

/// The service on another host, or on the caller's own, and where its program is.
fn world(protocol: Protocol, hosts: u8) -> (World, usize) {
    let world = World::new(Plan {
        protocol,
        hosts,
        ..Plan::default()
    });
    (world, usize::from(hosts) - 1)
}

/// A caller of HTTP/2 with prior knowledge.
pub(crate) async fn caller(world: &World) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(world.caller().dial().await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: http::request::Builder,
    body: &'static str,
) -> Response<Incoming> {
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    sender.send_request(request).await.unwrap()
}

pub(crate) async fn text(answer: Response<Incoming>) -> String {
    let whole = answer.into_body().collect().await.unwrap();
    String::from_utf8(whole.to_bytes().to_vec()).unwrap()
}

#[test]
fn http_2_reaches_a_program_that_speaks_http_1_alone() {
    for speaks in [Speaks::Http1, Speaks::Http1Curtly] {
        for (hosts, protocol) in [
            (1, Protocol::Http),
            (2, Protocol::Http),
            (2, Protocol::Auto),
            (2, Protocol::Grpc),
        ] {
            run(async {
                let (world, place) = world(protocol, hosts);
                let app = App::start_speaking(speaks, "one", world.app_listener(place));
                let mut sender = caller(&world).await;
                for _ in 0..MANY {
                    let request = Request::post("http://orders/echo");
                    let answer = ask(&mut sender, request, "hello").await;
                    assert_eq!(answer.status(), 200, "{:?}", answer.headers());
                    assert_eq!(text(answer).await, "hello");
                }
                assert_eq!(app.requests(), MANY);
                // It was asked once what it speaks.
                assert_eq!(app.greetings(), 1);
                let request = Request::get("http://orders/headers")
                    .header("cookie", "a=b")
                    .header("cookie", "c=d");
                let seen = text(ask(&mut sender, request, "").await).await;
                assert!(seen.contains("\"cookie\": \"a=b; c=d\""), "{seen}");
                assert!(seen.contains("\"host\": \"orders\""), "{seen}");
                let told = world.caller().told.calls(MANY).await;
                assert!(told.iter().all(|call| call.2.is_none()), "{told:?}");
            });
        }
    }
}

#[test]
fn a_body_is_passed_on_whatever_the_method() {
    for (hosts, protocol) in [
        (1, Protocol::Http),
        (2, Protocol::Http),
        (2, Protocol::Grpc),
    ] {
        run(async {
            let (world, place) = world(protocol, hosts);
            App::start_speaking(Speaks::Http1, "one", world.app_listener(place));
            let stream = TokioIo::new(world.caller().dial().await);
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
            tokio::spawn(connection);
            for method in [Method::GET, Method::DELETE, Method::POST, Method::HEAD] {
                let request = Request::builder()
                    .method(method.clone())
                    .uri("http://orders/collect");
                // Nobody knows how long it is before it is there.
                let frames =
                    ["hel", "lo"].map(|part| Ok::<_, Infallible>(Frame::data(part.into())));
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let body: BoxBody<Bytes, Infallible> = BoxBody::new(body);
                let answer = sender.send_request(request.body(body).unwrap()).await;
                let answer = answer.unwrap();
                assert_eq!(answer.status(), 200, "{method}");
                assert_eq!(answer.headers()["content-length"], "5", "{method}");
                let expected = if method == Method::HEAD { "" } else { "hello" };
                assert_eq!(text(answer).await, expected, "{method}");
            }
            for more in ["", "expect: 100-continue\r\n"] {
                let words = format!(
                    "GET /collect HTTP/1.1\r\nhost: orders\r\n{more}connection: close\r\n\
                     transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                );
                let heard = say(world.caller().dial().await, words.as_bytes()).await;
                let answer = heard.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
                assert_eq!(status(answer), 200, "{heard}");
                assert!(answer.ends_with("hello"), "{heard}");
            }
        });
    }
}

#[test]
fn many_at_once_ask_once_what_a_program_speaks() {
    run(async {
        let (world, place) = world(Protocol::Http, 2);
        let app = App::start_speaking(Speaks::Http1, "one", world.app_listener(place));
        let sender = caller(&world).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut sender = sender.clone();
            calls.spawn(async move {
                let answer = ask(&mut sender, Request::get("http://orders/"), "").await;
                answer.status().as_u16()
            });
        }
        while let Some(status) = calls.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
        assert_eq!((app.requests(), app.greetings()), (50, 1));
    });
}

#[test]
fn grpc_is_refused_where_it_is_not_spoken_and_nobody_is_ejected_for_that() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(Protocol::Http, hosts);
            let app = App::start_speaking(Speaks::Http1, "one", world.app_listener(place));
            let mut sender = caller(&world).await;
            for _ in 0..MANY {
                let request = Request::post("http://orders/orders.Orders/Get")
                    .header("content-type", "application/grpc");
                let answer = ask(&mut sender, request, "\0\0\0\0\0").await;
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.headers()["grpc-status"], "12");
                assert_eq!(answer.headers()["mesh-reason"], "protocol-mismatch");
                let message = answer.headers()["grpc-message"].to_str().unwrap();
                assert!(message.contains("HTTP/1.1 alone"), "{message}");
            }
            assert_eq!(app.requests(), 0);
            let told = world.caller().told.calls(MANY).await;
            assert!(
                told.iter()
                    .all(|call| call.2 == Some(Reason::ProtocolMismatch) && call.3 == 1),
                "{told:?}"
            );
            assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
        });
    }
}

#[test]
fn http_1_reaches_a_program_that_speaks_http_2_alone_where_its_service_takes_grpc() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(Protocol::Grpc, hosts);
            App::start_speaking(Speaks::Http2, "one", world.app_listener(place));
            let (status_of_get, heard) = get(world.caller().dial().await, "/").await;
            assert_eq!(status_of_get, 200, "{heard}");
            assert!(heard.ends_with("one"), "{heard}");
            let words = "POST /collect HTTP/1.1\r\nhost: orders\r\nexpect: 100-continue\r\n\
                         connection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                         5\r\nhello\r\n0\r\n\r\n";
            let heard = say(world.caller().dial().await, words.as_bytes()).await;
            assert!(heard.starts_with("HTTP/1.1 100 "), "{heard}");
            let (_, answer) = heard.split_once("\r\n\r\n").unwrap();
            assert_eq!(status(answer), 200, "{heard}");
            assert!(answer.contains("hello"), "{heard}");
        });
    }
}

#[test]
fn a_program_that_speaks_http_2_alone_is_asked_so_whether_it_is_well() {
    for speaks in [Speaks::Http2, Speaks::Http1] {
        run(async {
            let probe = HealthProbe::Http {
                path: "/healthz".parse().unwrap(),
            };
            let settings = TrafficSettings {
                health: Some(HealthCheck {
                    probe,
                    interval: Some(Duration::from_millis(20)),
                    timeout: None,
                }),
                ..TrafficSettings::default()
            };
            let world = World::new(Plan {
                protocol: Protocol::Grpc,
                settings,
                ..Plan::default()
            });
            let app = App::start_speaking(speaks, "one", world.app_listener(1));
            // More than may fail.
            while app.paths().len() < 4 {
                tokio::task::yield_now().await;
            }
            assert!(app.paths().iter().all(|path| path == "/healthz"));
            assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
        });
    }
}

#[test]
fn what_no_caller_is_understood_in_is_a_mismatch_and_no_failure() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(Protocol::Http, hosts);
            App::start_speaking(Speaks::Http2, "one", world.app_listener(place));
            for _ in 0..MANY {
                let (status, heard) = get(world.caller().dial().await, "/").await;
                assert_eq!(status, 502, "{heard}");
                assert!(heard.contains("mesh-reason: protocol-mismatch"), "{heard}");
                assert!(heard.contains("`protocol: grpc`"), "{heard}");
            }
            let mut sender = caller(&world).await;
            let answer = ask(&mut sender, Request::get("http://orders/"), "").await;
            assert_eq!(answer.status(), 200);
        });
    }
}

#[test]
fn what_speaks_no_http_at_all_is_a_mismatch() {
    run(async {
        let (world, place) = world(Protocol::Http, 2);
        let listener = world.app_listener(place);
        tokio::spawn(async move {
            while let Ok((mut program, _)) = listener.accept().await {
                let _ = program.write_all(b"-ERR unknown command\r\n").await;
                // It hears its caller out, lest the answer be lost.
                let _ = program.shutdown().await;
                tokio::spawn(async move { program.read_to_end(&mut Vec::new()).await });
            }
        });
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 502, "{heard}");
        assert!(heard.contains("mesh-reason: protocol-mismatch"), "{heard}");
        let mut sender = caller(&world).await;
        let answer = ask(&mut sender, Request::get("http://orders/"), "").await;
        assert_eq!(answer.headers()["mesh-reason"], "protocol-mismatch");
    });
}

#[test]
fn who_hangs_up_on_grpc_without_a_word_has_failed() {
    run(async {
        let (world, place) = world(Protocol::Grpc, 2);
        let listener = world.app_listener(place);
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let mut sender = caller(&world).await;
        let request =
            Request::post("http://orders/x.Y/Z").header("content-type", "application/grpc");
        let answer = ask(&mut sender, request, "").await;
        assert_eq!(answer.headers()["mesh-reason"], "broken");
        assert_eq!(answer.headers()["grpc-status"], "14");
    });
}

#[test]
fn a_program_that_fails_may_be_another_by_then() {
    run(async {
        let (world, place) = world(Protocol::Http, 2);
        let listener = world.app_listener(place);
        let program = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in [
                "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                // Known by now, it is asked in HTTP/1.1, and fails.
                "",
                "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut first = [0; 3];
                stream.read_exact(&mut first).await.unwrap();
                asked.push(String::from_utf8(first.to_vec()).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
                if !answer.is_empty() {
                    stream.shutdown().await.unwrap();
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            }
            asked
        });
        let mut sender = caller(&world).await;
        for expected in [200, 502, 200] {
            let answer = ask(&mut sender, Request::get("http://orders/"), "").await;
            assert_eq!(answer.status(), expected);
        }
        assert_eq!(program.await.unwrap(), ["PRI", "GET", "GET", "PRI", "GET"]);
    });
}

/// What a program that was offered HTTP/2 has of it so far.
struct Offered {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Offered {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut came = vec![0; opening().len()];
        let mut offered = Self {
            stream,
            came: Vec::new(),
        };
        // The preface and the head of the settings.
        offered.stream.read_exact(&mut came).await.unwrap();
        assert!(came.starts_with(b"PRI * HTTP/2.0\r\n"), "{came:?}");
        offered.came = came.split_off(came.len() - 9);
        offered
    }

    /// Takes what is there.
    fn take(&mut self) {
        let mut more = [0; 4096];
        while let Ok(length @ 1..) = self.stream.try_read(&mut more) {
            self.came.extend(&more[..length]);
        }
    }

    fn has_request(&self) -> bool {
        let mut rest = &self.came[..];
        while let Some((head, after)) = rest.split_at_checked(9) {
            if head[3] == HEADERS {
                return true;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            rest = after.get(length..).unwrap_or_default();
        }
        false
    }
}

fn grpc() -> http::request::Builder {
    Request::post("http://orders/x.Y/Z").header("content-type", "application/grpc")
}

#[test]
fn nothing_is_asked_before_the_program_has_shown_what_it_speaks() {
    for hosts in [1, 2] {
        run(async {
            let limits = ProxyLimits {
                local_connect_wait: Duration::from_millis(100),
                ..ProxyLimits::default()
            };
            let world = World::new(Plan {
                limits,
                hosts,
                ..Plan::default()
            });
            let listener = world.app_listener(usize::from(hosts) - 1);
            let sender = caller(&world).await;
            let mut patient = sender.clone();
            let patient = tokio::spawn(async move { ask(&mut patient, grpc(), "").await });
            let mut offered = Offered::accept(&listener).await;
            // It comes later, waits for the same connection, and can be put otherwise.
            let mut other = sender.clone();
            let other = tokio::spawn(async move {
                let answer = ask(&mut other, Request::get("http://orders/other"), "").await;
                answer.status()
            });
            let (mut plain, _) = listener.accept().await.unwrap();
            let mut first = [0; 10];
            plain.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"GET /other");
            // By then the other has waited for longer than that.
            offered.take();
            assert!(!offered.has_request(), "{:?}", offered.came);
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            plain.write_all(answer).await.unwrap();
            assert_eq!(other.await.unwrap(), 200);
            // Now it shows that it speaks HTTP/2.
            let settings = frame(SETTINGS, 0, 0, &[]);
            offered.stream.write_all(&settings).await.unwrap();
            while !offered.has_request() {
                offered.stream.readable().await.unwrap();
                offered.take();
            }
            drop(offered);
            let answer = patient.await.unwrap();
            assert_eq!(answer.headers()["mesh-reason"], "broken");
        });
    }
}

#[test]
fn a_silence_is_no_reason_to_refuse_grpc() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(Protocol::Http, hosts);
            let listener = world.app_listener(place);
            let mut sender = caller(&world).await;
            let mut first = sender.clone();
            let first = tokio::spawn(async move {
                let answer = ask(&mut first, Request::get("http://orders/"), "").await;
                answer.status()
            });
            // It is about to end, and its successor to begin.
            drop(Offered::accept(&listener).await);
            let (mut plain, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            plain.read_exact(&mut [0; 5]).await.unwrap();
            plain.write_all(answer).await.unwrap();
            assert_eq!(first.await.unwrap(), 200);
            let app = App::start("one", listener);
            let answer = ask(&mut sender, grpc(), "").await;
            assert_eq!(answer.status(), 200, "{:?}", answer.headers());
            assert_eq!(answer.headers().get("grpc-status"), None);
            assert_eq!((app.requests(), app.greetings()), (1, 1));
        });
    }
}

#[test]
fn who_breaks_off_its_own_body_says_nothing_of_the_program() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(Protocol::Grpc, hosts);
            let app = App::start_speaking(Speaks::Http1, "one", world.app_listener(place));
            assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
            let mut broken = world.caller().dial().await;
            let words = b"PUT /collect HTTP/1.1\r\nhost: orders\r\ncontent-length: 9\r\n\r\nhi";
            broken.write_all(words).await.unwrap();
            broken.shutdown().await.unwrap();
            let heard = say(broken, b"").await;
            assert_eq!(status(&heard), 400, "{heard}");
            assert_eq!(get(world.caller().dial().await, "/").await.0, 200);
            assert_eq!(app.greetings(), 1);
        });
    }
}
