//! Connections to the programs of this host: made from the overlay address, kept while they are
//! idle, and used again.

mod first_word;
mod http2_connections;
mod speech;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::address::HostAddresses;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::body::{BodyError, ProxyBody};
use crate::config::ProxyLimits;
use crate::runtimes::{Driver, LocalExecutor};
use crate::stages::Milestone;
use crate::surroundings::Surroundings;

use first_word::{FirstWord, Heard, ProgramSocket};
use http2_connections::{Http2Connections, Http2Sender, Place};
use speech::{Http1Alone, Lesson, put_in_http1, put_in_http2};
pub(crate) use speech::{Speech, announce_body};

/// Why a program of this host gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// It takes no connection. It saw nothing of the request.
    #[error("no connection to port {0}: {1}")]
    Refused(u16, io::Error),
    /// Its connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// It ended a connection of HTTP/2 before it said anything, or said nothing for as long as it was
    /// waited for. It saw nothing of the request.
    #[error("it said nothing on a connection of HTTP/2")]
    Silent,
    /// It speaks something else than it was spoken to in, and did nothing of what was asked.
    #[error("{0}")]
    Misunderstood(&'static str),
}

impl AppError {
    /// Returns whether the program is why: not where the caller broke off what it sent.
    fn is_of_program(&self) -> bool {
        let Self::Broken(error) = self else {
            return true;
        };
        let mut cause = error.source();
        while let Some(it) = cause {
            if it.is::<BodyError>() {
                return false;
            }
            cause = it.source();
        }
        true
    }
}

/// What is said of programs that do not speak as calls of theirs do.
const HTTP1_ALONE: &str = "it speaks HTTP/1.1 alone, and gRPC takes HTTP/2";
const HTTP2_ALONE: &str =
    "it speaks HTTP/2 alone, and callers of HTTP/1.1 reach it if its service has `protocol: grpc`";
const NO_HTTP: &str = "what it answers is no HTTP";

/// Where a program of this host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AppPort {
    /// Its TCP port.
    pub number: u16,
    /// The policy says that this host offers a service there. Only such a one may listen on loopback
    /// alone; elsewhere that means that nobody from outside is to reach it.
    pub is_service: bool,
}

/// The connections of one thread to programs of this host.
pub(crate) struct LocalApps {
    surroundings: Arc<dyn Surroundings>,
    limits: ProxyLimits,
    ports: RefCell<BTreeMap<AppPort, Rc<Port>>>,
    /// Where the proxy itself listens: who is led there comes back to it, without end.
    own: Arc<[u16]>,
}

/// One port of this host.
struct Port {
    at: AppPort,
    /// Most recently used last.
    idle: RefCell<Vec<Idle>>,
    http2: Http2Connections,
    http1_alone: Http1Alone,
    /// Which of the addresses took the last connection.
    preferred: Cell<usize>,
    idle_max: usize,
}

/// An HTTP/1.1 connection.
struct Http1Sender {
    requests: http1::SendRequest<ProxyBody>,
    heard: Heard,
}

struct Idle {
    sender: Http1Sender,
    since: Instant,
}

/// What a program of this host answers; its connection is used again when all of it was read.
pub struct AppBody {
    incoming: Incoming,
    lease: Option<Lease>,
    /// On a connection with others.
    _place: Option<Place>,
    /// Of a connection of its own.
    _driver: Option<Driver>,
}

struct Lease {
    sender: Http1Sender,
    port: Rc<Port>,
}

type Http1Connection = http1::Connection<TokioIo<ProgramSocket>, ProxyBody>;

impl LocalApps {
    /// Begins without connections.
    pub(crate) fn new(
        surroundings: Arc<dyn Surroundings>,
        limits: ProxyLimits,
        own: Arc<[u16]>,
    ) -> Self {
        Self {
            surroundings,
            limits,
            own,
            ports: RefCell::default(),
        }
    }

    /// Sends a request to the program at `at`, and returns the head of its answer. `handed` is
    /// reached when there is a connection for it.
    ///
    /// # Errors
    /// It takes no connection, or breaks it, or does not speak so.
    pub(crate) async fn request(
        &self,
        me: HostAddresses,
        at: AppPort,
        speech: Speech,
        mut request: Request<ProxyBody>,
        handed: &Milestone,
    ) -> Result<Response<AppBody>, AppError> {
        let port = self.port(at);
        if speech == Speech::Http1 {
            put_in_http1(&mut request);
            return self.request_http1(me, port, request, handed).await;
        }
        let no_http2 = match self.http2_place(me, &port, speech).await {
            Ok(place) => {
                put_in_http2(&mut request);
                return request_http2(place, request, handed).await;
            }
            Err(error @ (AppError::Misunderstood(_) | AppError::Silent)) => error,
            Err(error) => return Err(error),
        };
        if speech == Speech::Http2Alone {
            return Err(no_http2);
        }
        put_in_http1(&mut request);
        let answer = Box::pin(self.request_http1(me, Rc::clone(&port), request, handed)).await;
        match (&answer, &no_http2) {
            (Ok(_), AppError::Silent) => port.http1_alone.learn(Lesson::Silent, Instant::now()),
            (Err(error), _) if error.is_of_program() => port.http1_alone.forget(),
            _ => {}
        }
        match (answer, no_http2) {
            // It was late, and its caller is none of HTTP/1.1.
            (Err(AppError::Misunderstood(HTTP2_ALONE)), AppError::Silent) => Err(AppError::Silent),
            (answer, _) => answer,
        }
    }

    /// Makes a connection to the program at `port`.
    ///
    /// # Errors
    /// Nobody takes it at any of the addresses where a program of this host may listen.
    pub(crate) async fn connect(&self, me: HostAddresses, port: AppPort) -> io::Result<TcpStream> {
        let port = self.port(port);
        self.dial(me, &port).await
    }

    async fn request_http1(
        &self,
        me: HostAddresses,
        port: Rc<Port>,
        mut request: Request<ProxyBody>,
        handed: &Milestone,
    ) -> Result<Response<AppBody>, AppError> {
        while let Some(mut sender) = port.take(self.limits.idle_local_wait) {
            handed.reach();
            match sender.requests.try_send_request(request).await {
                Ok(answer) => return Ok(leased(answer, sender, port)),
                Err(mut error) => match error.take_message() {
                    // It was closed before anything was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(no_http1(&sender.heard, error.into_error())),
                },
            }
        }
        handed.forget();
        let mut sender = Box::pin(self.open(me, &port)).await?;
        handed.reach();
        let answer = sender.requests.send_request(request).await;
        let answer = answer.map_err(|error| no_http1(&sender.heard, error))?;
        Ok(leased(answer, sender, port))
    }

    /// Makes a connection for a request that may be upgraded; it is used for nothing else.
    ///
    /// # Errors
    /// As `request`.
    pub(crate) async fn request_alone(
        &self,
        me: HostAddresses,
        port: AppPort,
        mut request: Request<ProxyBody>,
        handed: &Milestone,
    ) -> Result<Response<AppBody>, AppError> {
        announce_body(&mut request);
        let port = self.port(port);
        let (mut sender, connection) = self.shake_hands(me, &port).await?;
        let driver = Driver::start(async move {
            let _ = connection.with_upgrades().await;
        });
        handed.reach();
        let answer = sender.requests.send_request(request).await;
        let answer = answer.map_err(|error| no_http1(&sender.heard, error))?;
        Ok(alone(answer, driver))
    }

    async fn open(&self, me: HostAddresses, port: &Port) -> Result<Http1Sender, AppError> {
        let (sender, connection) = self.shake_hands(me, port).await?;
        spawn_local(async move {
            // Whoever waits for an answer is told.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn shake_hands(
        &self,
        me: HostAddresses,
        port: &Port,
    ) -> Result<(Http1Sender, Http1Connection), AppError> {
        let socket = self.dial_listening(me, port).await?;
        let heard = socket.heard();
        let shaken = http1::Builder::new()
            .max_header_size(self.limits.head_bytes as usize)
            .max_buf_size(READ_BYTES_MAX)
            .handshake(TokioIo::new(socket));
        let (requests, connection) = shaken.await?;
        Ok((Http1Sender { requests, heard }, connection))
    }

    /// Returns a place on an HTTP/2 connection, unless the program is known to have none, or has said
    /// nothing by the time when a call that can do without is put in HTTP/1.1.
    async fn http2_place(
        &self,
        me: HostAddresses,
        port: &Port,
        speech: Speech,
    ) -> Result<Place, AppError> {
        let unless_known = || {
            let is_known = port.http1_alone.is_known(speech, Instant::now());
            (!is_known)
                .then_some(())
                .ok_or(AppError::Misunderstood(HTTP1_ALONE))
        };
        unless_known()?;
        let make = async {
            // Perhaps another call has learned it meanwhile.
            unless_known()?;
            self.open_http2(me, port).await
        };
        let place = port.http2.place(make);
        if speech == Speech::Http2Alone {
            return place.await;
        }
        // Around all of it, so that those who wait for one connection wait at the same time.
        timeout(self.limits.local_connect_wait, place)
            .await
            .unwrap_or(Err(AppError::Silent))
    }

    /// Makes an HTTP/2 connection, and waits for the program to show that it is one, for as long as the
    /// call waits: a request is sent to nobody who may read it as something else.
    async fn open_http2(&self, me: HostAddresses, port: &Port) -> Result<Http2Sender, AppError> {
        let socket = self.dial_listening(me, port).await?;
        let heard = socket.heard();
        let (requests, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(self.limits.head_bytes)
            .keep_alive_interval(HTTP2_ALIVE_INTERVAL)
            .handshake(TokioIo::new(socket))
            .await?;
        spawn_local(async move {
            let _ = connection.await;
        });
        match heard.first().await {
            FirstWord::Http2 => Ok(requests),
            FirstWord::Nothing => Err(AppError::Silent),
            FirstWord::Http1 => {
                port.http1_alone.learn(Lesson::Said, Instant::now());
                Err(AppError::Misunderstood(HTTP1_ALONE))
            }
            FirstWord::Other => Err(AppError::Misunderstood(NO_HTTP)),
        }
    }

    async fn dial_listening(
        &self,
        me: HostAddresses,
        port: &Port,
    ) -> Result<ProgramSocket, AppError> {
        let stream = self.dial(me, port).await;
        let stream = stream.map_err(|error| AppError::Refused(port.at.number, error))?;
        Ok(ProgramSocket::new(stream))
    }

    /// A program may listen on every address or on the overlay's; that of a service also on loopback
    /// alone, so that only the mesh reaches it. Where the last connection was taken, the next is tried
    /// first.
    async fn dial(&self, me: HostAddresses, port: &Port) -> io::Result<TcpStream> {
        if self.own.contains(&port.at.number) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let all: [IpAddr; 4] = [
            me.v4.into(),
            me.v6.into(),
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
        ];
        let addresses = if port.at.is_service {
            &all[..]
        } else {
            &all[..2]
        };
        let mut last = None;
        for offset in 0..addresses.len() {
            let place = (port.preferred.get() + offset) % addresses.len();
            let to = SocketAddr::new(addresses[place], port.at.number);
            match self.dial_address(to).await {
                Ok(stream) => {
                    port.preferred.set(place);
                    return Ok(stream);
                }
                // The refusal of an address where something could have listened says the most.
                Err(error) if offset == 0 || error.kind() == io::ErrorKind::TimedOut => {
                    last = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(last.expect("the first address failed"))
    }

    async fn dial_address(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.surroundings.dial_local(to)?;
        let connected = timeout(self.limits.local_connect_wait, socket.connect(to)).await;
        let stream = connected.unwrap_or_else(|_| {
            let text = format!("the program at {to} takes no connection");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn port(&self, at: AppPort) -> Rc<Port> {
        let mut ports = self.ports.borrow_mut();
        let port = ports.entry(at).or_insert_with(|| {
            Rc::new(Port {
                at,
                idle: RefCell::default(),
                http2: Http2Connections::default(),
                http1_alone: Http1Alone::default(),
                preferred: Cell::new(0),
                idle_max: self.limits.idle_local_connections,
            })
        });
        Rc::clone(port)
    }

    /// Closes connections that have been idle for long.
    pub(crate) fn sweep(&self) {
        for port in self.ports.borrow().values() {
            let wait = self.limits.idle_local_wait;
            port.idle.borrow_mut().retain(|idle| idle.is_fresh(wait));
            port.http2.sweep();
        }
    }
}

/// Bytes of an answer that are read at once.
const READ_BYTES_MAX: usize = 64 << 10;
/// Bytes that may be under way on a stream to a program; the sum for a connection is larger, since
/// equal values can deadlock (TRAFFIC.md, HTTP/2 between hosts).
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How often a program is asked whether it is there.
const HTTP2_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

impl Idle {
    fn is_fresh(&self, wait: Duration) -> bool {
        !self.sender.requests.is_closed() && self.since.elapsed() < wait
    }
}

impl Port {
    fn take(&self, wait: Duration) -> Option<Http1Sender> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if last.is_fresh(wait) && last.sender.requests.is_ready() {
                return Some(last.sender);
            }
        }
        None
    }

    fn give_back(&self, sender: Http1Sender) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max && !sender.requests.is_closed() {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

/// Says why a connection of HTTP/1.1 gave no answer.
fn no_http1(heard: &Heard, error: hyper::Error) -> AppError {
    match heard.now() {
        Some(FirstWord::Http2) => AppError::Misunderstood(HTTP2_ALONE),
        Some(FirstWord::Other) => AppError::Misunderstood(NO_HTTP),
        Some(FirstWord::Http1 | FirstWord::Nothing) | None => error.into(),
    }
}

async fn request_http2(
    place: Place,
    request: Request<ProxyBody>,
    handed: &Milestone,
) -> Result<Response<AppBody>, AppError> {
    handed.reach();
    let answer = place.sender().send_request(request).await?;
    Ok(answer.map(|incoming| AppBody {
        incoming,
        lease: None,
        _place: Some(place),
        _driver: None,
    }))
}

/// Ends the connection that an answer came on when the answer is over, unless it speaks something
/// else from now on. A request's body that nobody wanted may still wait there.
pub(crate) fn alone(answer: Response<Incoming>, driver: Driver) -> Response<AppBody> {
    let driver = if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        driver.let_go();
        None
    } else {
        Some(driver)
    };
    answer.map(|incoming| AppBody {
        incoming,
        lease: None,
        _place: None,
        _driver: driver,
    })
}

fn leased(answer: Response<Incoming>, sender: Http1Sender, port: Rc<Port>) -> Response<AppBody> {
    answer.map(|incoming| {
        let mut body = AppBody {
            incoming,
            lease: Some(Lease { sender, port }),
            _place: None,
            _driver: None,
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    })
}

impl AppBody {
    fn release(&mut self) {
        if let Some(Lease { sender, port }) = self.lease.take() {
            port.give_back(sender);
        }
    }
}

impl fmt::Debug for AppBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBody")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

impl Body for AppBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &frame {
            None => self.release(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.release(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
