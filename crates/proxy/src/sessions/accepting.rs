//! The other end: takes connections of hosts of the fleet, and hands their streams on.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use http_body::Body;
use model::ids::{Digest, HostId};
use runtime::tls;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::carried::length;
use super::identity::Identities;
use super::{manner, sending};
use crate::body::{ProxyBody, StreamBody};
use crate::snapshot::Snapshots;

/// Connections of one thread at one time; one more is closed at once.
const CONNECTIONS_MAX: usize = 16_384;
/// Handshakes of one thread at one time: strangers cannot hold more memory than these need.
const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that is over waits for the other end to close it, too.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How long nothing is accepted after the kernel was out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The host at the other end, as its handshake and its record prove.
    pub from: HostId,
}

/// Answers streams.
pub trait Handler: 'static {
    /// Answers one. It is cancelled when the other end gives the stream up.
    fn handle(
        self: Rc<Self>,
        arrival: Arrival,
        request: Request<StreamBody>,
    ) -> impl Future<Output = Response<ProxyBody>> + 'static;
}

/// What takes connections for one thread.
pub struct Acceptor<H> {
    snapshots: Arc<Snapshots>,
    identities: Identities,
    handshakes: Semaphore,
    handler: Rc<H>,
    stop: watch::Receiver<bool>,
}

impl<H: Handler> Acceptor<H> {
    /// Hands streams to `handler` until `stop` holds true.
    pub fn new(snapshots: Arc<Snapshots>, handler: Rc<H>, stop: watch::Receiver<bool>) -> Rc<Self> {
        Rc::new(Self {
            snapshots,
            identities: Identities::default(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            handler,
            stop,
        })
    }

    /// Takes connections until it is stopped, then lets the streams under way end: drop the future to
    /// cut them. Has to run in a `LocalSet`.
    pub async fn serve(self: Rc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok(_) if connections.len() >= CONNECTIONS_MAX => {}
                    Ok((stream, _)) => {
                        connections.spawn_local(Rc::clone(&self).connection(stream));
                    }
                    Err(error) => pause(&error).await,
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self: Rc<Self>, stream: TcpStream) {
        let shaken = {
            let Ok(_turn) = self.handshakes.try_acquire() else {
                return;
            };
            timeout(HANDSHAKE_TIMEOUT, self.shake(stream)).await
        };
        match shaken {
            Ok(Ok((stream, from, key))) => self.streams(stream, from, key).await,
            Ok(Err(why)) => tracing::debug!(why, "a connection for streams was not taken"),
            Err(_) => {}
        }
    }

    async fn shake(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, HostId, Digest), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        stream.set_nodelay(true).map_err(|error| text(&error))?;
        let identity = self.snapshots.current().identity.clone();
        let identity = identity.ok_or("this host has no certificate yet")?;
        let config = self.identities.server(&identity);
        let acceptor = TlsAcceptor::from(config.map_err(|error| text(&error))?);
        let stream = acceptor.accept(stream).await;
        let stream = stream.map_err(|error| text(&error))?;
        let facts = tls::shown_by(stream.get_ref().1, &identity.roots)
            .ok_or("it is no host of this fleet, or speaks another protocol")?;
        let from = self
            .host_with(&facts.tls_key_hash)
            .ok_or_else(|| format!("{} shows a key that no record here names", facts.spiffe))?;
        Ok((stream, from, facts.tls_key_hash))
    }

    /// Whatever a certificate says: a host is whom its record says the key belongs to.
    fn host_with(&self, key: &Digest) -> Option<HostId> {
        let snapshot = self.snapshots.current();
        let mut hosts = snapshot.catalogue.hosts.values();
        hosts
            .find(|host| host.tls_key_hash == *key)
            .map(|host| host.host)
    }

    fn is_still(&self, from: HostId, key: &Digest) -> bool {
        let snapshot = self.snapshots.current();
        let host = snapshot.catalogue.hosts.get(&from);
        host.is_some_and(|host| host.tls_key_hash == *key)
    }

    async fn streams(self: Rc<Self>, mut stream: TlsStream<TcpStream>, from: HostId, key: Digest) {
        let is_over = self.take_streams(&mut stream, from, key).await;
        if is_over {
            // What the other end still says would reset the connection, and with it what it has not
            // read yet.
            let _ = timeout(LINGER_MAX, read_to_end(stream)).await;
        }
    }

    /// Returns whether the connection came to its end by itself.
    async fn take_streams(
        self: &Rc<Self>,
        stream: &mut TlsStream<TcpStream>,
        from: HostId,
        key: Digest,
    ) -> bool {
        let shaking = manner::server().handshake::<_, Bytes>(stream);
        let Ok(Ok(mut connection)) = timeout(HANDSHAKE_TIMEOUT, shaking).await else {
            return false;
        };
        let pings = connection.ping_pong().expect("it is taken once");
        let mut silence = std::pin::pin!(manner::silence(pings));
        let (mut changes, mut stop) = (self.snapshots.watch(), self.stop.clone());
        let mut is_stopping = false;
        // Dropped with the connection, and the streams with it.
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        answers.spawn_local(Rc::clone(self).answer(Arrival { from }, request, respond));
                    }
                    Some(Err(_)) => return false,
                    None => return true,
                },
                Some(_) = answers.join_next(), if !answers.is_empty() => {}
                () = &mut silence => return false,
                _ = changes.changed() => if !self.is_still(from, &key) {
                    return false;
                },
                _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                    is_stopping = true;
                    connection.graceful_shutdown();
                }
            }
        }
    }

    async fn answer(
        self: Rc<Self>,
        arrival: Arrival,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let request = {
            let (head, stream) = request.into_parts();
            let body = StreamBody::new(stream, length(&head.headers), None);
            Request::from_parts(head, body)
        };
        let handler = Rc::clone(&self.handler);
        let answer = tokio::select! {
            biased;
            answer = handler.handle(arrival, request) => answer,
            // The caller has given up.
            _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return,
        };
        let (head, body) = answer.into_parts();
        let is_whole = body.is_end_stream();
        match respond.send_response(Response::from_parts(head, ()), is_whole) {
            Ok(to) if !is_whole => {
                let _ = sending::send(body, to).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                respond.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}

async fn read_to_end(mut stream: TlsStream<TcpStream>) {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection for streams");
    sleep(ACCEPT_PAUSE).await;
}
