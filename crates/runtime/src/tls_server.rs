//! The TLS port of a program: accepts connections, shakes hands, serves HTTP/2 and HTTP/1.1.
//! Nobody is waited for: who is slow to shake hands, to ask or to read loses only its own
//! connection, and who is not let in as a member has fewer places than those who are.

mod census;
mod connection;
mod disbelief;
mod keys;
mod prefix;
mod strangers;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

pub use census::Census;
pub use connection::Connection;

use crate::tls::{self, ClientRoots};
use connection::{Stay, Turn};
pub use disbelief::Disbelief;
pub use keys::{Keys, OfKey};
pub use strangers::{Place, Strangers};

/// Connections at one time; one more is closed at once.
const CONNECTIONS_MAX: usize = 131_072;
/// Connections that show certificates of one key, let in or not. A host needs one; another is there
/// while it has not noticed yet that an earlier one is dead.
const CONNECTIONS_PER_KEY_MAX: usize = 4;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of an HTTP/1.1 request may take, also of the next one on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle HTTP/2 connection is asked whether it is alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the headers of a request.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// Requests at one time on an HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
/// Bytes that a client may send ahead on a stream: reports of a host are small, and what strangers may
/// make the server keep is bounded.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// How long connections may take to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How long nothing is accepted after the kernel was out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port, and what it shows.
pub struct TlsServer {
    listener: TcpListener,
    address: SocketAddr,
    census: Arc<Census>,
    disbelief: Disbelief,
}

impl TlsServer {
    /// Binds the port; connections wait until `serve`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            census: Arc::default(),
            disbelief: Disbelief::default(),
        })
    }

    /// Returns where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what counts the clients that do not believe what is shown here.
    pub fn disbelief(&self) -> Disbelief {
        self.disbelief.clone()
    }

    /// Returns who is at the port.
    pub fn census(&self) -> Arc<Census> {
        Arc::clone(&self.census)
    }

    /// Answers requests by `router` until `stop`, then lets those under way end, for a few seconds.
    /// `config` is that of `tls::server` with the same `roots`.
    pub async fn serve(
        self,
        config: Arc<ServerConfig>,
        roots: Arc<ClientRoots>,
        router: Router,
        stop: impl Future<Output = ()>,
    ) {
        let (stopping, stopped) = watch::channel(());
        let door = Door {
            acceptor: TlsAcceptor::from(config),
            roots,
            router,
            strangers: self.census.strangers.clone(),
            keys: Keys::new(CONNECTIONS_PER_KEY_MAX),
            census: Arc::clone(&self.census),
            disbelief: self.disbelief,
            stopped,
        };
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, remote)) => door.let_in(stream, remote, &mut connections),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "serving a connection failed");
                    }
                }
            }
            self.census.set_connections(connections.len());
        }
        drop(self.listener);
        drop(stopping);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, all_ended).await.is_err() {
            tracing::debug!(
                connections = connections.len(),
                "closing what did not end by itself"
            );
        }
        connections.shutdown().await;
    }
}

/// What every connection passes.
struct Door {
    acceptor: TlsAcceptor,
    census: Arc<Census>,
    roots: Arc<ClientRoots>,
    router: Router,
    strangers: Strangers,
    keys: Keys,
    disbelief: Disbelief,
    stopped: watch::Receiver<()>,
}

impl Door {
    fn let_in(&self, stream: TcpStream, remote: SocketAddr, connections: &mut JoinSet<()>) {
        if connections.len() >= CONNECTIONS_MAX {
            self.census.add_without_place();
            tracing::debug!(%remote, "closed: there are {CONNECTIONS_MAX} connections");
            return;
        }
        let Some(place) = self.strangers.take(remote.ip()) else {
            self.census.add_without_place();
            tracing::debug!(%remote, "closed: too many connections are no member's");
            return;
        };
        let visit = Visit {
            acceptor: self.acceptor.clone(),
            census: Arc::clone(&self.census),
            roots: Arc::clone(&self.roots),
            router: self.router.clone(),
            keys: self.keys.clone(),
            disbelief: self.disbelief.clone(),
            stopped: self.stopped.clone(),
            remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
        };
        connections.spawn(visit.run(stream, place));
    }
}

/// One connection.
struct Visit {
    acceptor: TlsAcceptor,
    census: Arc<Census>,
    roots: Arc<ClientRoots>,
    router: Router,
    keys: Keys,
    disbelief: Disbelief,
    stopped: watch::Receiver<()>,
    remote: SocketAddr,
}

impl Visit {
    async fn run(self, stream: TcpStream, place: Place) {
        let remote = self.remote;
        let stream = match self.shake_hands(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                self.census.add_without_handshake();
                tracing::debug!(%remote, %error, "no TLS handshake");
                self.disbelief.note(&error, remote);
                return;
            }
        };
        let certificate = tls::client_facts(stream.get_ref().1, &self.roots);
        let mut of_key = None;
        if let Some(facts) = &certificate {
            of_key = self.keys.show(facts.tls_key_hash);
            if of_key.is_none() {
                tracing::debug!(%remote, "closed: too many connections show this certificate");
                return;
            }
        }
        let (connection, stay) = Connection::new(remote, certificate, place);
        self.serve(stream, connection, stay).await;
        drop(of_key);
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn serve(mut self, stream: TlsStream<TcpStream>, seen: Connection, mut stay: Stay) {
        let service = self
            .router
            .map_request(move |mut request: hyper::Request<_>| {
                request.extensions_mut().insert(seen.clone());
                request
            });
        let builder = builder(stream.get_ref().1.alpn_protocol() == Some(b"h2"));
        let served =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut served = pin!(served);
        let mut is_stopping = false;
        loop {
            tokio::select! {
                outcome = served.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(remote = %self.remote, %error, "a connection ended early");
                    }
                    return;
                }
                turn = stay.next() => match turn {
                    Turn::End => served.as_mut().graceful_shutdown(),
                    Turn::Close => {
                        tracing::debug!(remote = %self.remote, "closed: it stayed too long");
                        return;
                    }
                },
                _ = self.stopped.changed(), if !is_stopping => {
                    is_stopping = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// The protocol is what TLS agreed on, so that nobody can be slow in telling.
fn builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ALIVE_INTERVAL)
        .keep_alive_timeout(ALIVE_TIMEOUT)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}
