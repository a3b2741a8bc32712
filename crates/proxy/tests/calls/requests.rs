//! Requests that are answered.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::rule::{Protocol, Sticky, TrafficSettings};
use proxy::Side;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::apps::{App, get, is_there, say, status};
use crate::run;
use crate::world::{Plan, World};

#[test]
fn a_request_reaches_the_program_and_its_answer_comes_back() {
    run(async {
        let world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 200, "{heard}");
        assert!(heard.ends_with("one"), "{heard}");
        assert_eq!(app.requests(), 1);
        let [source] = world.hosts[0].told.calls(1).await[..] else {
            panic!()
        };
        assert_eq!(source, (Side::Source, 200, None, 1));
        let [destination] = world.hosts[1].told.calls(1).await[..] else {
            panic!()
        };
        assert_eq!(destination, (Side::Destination, 200, None, 1));
    });
}

#[test]
fn a_program_of_the_same_host_is_reached_without_a_session() {
    run(async {
        let world = World::new(Plan {
            hosts: 1,
            ..Plan::default()
        });
        world.caller().machine.cut_off();
        App::start("here", world.app_listener(0));
        let (status, heard) = get(world.caller().dial().await, "/headers").await;
        assert_eq!(status, 200, "{heard}");
        assert!(
            heard.contains("\"mesh-caller\": \"spiffe://prod/host/vm-1\""),
            "{heard}"
        );
    });
}

#[test]
fn the_program_learns_who_calls_and_nobody_else_says_so() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let words = "GET /headers HTTP/1.1\r\nhost: orders:80\r\nmesh-caller: spiffe://x/y\r\n\
                     mesh-workload: root\r\nx-forwarded-for: 10.1.2.3\r\nx-private: 1\r\n\
                     connection: close, x-private\r\nte: gzip\r\n\r\n";
        let heard = say(world.caller().dial().await, words.as_bytes()).await;
        assert_eq!(status(&heard), 200, "{heard}");
        for expected in [
            "\"host\": \"orders:80\"",
            "\"mesh-caller\": \"spiffe://prod/host/vm-1\"",
            "\"x-forwarded-for\": \"10.1.2.3, 127.0.1.1\"",
            "\"x-forwarded-host\": \"orders:80\"",
            "\"x-forwarded-proto\": \"http\"",
        ] {
            assert!(heard.contains(expected), "{expected} in {heard}");
        }
        for gone in [
            "mesh-workload",
            "mesh-service",
            "mesh-call\"",
            "x-private",
            "\"te\"",
        ] {
            assert!(!heard.contains(gone), "{gone} in {heard}");
        }
    });
}

#[test]
fn a_program_cannot_speak_for_the_mesh() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let (status, heard) = get(world.caller().dial().await, "/forged").await;
        assert_eq!(status, 200);
        assert!(
            !heard.contains("mesh-reason") && !heard.contains("keep-alive"),
            "{heard}"
        );
    });
}

#[test]
fn one_connection_takes_many_requests() {
    run(async {
        let world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        let (mut sender, connection) = http1::handshake(TokioIo::new(world.caller().dial().await))
            .await
            .unwrap();
        tokio::spawn(connection);
        for number in 0..50_usize {
            let body = vec![7; number * 1000];
            let request = Request::post("/echo").header("host", "orders");
            let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
        }
        assert_eq!(app.requests(), 50);
    });
}

#[test]
fn chunks_pass_both_ways() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let words = "POST /echo HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\
                     transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        let heard = say(world.caller().dial().await, words.as_bytes()).await;
        assert_eq!(status(&heard), 200, "{heard}");
        assert!(
            heard.contains("hello") && heard.contains(" world"),
            "{heard}"
        );
    });
}

#[test]
fn a_hundred_megabytes_pass_in_both_directions() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let (mut sender, connection) = http1::handshake(TokioIo::new(world.caller().dial().await))
            .await
            .unwrap();
        tokio::spawn(connection);
        let body = Full::new(Bytes::from(vec![1; 100 << 20]));
        let request = Request::post("/echo")
            .header("host", "orders")
            .body(body)
            .unwrap();
        let mut answer = sender.send_request(request).await.unwrap().into_body();
        let mut length = 0;
        while let Some(frame) = answer.frame().await {
            length += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        assert_eq!(length, 100 << 20);
    });
}

#[test]
fn who_waits_for_continue_is_told_to_go_on() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        let words = b"POST /collect HTTP/1.1\r\nhost: orders\r\nexpect: 100-continue\r\n\
                      content-length: 5\r\nconnection: close\r\n\r\n";
        stream.write_all(words).await.unwrap();
        let mut first = [0; 25];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
        let heard = say(stream, b"hello").await;
        assert_eq!(status(&heard), 200, "{heard}");
        assert!(heard.ends_with("hello"), "{heard}");
    });
}

/// Reads a head, to its empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

const AWAITED: &[u8] = b"POST /x HTTP/1.1\r\nhost: orders\r\nexpect: 100-continue\r\n\
    content-length: 5\r\nconnection: close\r\n\r\n";

#[test]
fn a_body_is_sent_when_the_program_asks_for_it_and_not_before() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..Plan::default()
            });
            let listener = world.app_listener(usize::from(hosts) - 1);
            let mut caller = world.caller().dial().await;
            caller.write_all(AWAITED).await.unwrap();
            let (mut program, _) = listener.accept().await.unwrap();
            let asked = head(&mut program).await;
            assert!(asked.contains("expect: 100-continue"), "{asked}");
            let mut early = [0; 1];
            assert!(!is_there(caller.read(&mut early)).await);
            program
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
            assert_eq!(head(&mut caller).await, "HTTP/1.1 100 Continue\r\n\r\n");
            caller.write_all(b"hello").await.unwrap();
            let mut body = [0; 5];
            program.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
            program
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
                .await
                .unwrap();
            let heard = say(caller, b"").await;
            assert_eq!(status(&heard), 200, "{heard}");
            assert!(heard.ends_with("done"), "{heard}");
        });
    }
}

#[test]
fn a_body_that_the_program_does_not_want_is_never_asked_for() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..Plan::default()
            });
            let listener = world.app_listener(usize::from(hosts) - 1);
            let mut caller = world.caller().dial().await;
            caller.write_all(AWAITED).await.unwrap();
            let (mut program, _) = listener.accept().await.unwrap();
            head(&mut program).await;
            program
                .write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
                .await
                .unwrap();
            let heard = say(caller, b"").await;
            assert!(heard.starts_with("HTTP/1.1 413"), "{heard}");
            assert!(heard.ends_with("no"), "{heard}");
            // And its connection is not kept for what never comes.
            assert!(matches!(program.read(&mut [0; 8]).await, Ok(0) | Err(_)));
        });
    }
}

#[test]
fn a_body_is_not_asked_for_where_the_destination_denies_it() {
    run(async {
        let world = World::new(Plan {
            allow_there: Some(Vec::new()),
            ..Plan::default()
        });
        let app = App::start("one", world.app_listener(1));
        let heard = say(world.caller().dial().await, AWAITED).await;
        assert_eq!(status(&heard), 403, "{heard}");
        assert!(heard.contains("mesh-reason: denied"), "{heard}");
        assert_eq!(app.requests(), 0);
    });
}

#[test]
fn a_program_that_knows_of_no_continue_gets_the_body_nevertheless() {
    run(async {
        let world = World::new(Plan::default());
        let listener = world.app_listener(1);
        let mut caller = world.caller().dial().await;
        caller.write_all(AWAITED).await.unwrap();
        let (mut program, _) = listener.accept().await.unwrap();
        head(&mut program).await;
        assert_eq!(head(&mut caller).await, "HTTP/1.1 100 Continue\r\n\r\n");
        caller.write_all(b"hello").await.unwrap();
        let mut body = [0; 5];
        program.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"hello");
    });
}

#[test]
fn a_program_that_answers_well_may_go_on_to_read_what_it_did_not_ask_for() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut stream = world.caller().dial().await;
        let words = b"POST /echo HTTP/1.1\r\nhost: orders\r\nexpect: 100-continue\r\n\
                      content-length: 5\r\nconnection: close\r\n\r\n";
        stream.write_all(words).await.unwrap();
        let first = head(&mut stream).await;
        assert_eq!(status(&first), 200, "{first}");
        assert_eq!(say(stream, b"hello").await, "hello");
    });
}

#[test]
fn hints_before_an_answer_do_not_take_its_place() {
    run(async {
        let world = World::new(Plan::default());
        let listener = world.app_listener(1);
        tokio::spawn(async move {
            let (mut program, _) = listener.accept().await.unwrap();
            head(&mut program).await;
            program
                .write_all(
                    b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
                      HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone",
                )
                .await
                .unwrap();
        });
        let (status, heard) = get(world.caller().dial().await, "/").await;
        assert_eq!(status, 200, "{heard}");
        assert!(
            heard.ends_with("done") && !heard.contains("link"),
            "{heard}"
        );
    });
}

#[test]
fn http2_with_trailers_passes_whole() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Grpc,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let (mut sender, connection) = http2::handshake(
            TokioExecutor::new(),
            TokioIo::new(world.caller().dial().await),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://orders/trailers")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"question")))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let whole = answer.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(whole.to_bytes(), "hello");
        let told = world.caller().told.calls(1).await;
        assert_eq!(told[0], (Side::Source, 200, None, 1));
    });
}

#[test]
fn a_body_may_end_with_a_frame_that_holds_nothing() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Grpc,
            ..Plan::default()
        });
        App::start("one", world.app_listener(1));
        let stream = world.caller().dial().await;
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://orders/collect").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        // Both come with the same read, and the end is known before the data are taken.
        body.send_data("question".into(), false).unwrap();
        body.send_data(Bytes::new(), true).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        let said = answer.data().await.unwrap().unwrap();
        assert_eq!(said, "question");
    });
}

#[test]
fn nobody_speaks_for_the_mesh_after_the_body_either() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                protocol: Protocol::Grpc,
                hosts,
                ..Plan::default()
            });
            App::start("one", world.app_listener(usize::from(hosts) - 1));
            let (mut sender, connection) = http2::handshake(
                TokioExecutor::new(),
                TokioIo::new(world.caller().dial().await),
            )
            .await
            .unwrap();
            tokio::spawn(connection);
            let mut trailers = HeaderMap::new();
            trailers.insert("mesh-caller", HeaderValue::from_static("spiffe://x/y"));
            trailers.insert("x-own", HeaderValue::from_static("1"));
            let frames = [
                Frame::data(Bytes::from_static(b"question")),
                Frame::trailers(trailers),
            ];
            let body = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
            let request = Request::post("http://orders/trailers-back").body(StreamBody::new(body));
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            let whole = answer.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap().get("mesh-reason"), None);
            assert_eq!(whole.trailers().unwrap()["x-own"], "2");
            let seen = String::from_utf8(whole.to_bytes().to_vec()).unwrap();
            assert_eq!(seen, "{\"x-own\": \"1\"}");
        });
    }
}

#[test]
fn an_upgraded_connection_carries_what_it_likes() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..Plan::default()
            });
            App::start("one", world.app_listener(usize::from(hosts) - 1));
            let mut stream = world.caller().dial().await;
            let words = b"GET /upgrade HTTP/1.1\r\nhost: orders\r\nconnection: Upgrade\r\n\
                          upgrade: websocket\r\n\r\n";
            stream.write_all(words).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert_eq!(status(&head), 101, "{head}");
            assert!(
                head.contains("x-accepted: yes") && head.contains("upgrade: websocket"),
                "{head}"
            );
            for word in ["one", "another"] {
                stream.write_all(word.as_bytes()).await.unwrap();
                let mut echoed = vec![0; word.len()];
                stream.read_exact(&mut echoed).await.unwrap();
                assert_eq!(echoed, word.as_bytes());
            }
        });
    }
}

#[test]
fn an_upgrade_that_is_refused_is_answered_as_any_request() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let words = "GET / HTTP/1.1\r\nhost: orders\r\nconnection: Upgrade, close\r\n\
                     upgrade: websocket\r\n\r\n";
        let heard = say(world.caller().dial().await, words.as_bytes()).await;
        assert_eq!(status(&heard), 200, "{heard}");
        assert!(heard.ends_with("one"), "{heard}");
    });
}

#[test]
fn what_is_no_websocket_is_asked_for_as_any_request() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..Plan::default()
            });
            App::start("one", world.app_listener(usize::from(hosts) - 1));
            for asked in [
                "connection: upgrade, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
                "connection: upgrade, close\r\nupgrade: websocket, h2c\r\n",
                "connection: upgrade, close\r\nupgrade: websocket\r\nupgrade: h2c\r\n",
                // Who does not say so of its connection asks for nothing, whatever else it waits for.
                "connection: close\r\nupgrade: websocket\r\n\
                 expect: 100-continue\r\ncontent-length: 5\r\n",
            ] {
                let words = format!("POST /headers HTTP/1.1\r\nhost: orders\r\n{asked}\r\n");
                let heard = say(world.caller().dial().await, words.as_bytes()).await;
                assert_eq!(status(&heard), 200, "{asked}: {heard}");
                for gone in ["upgrade", "http2-settings"] {
                    assert!(!heard.contains(gone), "{gone} in {heard}");
                }
            }
        });
    }
}

#[test]
fn a_program_that_changes_to_what_nobody_asked_for_is_not_believed() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(Plan {
                hosts,
                ..Plan::default()
            });
            let listener = world.app_listener(usize::from(hosts) - 1);
            tokio::spawn(async move {
                while let Ok((mut program, _)) = listener.accept().await {
                    head(&mut program).await;
                    let answer = b"HTTP/1.1 101 Switching Protocols\r\n\
                        connection: upgrade\r\nupgrade: h2c\r\n\r\n";
                    program.write_all(answer).await.unwrap();
                }
            });
            for asked in ["", "connection: upgrade\r\nupgrade: websocket\r\n"] {
                let words = format!("POST / HTTP/1.1\r\nhost: orders\r\n{asked}\r\n");
                let mut caller = world.caller().dial().await;
                caller.write_all(words.as_bytes()).await.unwrap();
                let heard = head(&mut caller).await;
                assert!(heard.contains("mesh-reason: broken"), "{asked}: {heard}");
            }
        });
    }
}

#[test]
fn who_is_kept_by_a_cookie_stays_where_it_is() {
    run(async {
        let settings = TrafficSettings {
            sticky: Some(Sticky::Cookie("user".into())),
            ..TrafficSettings::default()
        };
        let world = World::new(Plan {
            hosts: 3,
            settings,
            ..Plan::default()
        });
        let apps = [
            App::start("one", world.app_listener(1)),
            App::start("two", world.app_listener(2)),
        ];
        let words = "GET / HTTP/1.1\r\nhost: orders\r\ncookie: a=b; user=7\r\n\
                     connection: close\r\n\r\n";
        for _ in 0..8 {
            let heard = say(world.caller().dial().await, words.as_bytes()).await;
            assert_eq!(status(&heard), 200, "{heard}");
        }
        let mut requests = apps.each_ref().map(|app| app.requests());
        requests.sort_unstable();
        assert_eq!(requests, [0, 8]);
    });
}

#[test]
fn a_thousand_requests_at_once_are_all_answered() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Auto,
            ..Plan::default()
        });
        let app = App::start("one", world.app_listener(1));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let stream = world.caller().dial().await;
            calls.spawn(async move { get(stream, "/").await.0 });
        }
        while let Some(status) = calls.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
        assert_eq!(app.requests(), 1000);
    });
}

#[test]
fn a_program_of_http_1_0_needs_no_host() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let heard = say(
            world.caller().dial().await,
            b"GET /headers HTTP/1.0\r\n\r\n",
        )
        .await;
        assert_eq!(status(&heard), 200, "{heard}");
        assert!(heard.contains("\"host\": \"orders\""), "{heard}");
    });
}
