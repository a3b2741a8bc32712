//! Callers that say no more: some of them still listen, and others are gone.

use std::sync::Arc;

use proxy::{Reason, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::apps::{App, say, status};
use crate::run;
use crate::world::{Plan, World};

/// The service on another host, or on the caller's own, and where its program is.
fn world(hosts: u8) -> (World, usize) {
    let world = World::new(Plan {
        hosts,
        ..Plan::default()
    });
    (world, usize::from(hosts) - 1)
}

const NEVER: &[u8] = b"GET /never HTTP/1.1\r\nhost: orders\r\n\r\n";

/// A program that takes one request and says when its caller has hung up.
struct Deaf {
    asked: Arc<Notify>,
    hung_up: Arc<Notify>,
}

impl Deaf {
    fn start(listener: tokio::net::TcpListener) -> Self {
        let deaf = Self {
            asked: Arc::default(),
            hung_up: Arc::default(),
        };
        let (asked, hung_up) = (Arc::clone(&deaf.asked), Arc::clone(&deaf.hung_up));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asked.notify_one();
            let _ = stream.read(&mut [0; 1]).await;
            hung_up.notify_one();
        });
        deaf
    }
}

#[test]
fn who_ends_its_half_gets_its_answers_and_then_the_end() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(hosts);
            let app = App::start("one", world.app_listener(place));
            let mut stream = world.caller().dial().await;
            let words = "POST /echo HTTP/1.1\r\nhost: orders\r\ncontent-length: 5\r\n\r\nhello\
                         GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
            stream.write_all(words.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // It keeps the connection of HTTP/1.1 open and waits for the end.
            let heard = say(stream, b"").await;
            assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 2, "{heard}");
            assert!(heard.contains("hello") && heard.ends_with("one"), "{heard}");
            assert_eq!(app.requests(), 2);
            let told = world.caller().told.calls(2).await;
            assert!(told.iter().all(|call| call.2.is_none()), "{told:?}");
        });
    }
}

#[test]
fn who_ends_its_half_is_waited_for_as_others_are() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(hosts);
            let listener = world.app_listener(place);
            let mut caller = world.caller().dial().await;
            let words = b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
            caller.write_all(words).await.unwrap();
            caller.shutdown().await.unwrap();
            let (mut program, _) = listener.accept().await.unwrap();
            assert_ne!(program.read(&mut [0; 4096]).await.unwrap(), 0);
            world.caller().machine.looked(2).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate";
            program.write_all(answer).await.unwrap();
            let heard = say(caller, b"").await;
            assert_eq!(status(&heard), 200, "{heard}");
            assert!(heard.ends_with("late"), "{heard}");
        });
    }
}

#[test]
fn who_closes_its_connection_is_not_answered_any_more() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(hosts);
            let program = Deaf::start(world.app_listener(place));
            let mut caller = world.caller().dial().await;
            caller.write_all(NEVER).await.unwrap();
            program.asked.notified().await;
            world.caller().machine.leaves();
            drop(caller);
            program.hung_up.notified().await;
            let told = world.caller().told.calls(1).await;
            assert_eq!(told[0], (Side::Source, 0, None, 1));
        });
    }
}

#[test]
fn who_ends_its_half_and_closes_the_other_later_is_noticed() {
    run(async {
        let (world, place) = world(2);
        let program = Deaf::start(world.app_listener(place));
        let mut caller = world.caller().dial().await;
        caller.write_all(NEVER).await.unwrap();
        caller.shutdown().await.unwrap();
        program.asked.notified().await;
        // Nothing comes of it: it said its last word before.
        world.caller().machine.leaves();
        drop(caller);
        program.hung_up.notified().await;
    });
}

#[test]
fn who_leaves_more_unread_behind_it_is_noticed_as_well() {
    run(async {
        let (world, place) = world(2);
        let program = Deaf::start(world.app_listener(place));
        let mut caller = world.caller().dial().await;
        caller.write_all(NEVER).await.unwrap();
        program.asked.notified().await;
        caller.write_all(NEVER).await.unwrap();
        world.caller().machine.leaves();
        drop(caller);
        program.hung_up.notified().await;
    });
}

#[test]
fn who_ends_its_body_too_early_is_told_so_and_no_endpoint_is_blamed() {
    for hosts in [1, 2] {
        run(async {
            let (world, place) = world(hosts);
            App::start("one", world.app_listener(place));
            // More than an endpoint may fail.
            for _ in 0..12 {
                for rest in ["", "expect: 100-continue\r\n"] {
                    let words = format!(
                        "PUT /collect HTTP/1.1\r\nhost: orders\r\n{rest}content-length: 9\r\n\r\nhi"
                    );
                    let heard = half(world.caller().dial().await, &words).await;
                    let answer = heard.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
                    assert_eq!(status(answer), 400, "{heard}");
                    assert!(answer.contains("mesh-reason: bad-request"), "{heard}");
                }
            }
            let told = world.caller().told.calls(24).await;
            let expected = (Side::Source, 400, Some(Reason::BadRequest), 1);
            assert!(told.iter().all(|call| *call == expected), "{told:?}");
            let words = "GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
            let heard = half(world.caller().dial().await, words).await;
            assert_eq!(status(&heard), 200, "{heard}");
        });
    }
}

/// Says it and nothing more, and returns what is answered.
async fn half(mut stream: TcpStream, words: &str) -> String {
    stream.write_all(words.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    say(stream, b"").await
}
