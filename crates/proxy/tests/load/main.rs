//! Many calls at once and much at a time, and what memory that takes. One after the other, since all
//! that is measured is the whole process: callers, both proxies and the program that is called.

// Helpers of tests are tests to us, though not to the lint.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // not all of it is needed here
#[path = "../calls/apps.rs"]
mod apps;
#[path = "../fleet/mod.rs"]
mod fleet;
#[allow(dead_code)] // not all of it is needed here
#[path = "../calls/world.rs"]
mod world;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::rule::{LimitSettings, Protocol, TrafficSettings};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use apps::App;
use world::{Plan, World};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(test: impl Future<Output = ()>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let in_time = tokio::time::timeout(PATIENCE, test).await;
        in_time.expect("it hangs");
    });
}

/// Memory in use by this process, in kilobytes.
fn memory_kb(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most that was in use since it was last forgotten.
fn peak_kb() -> usize {
    memory_kb("VmHWM:")
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

const STREAMS: usize = 10_000;
const STREAMS_PER_CONNECTION: usize = 200;
/// For both ends of the caller's stream, of the one between the hosts and of the program's, with a
/// task or two at each, in a debug build.
const STREAM_KB_MAX: usize = 64;

#[test]
fn ten_thousand_streams_at_once_are_all_answered() {
    run(async {
        let settings = TrafficSettings {
            request_timeout: Some(PATIENCE),
            limits: LimitSettings {
                in_flight: Some(u32::try_from(STREAMS).unwrap()),
                ..LimitSettings::default()
            },
            ..TrafficSettings::default()
        };
        let world = World::new(Plan {
            protocol: Protocol::Grpc,
            settings,
            ..Plan::default()
        });
        let mut arrived = answers_when_all_are_there(world.app_listener(1));
        let before = memory_kb("VmRSS:");
        let mut calls = JoinSet::new();
        for _ in 0..STREAMS / STREAMS_PER_CONNECTION {
            let stream = TokioIo::new(world.caller().dial().await);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
            tokio::spawn(connection);
            for _ in 0..STREAMS_PER_CONNECTION {
                let mut sender = sender.clone();
                calls.spawn(async move {
                    let request = Request::get("http://orders/").body(Empty::<Bytes>::new());
                    let answer = sender.send_request(request.unwrap()).await.unwrap();
                    let status = answer.status();
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    (status.as_u16(), body)
                });
            }
        }
        arrived.wait_for(|all| *all).await.unwrap();
        let grown = memory_kb("VmRSS:").saturating_sub(before);
        while let Some(answer) = calls.join_next().await {
            assert_eq!(answer.unwrap(), (200, Bytes::from_static(b"all")));
        }
        assert!(
            grown / STREAMS < STREAM_KB_MAX,
            "{} KB a stream",
            grown / STREAMS
        );
    });
}

/// A program that answers nobody before everybody is there.
fn answers_when_all_are_there(listener: TcpListener) -> watch::Receiver<bool> {
    let (tell, arrived) = watch::channel(false);
    let (tell, count) = (Arc::new(tell), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tell, count) = (tell.clone(), count.clone());
            let service = service_fn(move |_: Request<Incoming>| {
                if count.fetch_add(1, Ordering::Relaxed) + 1 == STREAMS {
                    tell.send_replace(true);
                }
                let mut arrived = tell.subscribe();
                async move {
                    arrived.wait_for(|all| *all).await.unwrap();
                    let all = http_body_util::Full::new(Bytes::from_static(b"all"));
                    Ok::<_, Infallible>(Response::new(all))
                }
            });
            tokio::spawn(async move {
                let serving = auto::Builder::new(TokioExecutor::new());
                let _ = serving
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    arrived
}

const PIECE: &[u8] = &[7; 64 << 10];
const PIECES: usize = (100 << 20) / PIECE.len();
/// What is under way between five sockets and in two streams, and not what has passed.
const BODY_KB_MAX: usize = 24 << 10;

#[test]
fn a_hundred_megabytes_both_ways_take_no_more_memory_than_one() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let (mut sender, connection) = http1::handshake(TokioIo::new(world.caller().dial().await))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut measured_from = 0;
        for pieces in [16, PIECES] {
            let frames =
                (0..pieces).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(PIECE))));
            let body = StreamBody::new(futures_util::stream::iter(frames).boxed());
            let request = Request::post("/echo").header("host", "orders");
            let request = request.body(body).unwrap();
            forget_peak();
            measured_from = if measured_from == 0 {
                peak_kb()
            } else {
                measured_from
            };
            sender.ready().await.unwrap();
            let mut answer = sender.send_request(request).await.unwrap().into_body();
            let mut length = 0;
            while let Some(frame) = answer.frame().await {
                length += frame.unwrap().into_data().map_or(0, |data| data.len());
            }
            assert_eq!(length, pieces * PIECE.len());
        }
        let grown = peak_kb().saturating_sub(measured_from);
        assert!(grown < BODY_KB_MAX, "{grown} KB");
    });
}

#[test]
fn who_does_not_read_makes_nobody_keep_what_it_does_not_read() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        run(async {
            let world = World::new(Plan {
                protocol,
                limits: world::impatient(),
                ..Plan::default()
            });
            let listener = world.app_listener(1);
            tokio::spawn(async move {
                // Answers without an end, whoever asks for whatever.
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let head = b"HTTP/1.1 200 OK\r\n\r\n";
                        let mut is_open = stream.write_all(head).await.is_ok();
                        while is_open {
                            is_open = stream.write_all(PIECE).await.is_ok();
                        }
                    });
                }
            });
            let before = memory_kb("VmRSS:");
            let mut asking = Vec::new();
            for _ in 0..8 {
                let mut stream = world.caller().dial().await;
                let words = b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n";
                stream.write_all(words).await.unwrap();
                stream.readable().await.unwrap();
                asking.push(stream);
            }
            if protocol == Protocol::Http {
                // Until the proxy has lost its patience with all of them.
                world.caller().told.calls(8).await;
            }
            let grown = memory_kb("VmRSS:").saturating_sub(before);
            assert!(grown < (8 * 4) << 10, "{grown} KB");
        });
    }
}
