//! Two hosts on loopback: streams between them, with real TLS, and what happens when one of them is
//! not whom it should be, goes away, or answers nothing.

// Helpers of tests are tests to us, though not to the lint.
#![allow(clippy::unwrap_used)]

mod fleet;

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::{Fleet, Member};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use policy::Gate;
use proxy::{
    Acceptor, Arrival, Handler, ProxyBody, SessionError, Sessions, Snapshot, Snapshots, StreamBody,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// More than anything here takes, and less than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers by the path that is asked for.
struct Echo;

impl Handler for Echo {
    async fn handle(
        self: Rc<Self>,
        arrival: Arrival,
        request: Request<StreamBody>,
    ) -> Response<ProxyBody> {
        match request.uri().path() {
            "/who" => {
                let who = format!("{:?}", arrival.from);
                Response::new(ProxyBody::Full(Bytes::from(who)))
            }
            "/echo" => Response::new(ProxyBody::Stream(request.into_body())),
            "/never" => pending().await,
            _ => {
                let mut response = Response::new(ProxyBody::Empty);
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

/// The called host.
struct Called {
    snapshots: Arc<Snapshots>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

fn snapshot(fleet: &Fleet, me: &Member, others: &[(&Member, Vec<SocketAddr>)]) -> Snapshot {
    let hosts = others
        .iter()
        .map(|(member, streams)| fleet.entry(member, streams.clone()));
    Snapshot {
        catalogue: Arc::new(fleet.catalogue(me, hosts.collect())),
        gate: Arc::new(Gate::default()),
        identity: Some(fleet.identity(me)),
    }
}

async fn called(first: Snapshot) -> Called {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let snapshots = Snapshots::new(first);
    let (stop, stopped) = watch::channel(false);
    let acceptor = Acceptor::new(Arc::clone(&snapshots), Rc::new(Echo), stopped);
    spawn_local(acceptor.serve(listener));
    Called {
        snapshots,
        address,
        stop,
    }
}

fn sessions(snapshots: &Arc<Snapshots>) -> Rc<Sessions> {
    Sessions::new(
        Arc::clone(snapshots),
        Rc::new(|address: SocketAddr| {
            if address.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }
        }),
    )
}

fn get(path: &str) -> Request<ProxyBody> {
    Request::get(format!("http://orders{path}"))
        .body(ProxyBody::Empty)
        .unwrap()
}

/// A caller and a called host that know each other, and the way between them.
struct Pair {
    fleet: Fleet,
    caller: Member,
    target: Member,
    called: Called,
    snapshots: Arc<Snapshots>,
    sessions: Rc<Sessions>,
}

impl Pair {
    async fn new() -> Self {
        let fleet = Fleet::new(1);
        let (caller, target) = (fleet.member(1), fleet.member(2));
        let called = called(snapshot(&fleet, &target, &[(&caller, Vec::new())])).await;
        let known = snapshot(&fleet, &caller, &[(&target, vec![called.address])]);
        let snapshots = Snapshots::new(known);
        let sessions = sessions(&snapshots);
        Self {
            fleet,
            caller,
            target,
            called,
            snapshots,
            sessions,
        }
    }

    async fn call(&self, path: &str) -> Result<Response<StreamBody>, SessionError> {
        self.sessions.request(self.target.host, get(path)).await
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let within = async { timeout(PATIENCE, test).await.expect("it hangs") };
    LocalSet::new().block_on(&runtime, within);
}

#[test]
fn a_stream_arrives_with_the_identity_of_its_host() {
    run(async {
        let pair = Pair::new().await;
        let answer = pair.call("/who").await.unwrap();
        let who = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(who, format!("{:?}", pair.caller.host));
        assert_eq!(
            pair.call("/else").await.unwrap().status(),
            StatusCode::NOT_FOUND
        );
    });
}

#[test]
fn bodies_pass_both_ways_at_once_and_whole() {
    run(async {
        let pair = Pair::new().await;
        let through = pair.call("/who").await.unwrap().into_body();
        drop(through);
        // 24 MB, more than the windows hold: it moves only as it is read at the other end.
        let source = pair.sessions.request(
            pair.target.host,
            Request::post("http://orders/echo")
                .body(ProxyBody::Full(Bytes::from(vec![7; 24 << 20])))
                .unwrap(),
        );
        let echoed = source.await.unwrap().into_body().collect().await.unwrap();
        let echoed = echoed.to_bytes();
        assert_eq!(echoed.len(), 24 << 20);
        assert!(echoed.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn hundreds_of_streams_need_a_few_connections() {
    run(async {
        let pair = Pair::new().await;
        let mut answers = Vec::new();
        for _ in 0..250 {
            let (sessions, to) = (Rc::clone(&pair.sessions), pair.target.host);
            answers.push(spawn_local(async move {
                let request = Request::builder().method(Method::GET);
                let request = request.uri("http://orders/never");
                sessions
                    .request(to, request.body(ProxyBody::Empty).unwrap())
                    .await
                    .map(drop)
            }));
        }
        // Behind them all there is still room for another.
        for _ in 0..20 {
            assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
        }
        assert!(answers.iter().all(|answer| !answer.is_finished()));
        for answer in &answers {
            answer.abort();
        }
    });
}

#[test]
fn streams_that_nobody_reads_do_not_stop_the_others() {
    run(async {
        let pair = Pair::new().await;
        let mut unread = Vec::new();
        // Each holds as much as its window, both ways.
        for _ in 0..99 {
            let request = Request::post("http://orders/echo")
                .body(ProxyBody::Full(Bytes::from(vec![1; 4 << 20])))
                .unwrap();
            let answer = pair.sessions.request(pair.target.host, request).await;
            unread.push(answer.unwrap());
        }
        for _ in 0..20 {
            let answer = pair.call("/who").await.unwrap();
            let who = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(!who.is_empty());
        }
        drop(unread);
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_host_whose_key_is_not_the_records_is_not_believed() {
    run(async {
        let pair = Pair::new().await;
        // A member of the same fleet, with a good certificate, at the address of another.
        let mut other = pair.fleet.member(2);
        other.key = pair.fleet.member(9).key;
        pair.snapshots.replace(snapshot(
            &pair.fleet,
            &pair.caller,
            &[(&other, vec![pair.called.address])],
        ));
        let error = pair.call("/who").await.unwrap_err();
        assert!(matches!(error, SessionError::Untrusted(_)), "{error}");
    });
}

#[test]
fn a_caller_that_no_record_names_gets_nothing() {
    run(async {
        let pair = Pair::new().await;
        pair.called
            .snapshots
            .replace(snapshot(&pair.fleet, &pair.target, &[]));
        let error = pair.call("/who").await.unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::Connect(_) | SessionError::Refused(_) | SessionError::Broken(_)
            ),
            "{error}"
        );
    });
}

#[test]
fn another_fleets_host_is_not_let_in() {
    run(async {
        let pair = Pair::new().await;
        let stranger = Fleet::new(9);
        let me = stranger.member(1);
        let mut known = snapshot(&stranger, &me, &[]);
        known.catalogue = Arc::new(stranger.catalogue(
            &me,
            vec![pair.fleet.entry(&pair.target, vec![pair.called.address])],
        ));
        let sessions = sessions(&Snapshots::new(known));
        let error = sessions
            .request(pair.target.host, get("/who"))
            .await
            .unwrap_err();
        assert!(error.is_unsent(), "{error}");
    });
}

#[test]
fn a_host_that_is_removed_loses_its_open_streams() {
    run(async {
        let pair = Pair::new().await;
        let mut body = pair
            .sessions
            .request(
                pair.target.host,
                Request::post("http://orders/echo")
                    .body(ProxyBody::Full(Bytes::from(vec![1; 16 << 20])))
                    .unwrap(),
            )
            .await
            .unwrap()
            .into_body();
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        pair.called
            .snapshots
            .replace(snapshot(&pair.fleet, &pair.target, &[]));
        let mut ended = Ok(());
        while let Some(frame) = body.frame().await {
            ended = frame.map(drop);
        }
        assert!(ended.is_err(), "the body came to its end");
    });
}

#[test]
fn the_caller_too_drops_whom_it_does_not_know_any_more() {
    run(async {
        let pair = Pair::new().await;
        let waiting = {
            let (sessions, to) = (Rc::clone(&pair.sessions), pair.target.host);
            spawn_local(async move { sessions.request(to, get("/never")).await.map(drop) })
        };
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
        pair.snapshots
            .replace(snapshot(&pair.fleet, &pair.caller, &[]));
        pair.sessions.review();
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, SessionError::Broken(_)), "{error}");
        let error = pair.call("/who").await.unwrap_err();
        assert_eq!(error, SessionError::NoAddress);
    });
}

#[test]
fn the_next_address_is_tried_when_one_does_not_answer() {
    run(async {
        let pair = Pair::new().await;
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let addresses = vec![nobody, pair.called.address];
        pair.snapshots.replace(snapshot(
            &pair.fleet,
            &pair.caller,
            &[(&pair.target, addresses)],
        ));
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn who_cannot_be_reached_is_told_of_at_once_for_a_while() {
    run(async {
        let pair = Pair::new().await;
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        pair.snapshots.replace(snapshot(
            &pair.fleet,
            &pair.caller,
            &[(&pair.target, vec![nobody])],
        ));
        let first = pair.call("/who").await.unwrap_err();
        assert!(matches!(first, SessionError::Connect(_)), "{first}");
        assert_eq!(pair.call("/who").await.unwrap_err(), first);
        assert!(first.to_string().contains("vm-2"), "{first}");
    });
}

#[test]
fn streams_under_way_end_before_a_stop() {
    run(async {
        let pair = Pair::new().await;
        let mut answer = pair
            .sessions
            .request(
                pair.target.host,
                Request::post("http://orders/echo")
                    .body(ProxyBody::Full(Bytes::from(vec![3; 8 << 20])))
                    .unwrap(),
            )
            .await
            .unwrap()
            .into_body();
        let first = answer.frame().await.unwrap().unwrap();
        let first = first.into_data().unwrap().len();
        pair.called.stop.send_replace(true);
        let rest = answer.collect().await.unwrap().to_bytes().len();
        assert_eq!(first + rest, 8 << 20);
    });
}
