//! Connections to the programs of this host: made from the overlay address, kept while they are
//! idle, and used again.

mod http2_connections;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
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

use http2_connections::{Http2Connections, Place};

/// Why a program of this host gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// It takes no connection. It saw nothing of the request.
    #[error("no connection to port {0}: {1}")]
    Refused(u16, io::Error),
    /// Its connection broke, or it speaks something else.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
}

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
    /// Which of the addresses took the last connection.
    preferred: Cell<usize>,
    idle_max: usize,
}

struct Idle {
    sender: http1::SendRequest<ProxyBody>,
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
    sender: http1::SendRequest<ProxyBody>,
    port: Rc<Port>,
}

type Http1Connection = http1::Connection<TokioIo<TcpStream>, ProxyBody>;

/// How a program is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1, one request at a time on a connection.
    Http1,
    /// HTTP/2 without asking first.
    Http2,
}

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

    /// Sends a request to the program at `port`, and returns the head of its answer. `handed` is
    /// reached when there is a connection for it.
    ///
    /// # Errors
    /// It takes no connection, or breaks it.
    pub(crate) async fn request(
        &self,
        me: HostAddresses,
        port: AppPort,
        speech: Speech,
        request: Request<ProxyBody>,
        handed: &Milestone,
    ) -> Result<Response<AppBody>, AppError> {
        let port = self.port(port);
        match speech {
            Speech::Http1 => self.request_http1(me, port, request, handed).await,
            Speech::Http2 => self.request_http2(me, port, request, handed).await,
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
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(leased(answer, sender, port)),
                Err(mut error) => match error.take_message() {
                    // It was closed before anything was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        handed.forget();
        let mut sender = Box::pin(self.open(me, &port)).await?;
        handed.reach();
        let answer = sender.send_request(request).await?;
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
        request: Request<ProxyBody>,
        handed: &Milestone,
    ) -> Result<Response<AppBody>, AppError> {
        let port = self.port(port);
        let (mut sender, connection) = self.shake_hands(me, &port).await?;
        let driver = Driver::start(async move {
            let _ = connection.with_upgrades().await;
        });
        handed.reach();
        Ok(alone(sender.send_request(request).await?, driver))
    }

    async fn open(
        &self,
        me: HostAddresses,
        port: &Port,
    ) -> Result<http1::SendRequest<ProxyBody>, AppError> {
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
    ) -> Result<(http1::SendRequest<ProxyBody>, Http1Connection), AppError> {
        let stream = self.dial(me, port).await;
        let stream = stream.map_err(|error| AppError::Refused(port.at.number, error))?;
        let shaken = http1::Builder::new()
            .max_header_size(self.limits.head_bytes as usize)
            .max_buf_size(READ_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        Ok(shaken.await?)
    }

    async fn request_http2(
        &self,
        me: HostAddresses,
        port: Rc<Port>,
        request: Request<ProxyBody>,
        handed: &Milestone,
    ) -> Result<Response<AppBody>, AppError> {
        let place = port.http2.place(self.open_http2(me, &port)).await?;
        let mut sender = place.sender();
        handed.reach();
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|incoming| AppBody {
            incoming,
            lease: None,
            _place: Some(place),
            _driver: None,
        }))
    }

    async fn open_http2(
        &self,
        me: HostAddresses,
        port: &Port,
    ) -> Result<http2::SendRequest<ProxyBody>, AppError> {
        let stream = self.dial(me, port).await;
        let stream = stream.map_err(|error| AppError::Refused(port.at.number, error))?;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(self.limits.head_bytes)
            .keep_alive_interval(HTTP2_ALIVE_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await?;
        spawn_local(async move {
            let _ = connection.await;
        });
        Ok(sender)
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
        !self.sender.is_closed() && self.since.elapsed() < wait
    }
}

impl Port {
    fn take(&self, wait: Duration) -> Option<http1::SendRequest<ProxyBody>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if last.is_fresh(wait) && last.sender.is_ready() {
                return Some(last.sender);
            }
        }
        None
    }

    fn give_back(&self, sender: http1::SendRequest<ProxyBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max && !sender.is_closed() {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
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

fn leased(
    answer: Response<Incoming>,
    sender: http1::SendRequest<ProxyBody>,
    port: Rc<Port>,
) -> Response<AppBody> {
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
