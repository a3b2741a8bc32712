//! A caller and a called host that know each other, the way between them over TCP or QUIC, and what the
//! called host answers.

use std::future::pending;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use policy::Gate;
use proxy::{
    Acceptor, Arrival, DatagramPort, Datagrams, Handler, ProxyBody, SessionError, Sessions,
    Snapshot, Snapshots, StreamBody, Transport,
};
use quinn::{Runtime, TokioRuntime};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::fleet::{Fleet, Member};

/// More than anything here takes, and less than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(40);

/// Answers by the path that is asked for.
pub(crate) struct Echo;

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
pub(crate) struct Called {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) ways: Ways,
    pub(crate) stop: watch::Sender<bool>,
}

/// Where a host may be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    pub(crate) streams: Vec<SocketAddr>,
    pub(crate) datagrams: Vec<SocketAddr>,
}

impl Ways {
    pub(crate) fn over(transport: Transport, at: SocketAddr) -> Self {
        Self::default().and(transport, at)
    }

    pub(crate) fn and(mut self, transport: Transport, at: SocketAddr) -> Self {
        match transport {
            Transport::Tcp => self.streams.push(at),
            Transport::Quic => self.datagrams.push(at),
        }
        self
    }
}

pub(crate) fn snapshot(fleet: &Fleet, me: &Member, others: &[(&Member, Ways)]) -> Snapshot {
    let hosts = others.iter().map(|(member, ways)| {
        let mut entry = fleet.entry(member, ways.streams.clone());
        entry.datagrams.clone_from(&ways.datagrams);
        entry
    });
    Snapshot {
        catalogue: Arc::new(fleet.catalogue(me, hosts.collect())),
        gate: Arc::new(Gate::default()),
        identity: Some(fleet.identity(me)),
    }
}

/// One thread's QUIC on a socket of its own, and where that is.
pub(crate) fn datagrams() -> (Rc<Datagrams>, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
    let port = DatagramPort {
        socket,
        is_second: false,
    };
    (Datagrams::new(port, 0, 1), address)
}

pub(crate) async fn called(first: Snapshot, over: Transport) -> Called {
    let snapshots = Snapshots::new(first);
    let (stop, stopped) = watch::channel(false);
    let acceptor = Acceptor::new(Arc::clone(&snapshots), Rc::new(Echo), stopped);
    let address = match over {
        Transport::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(acceptor.serve(listener));
            address
        }
        Transport::Quic => {
            let (datagrams, address) = datagrams();
            spawn_local(acceptor.serve_datagrams(datagrams));
            address
        }
    };
    Called {
        snapshots,
        ways: Ways::over(over, address),
        stop,
    }
}

pub(crate) fn sessions(snapshots: &Arc<Snapshots>) -> Rc<Sessions> {
    let make_socket = Rc::new(|address: SocketAddr| {
        if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
    });
    let (datagrams, _) = datagrams();
    Sessions::with(Arc::clone(snapshots), make_socket, Some(datagrams))
}

/// Where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub(crate) fn get(path: &str) -> Request<ProxyBody> {
    Request::get(format!("http://orders{path}"))
        .body(ProxyBody::Empty)
        .unwrap()
}

pub(crate) fn echo(byte: u8, length: usize) -> Request<ProxyBody> {
    Request::post("http://orders/echo")
        .body(ProxyBody::Full(Bytes::from(vec![byte; length])))
        .unwrap()
}

/// A caller and a called host that know each other, and the way between them.
pub(crate) struct Pair {
    pub(crate) fleet: Fleet,
    pub(crate) caller: Member,
    pub(crate) target: Member,
    pub(crate) called: Called,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sessions: Rc<Sessions>,
}

impl Pair {
    pub(crate) async fn new(over: Transport) -> Self {
        let fleet = Fleet::new(1);
        let (caller, target) = (fleet.member(1), fleet.member(2));
        let knows = snapshot(&fleet, &target, &[(&caller, Ways::default())]);
        let called = called(knows, over).await;
        let known = snapshot(&fleet, &caller, &[(&target, called.ways.clone())]);
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

    pub(crate) async fn call(&self, path: &str) -> Result<Response<StreamBody>, SessionError> {
        self.sessions.request(self.target.host, get(path)).await
    }

    pub(crate) async fn echo(&self, byte: u8, length: usize) -> Response<StreamBody> {
        let answer = self.sessions.request(self.target.host, echo(byte, length));
        answer.await.unwrap()
    }

    /// Tells the caller that the called host may be reached in these ways.
    pub(crate) fn lead(&self, ways: Ways) {
        let known = snapshot(&self.fleet, &self.caller, &[(&self.target, ways)]);
        self.snapshots.replace(known);
    }
}

/// Runs the same over both transports.
pub(crate) fn over_both(test: impl AsyncFn(Transport)) {
    for over in [Transport::Tcp, Transport::Quic] {
        run(test(over));
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let within = async { timeout(PATIENCE, test).await.expect("it hangs") };
    LocalSet::new().block_on(&runtime, within);
}
