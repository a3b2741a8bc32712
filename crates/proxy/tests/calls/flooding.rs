//! Connections of HTTP/2 that do what they should not: of programs, and of hosts of the fleet that
//! somebody else has taken over.

use http::Request;
use model::rule::Protocol;
use proxy::{Reason, Side};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::apps::App;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PUSH_PROMISE, RST_STREAM, Reaction,
    SETTINGS, WINDOW_UPDATE, field, fields, frame, opening, reaction,
};
use crate::run;
use crate::world::{ORDERS, Plan, World, impatient};

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

fn plan() -> Plan {
    Plan {
        protocol: Protocol::Grpc,
        ..Plan::default()
    }
}

/// Both ways in: from a program of the first host, and from the first host to the second.
async fn ways(world: &World) -> [Box<dyn Wire>; 2] {
    [
        Box::new(world.caller().dial().await),
        Box::new(world.session(0, 1).await),
    ]
}

/// Somebody else's call goes through, all the way.
async fn others_are_served(world: &World) {
    let stream = world.caller().dial().await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://orders/").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    connection.abort();
}

/// Frames that break a rule of the protocol, whoever sends them.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let head = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/"),
    ]);
    let unfinished = frame(HEADERS, END_STREAM, 1, &head);
    let after = |mut first: Vec<u8>, next: Vec<u8>| {
        first.extend(next);
        first
    };
    vec![
        ("data on no stream", frame(DATA, 0, 0, b"x")),
        ("data on a stream that is not", frame(DATA, 0, 1, b"x")),
        (
            "headers on no stream",
            frame(HEADERS, END_HEADERS, 0, &head),
        ),
        (
            "a stream of the server's",
            frame(HEADERS, END_HEADERS, 2, &head),
        ),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "a window beyond all bounds",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "a window of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        (
            "a frame that is too long",
            vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
        ),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        (
            "an acknowledgement of something",
            frame(SETTINGS, 1, 0, &[0; 6]),
        ),
        (
            "a window that none can be",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        (
            "a promise",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        ("a reset of nothing", frame(RST_STREAM, 0, 1, &[0; 4])),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &head),
        ),
        (
            "a ping between headers",
            after(unfinished.clone(), frame(PING, 0, 0, &[0; 8])),
        ),
        (
            "another's continuation",
            after(unfinished, frame(CONTINUATION, END_HEADERS, 3, &[])),
        ),
        (
            "headers that cannot be unpacked",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 8]),
        ),
        (
            "a table that is too large",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[0x3f, 0xff, 0xff, 0xff, 0x07],
            ),
        ),
        (
            "padding that is longer than its frame",
            frame(HEADERS, END_HEADERS | 8, 1, &[200, 0]),
        ),
    ]
}

#[test]
fn frames_that_break_the_protocol_end_their_connection() {
    run(async {
        let world = World::new(plan());
        let app = App::start("one", world.app_listener(1));
        for (what, frames) in broken_frames() {
            for (number, mut way) in ways(&world).await.into_iter().enumerate() {
                let words = [opening(), frames.clone()].concat();
                way.write_all(&words).await.unwrap();
                way.flush().await.unwrap();
                let reaction = reaction(&mut way).await;
                assert!(
                    matches!(reaction, Reaction::Ends | Reaction::Resets),
                    "{what}, way {number}: {reaction:?}"
                );
            }
        }
        assert_eq!(app.requests(), 0);
        // Its own programs' connections are counted by the host that ended them.
        let told = world.caller().told.calls(1).await;
        let refused = (Side::Source, 0, Some(Reason::BadRequest), 0);
        assert!(told.contains(&refused), "{told:?}");
        others_are_served(&world).await;
    });
}

#[test]
fn requests_of_http2_that_can_be_read_in_two_ways_are_refused() {
    let good = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/"),
    ];
    let with = |more: (&'static str, &'static str)| [&good[..], &[more]].concat();
    let without = |name: &str| {
        let others = good.iter().filter(|(it, _)| *it != name);
        others.copied().collect::<Vec<_>>()
    };
    let cases = [
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("two paths", with((":path", "/admin"))),
        ("an unknown pseudo header", with((":extra", "x"))),
        ("a status", with((":status", "200"))),
        ("a name in upper case", with(("X-Upper", "x"))),
        ("a name with a space", with(("x y", "x"))),
        ("a value with a line feed", with(("x", "a\nb: c"))),
        ("a value with a NUL", with(("x", "a\0b"))),
        ("a header of connections", with(("connection", "close"))),
        ("chunks", with(("transfer-encoding", "chunked"))),
        ("an upgrade", with(("upgrade", "websocket"))),
        ("another te", with(("te", "gzip"))),
        ("another host", with(("host", "other"))),
        ("a length that is not true", with(("content-length", "5"))),
        (
            "two lengths",
            [with(("content-length", "0")), vec![("content-length", "1")]].concat(),
        ),
        ("a length that is none", with(("content-length", "x"))),
        (
            "a pseudo header behind others",
            [&[("x", "y")][..], &good[..]].concat(),
        ),
        (
            "a tunnel",
            vec![(":method", "CONNECT"), (":authority", "orders")],
        ),
    ];
    run(async {
        let world = World::new(plan());
        let app = App::start("one", world.app_listener(1));
        for (what, head) in cases {
            let mut stream = world.caller().dial().await;
            let flags = END_HEADERS | END_STREAM;
            let words = [opening(), frame(HEADERS, flags, 1, &fields(&head))].concat();
            stream.write_all(&words).await.unwrap();
            let reaction = reaction(&mut stream).await;
            // 0x88 is `:status: 200`.
            let is_refused = !matches!(&reaction, Reaction::Answers(head) if head[0] == 0x88);
            assert!(is_refused, "{what}: {reaction:?}");
        }
        assert_eq!(app.requests(), 0);
        others_are_served(&world).await;
    });
}

#[test]
fn headers_without_an_end_end_their_connection() {
    run(async {
        let world = World::new(plan());
        let app = App::start("one", world.app_listener(1));
        let more = fields(&[("x-a", "b"); 100]);
        for more in [&more[..], &[]] {
            for mut way in ways(&world).await {
                let first = frame(HEADERS, END_STREAM, 1, &field(":method", "GET"));
                way.write_all(&[opening(), first].concat()).await.unwrap();
                let next = frame(CONTINUATION, 0, 1, more);
                // For as long as anybody takes it.
                while way.write_all(&next).await.is_ok() && way.flush().await.is_ok() {}
            }
        }
        assert_eq!(app.requests(), 0);
        others_are_served(&world).await;
    });
}

#[test]
fn headers_that_are_small_only_as_they_are_packed_are_refused() {
    run(async {
        let world = World::new(plan());
        let app = App::start("one", world.app_listener(1));
        for mut way in ways(&world).await {
            // One that is to be remembered, and thousands that say: the same.
            let mut head = fields(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "orders"),
                (":path", "/"),
            ]);
            let mut large = field("x-large", &"x".repeat(3800));
            large[0] = 0x40;
            head.extend(large);
            head.extend([0xbe; 12_000]);
            let flags = END_HEADERS | END_STREAM;
            let words = [opening(), frame(HEADERS, flags, 1, &head)].concat();
            way.write_all(&words).await.unwrap();
            way.flush().await.unwrap();
            let reaction = reaction(&mut way).await;
            let is_refused = !matches!(&reaction, Reaction::Answers(head) if head[0] == 0x88);
            assert!(is_refused, "{reaction:?}");
        }
        assert_eq!(app.requests(), 0);
        others_are_served(&world).await;
    });
}

#[test]
fn who_asks_and_does_not_read_is_cut_off() {
    for flood in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        run(async {
            let world = World::new(Plan {
                limits: impatient(),
                ..plan()
            });
            App::start("one", world.app_listener(1));
            let mut stream = world.caller().dial().await;
            stream.write_all(&opening()).await.unwrap();
            let flood = flood.repeat(1000);
            // Nothing of what it is answered is read.
            while stream.write_all(&flood).await.is_ok() {}
            others_are_served(&world).await;
        });
    }
}

#[test]
fn a_host_that_asks_and_does_not_read_holds_up_only_itself() {
    run(async {
        let world = World::new(plan());
        App::start("one", world.app_listener(1));
        let mut session = world.session(0, 1).await;
        let flooding = tokio::spawn(async move {
            session.write_all(&opening()).await.unwrap();
            let flood = frame(PING, 0, 0, &[7; 8]).repeat(1000);
            while session.write_all(&flood).await.is_ok() {}
        });
        for _ in 0..50 {
            others_are_served(&world).await;
        }
        flooding.abort();
    });
}

#[test]
fn a_host_that_resets_what_it_asks_for_holds_up_nobody() {
    run(LocalSet::new().run_until(async {
        let world = World::new(plan());
        App::start("one", world.app_listener(1));
        let session = world.session(0, 1).await;
        let (mut sender, connection) = h2::client::handshake(session).await.unwrap();
        let connection = tokio::task::spawn_local(connection);
        for _ in 0..5000 {
            let Ok(ready) = sender.clone().ready().await else {
                break;
            };
            sender = ready;
            let request = Request::get("http://orders/never")
                .header("mesh-service", ORDERS)
                .header("mesh-call", "00000000000000ff");
            let Ok((_, mut body)) = sender.send_request(request.body(()).unwrap(), false) else {
                break;
            };
            body.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
        connection.abort();
        others_are_served(&world).await;
    }));
}

#[test]
fn a_session_of_nobody_opens_no_stream() {
    run(async {
        let world = World::new(plan());
        let app = App::start("one", world.app_listener(1));
        // Not even TLS.
        let mut plain = TcpStream::connect(world.hosts[1].streams).await.unwrap();
        let head = fields(&[(":method", "GET"), (":path", "/")]);
        let words = [opening(), frame(HEADERS, END_HEADERS, 1, &head)].concat();
        plain.write_all(&words).await.unwrap();
        assert_eq!(reaction(&mut plain).await, Reaction::Ends);
        // A member of another fleet of the same name.
        let stranger = World::new(Plan { fleet: 2, ..plan() });
        let stranger = stranger.session_to(0, world.hosts[1].streams).await;
        if let Ok(mut stranger) = stranger {
            let _ = stranger.write_all(&words).await;
            assert_eq!(reaction(&mut stranger).await, Reaction::Ends);
        }
        assert_eq!(app.requests(), 0);
        others_are_served(&world).await;
    });
}
