//! The other end: takes connections of hosts of the fleet, and hands their streams on.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{PingPong, Reason, RecvStream};
use http::{Request, Response};
use http_body::Body;
use model::ids::{Digest, HostId};
use quinn::{Connection, Endpoint, Incoming};
use runtime::tls;
use runtime::tls_server::{Keys, Place, Strangers};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use trust::certificate::CertificateFacts;

use super::carried::length;
use super::datagrams::{self, Datagrams};
use super::identity::Identities;
use super::manner::CONNECTIONS_PER_HOST_MAX;
use super::{manner, sending};
use crate::accept_queue;
use crate::body::{ProxyBody, StreamBody};
use crate::gathering::Gathering;
use crate::snapshot::Snapshots;

/// Connections of one thread at one time; one more is closed at once.
const CONNECTIONS_MAX: usize = 16_384;
/// Connections that show the key of one host, of all its threads; a session of QUIC counts beside what it
/// carries.
const CONNECTIONS_PER_KEY_MAX: usize = 8 * CONNECTIONS_PER_HOST_MAX;
/// Handshakes of one thread at one time, over each transport: strangers cannot hold more memory than these
/// need. One machine has a sixteenth of them.
const HANDSHAKES_MAX: usize = 512;
/// Handshakes over QUIC with those who have not proven their address: all others have to do so first.
const UNPROVEN_MAX: usize = 64;
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
    over_tcp: Strangers,
    over_quic: Strangers,
    unproven: Strangers,
    keys: Keys,
    handler: Rc<H>,
    stop: watch::Receiver<bool>,
}

impl<H: Handler> Acceptor<H> {
    /// Hands streams to `handler` until `stop` holds true.
    pub fn new(snapshots: Arc<Snapshots>, handler: Rc<H>, stop: watch::Receiver<bool>) -> Rc<Self> {
        Rc::new(Self {
            snapshots,
            identities: Identities::default(),
            over_tcp: Strangers::new(HANDSHAKES_MAX),
            over_quic: Strangers::new(HANDSHAKES_MAX),
            unproven: Strangers::new(UNPROVEN_MAX),
            keys: Keys::new(CONNECTIONS_PER_KEY_MAX),
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
                    Ok((stream, remote)) => self.let_in(stream, remote, &mut connections),
                    Err(error) => pause(&error).await,
                },
            }
        }
        for (stream, remote) in accept_queue::waiting(listener) {
            self.let_in(stream, remote, &mut connections);
        }
        while connections.join_next().await.is_some() {}
    }

    fn let_in(
        self: &Rc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        connections: &mut JoinSet<()>,
    ) {
        if connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let Some(place) = self.over_tcp.take(remote.ip()) else {
            return tracing::debug!(%remote, "closed: too many handshakes are under way");
        };
        connections.spawn_local(Rc::clone(self).connection(stream, place));
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, place: Place) {
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.shake(stream)).await;
        drop(place);
        match shaken {
            Ok(Ok((stream, from, key))) => self.streams(stream, from, key).await,
            Ok(Err(why)) => tracing::debug!(why, "a connection for streams was not taken"),
            Err(_) => {}
        }
    }

    async fn shake(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<Gathering>, HostId, Digest), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        stream.set_nodelay(true).map_err(|error| text(&error))?;
        let identity = self.snapshots.current().identity.clone();
        let identity = identity.ok_or("this host has no certificate yet")?;
        let config = self.identities.server(&identity);
        let acceptor = TlsAcceptor::from(config.map_err(|error| text(&error))?);
        let stream = acceptor.accept(Gathering::new(stream)).await;
        let stream = stream.map_err(|error| text(&error))?;
        let shown = tls::shown_by(stream.get_ref().1, &identity.roots);
        let (from, key) = self.believed(shown)?;
        Ok((stream, from, key))
    }

    fn believed(&self, shown: Option<CertificateFacts>) -> Result<(HostId, Digest), String> {
        let facts = shown.ok_or("it is no host of this fleet, or speaks another protocol")?;
        let from = self
            .host_with(&facts.tls_key_hash)
            .ok_or_else(|| format!("{} shows a key that no record here names", facts.spiffe))?;
        Ok((from, facts.tls_key_hash))
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

    async fn streams<S>(self: Rc<Self>, mut stream: S, from: HostId, key: Digest)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(_of_key) = self.keys.show(key) else {
            return tracing::debug!(?from, "a host makes too many connections for streams");
        };
        let is_over = self.take_streams(&mut stream, from, key).await;
        if is_over {
            // What the other end still says would reset the connection, and with it what it has not
            // read yet.
            let _ = timeout(LINGER_MAX, read_to_end(stream)).await;
        }
    }

    /// Returns whether the connection came to its end by itself.
    async fn take_streams<S>(self: &Rc<Self>, stream: &mut S, from: HostId, key: Digest) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shaking = manner::server().handshake::<_, Bytes>(stream);
        let Ok(Ok(mut connection)) = timeout(HANDSHAKE_TIMEOUT, shaking).await else {
            return false;
        };
        let pings = connection.ping_pong().expect("it is taken once");
        let mut ended = pin!(self.ended(pings, from, key));
        let mut stopped = pin!(self.stopped());
        let mut is_stopping = false;
        loop {
            tokio::select! {
                // However much comes, who is no host any more is noticed.
                biased;
                () = &mut ended => return false,
                () = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    connection.graceful_shutdown();
                }
                accepted = connection.accept() => match accepted {
                    // It notices by itself when the connection is gone.
                    Some(Ok((request, respond))) => {
                        spawn_local(Rc::clone(self).answer(Arrival { from }, request, respond));
                    }
                    Some(Err(_)) => return false,
                    None => return true,
                },
            }
        }
    }

    /// Returns when the other end is silent for too long, or is no host of the fleet any more.
    async fn ended(&self, pings: PingPong, from: HostId, key: Digest) {
        let mut changes = self.snapshots.watch();
        let expelled =
            async { while self.is_still(from, &key) && changes.changed().await.is_ok() {} };
        tokio::select! {
            () = manner::silence(pings) => {}
            () = expelled => {}
        }
    }

    async fn stopped(&self) {
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
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

/// Where only UDP passes: a session of QUIC, each stream of which is as a connection over TCP.
impl<H: Handler> Acceptor<H> {
    /// As [`Acceptor::serve`]; begins when this host has a certificate.
    pub async fn serve_datagrams(self: Rc<Self>, datagrams: Rc<Datagrams>) {
        let mut stop = self.stop.clone();
        let endpoint = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            endpoint = self.endpoint(&datagrams) => endpoint,
        };
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) if sessions.len() >= CONNECTIONS_MAX => incoming.refuse(),
                    Some(incoming) => self.admit(incoming, &mut sessions),
                    None => break,
                },
            }
        }
        // Refused from here on, rather than kept waiting.
        endpoint.set_server_config(None);
        while sessions.join_next().await.is_some() {}
    }

    async fn endpoint(&self, datagrams: &Datagrams) -> Endpoint {
        let mut changes = self.snapshots.watch();
        loop {
            let identity = self.snapshots.current().identity.clone();
            if let Some(identity) = identity {
                let begun = self.identities.quic_server(&identity);
                let begun = begun.map_err(io::Error::other);
                match begun.and_then(|config| datagrams.endpoint(&identity, &config)) {
                    Ok(endpoint) => return endpoint,
                    Err(error) => tracing::warn!(%error, "no streams are taken over QUIC"),
                }
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn admit(self: &Rc<Self>, incoming: Incoming, sessions: &mut JoinSet<()>) {
        let remote = incoming.remote_address().ip();
        let strangers = match incoming.remote_address_validated() {
            true => &self.over_quic,
            false => &self.unproven,
        };
        match strangers.take(remote) {
            Some(place) => {
                sessions.spawn_local(Rc::clone(self).session(incoming, place));
            }
            // It costs this end nothing to remember, and what it sends is smaller than what came.
            None if incoming.may_retry() => {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
            }
            None => incoming.refuse(),
        }
    }

    async fn session(self: Rc<Self>, incoming: Incoming, place: Place) {
        let shaken = timeout(HANDSHAKE_TIMEOUT, self.shake_session(incoming)).await;
        drop(place);
        match shaken {
            Ok(Ok((session, from, key))) => self.session_streams(session, from, key).await,
            Ok(Err(why)) => tracing::debug!(why, "a session for streams was not taken"),
            Err(_) => {}
        }
    }

    async fn shake_session(
        &self,
        incoming: Incoming,
    ) -> Result<(Connection, HostId, Digest), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let identity = self.snapshots.current().identity.clone();
        let identity = identity.ok_or("this host has no certificate any more")?;
        let config = self.identities.quic_server(&identity);
        let config = config.map_err(|error| text(&error))?;
        let session = incoming.accept_with(config).map_err(|error| text(&error))?;
        let session = session.await.map_err(|error| text(&error))?;
        let shown = datagrams::shown_by(&session, &identity.roots);
        let (from, key) = self.believed(shown)?;
        Ok((session, from, key))
    }

    async fn session_streams(self: Rc<Self>, session: Connection, from: HostId, key: Digest) {
        let Some(_of_key) = self.keys.show(key) else {
            return session.close(0_u32.into(), b"this host makes too many connections");
        };
        let (mut changes, mut stop) = (self.snapshots.watch(), self.stop.clone());
        let mut is_stopping = false;
        let mut streams = JoinSet::new();
        while !is_stopping || !streams.is_empty() {
            tokio::select! {
                accepted = session.accept_bi() => match accepted {
                    Ok((send, receive)) => {
                        let stream = join(receive, send);
                        streams.spawn_local(Rc::clone(&self).streams(stream, from, key));
                    }
                    // It is over, and each stream has heard of that itself.
                    Err(_) => break,
                },
                Some(_) = streams.join_next(), if !streams.is_empty() => {}
                _ = changes.changed() => if !self.is_still(from, &key) {
                    return session.close(0_u32.into(), b"no record names this host any more");
                },
                _ = stop.wait_for(|stop| *stop), if !is_stopping => is_stopping = true,
            }
        }
    }
}

async fn read_to_end(mut stream: impl AsyncRead + Unpin) {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection for streams");
    sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt;
    use model::address::OverlayPrefixes;
    use model::catalogue::Catalogue;
    use model::ids::{FleetId, PolicyVersion};
    use tokio::io::duplex;

    use super::*;
    use crate::snapshot::Snapshot;

    struct Nobody;

    impl Handler for Nobody {
        async fn handle(
            self: Rc<Self>,
            _arrival: Arrival,
            _request: Request<StreamBody>,
        ) -> Response<ProxyBody> {
            Response::new(ProxyBody::Empty)
        }
    }

    fn knows_nothing() -> Snapshot {
        let catalogue = Catalogue {
            fleet_name: "prod".parse().unwrap(),
            suffix: "prod.mesh".to_owned(),
            me: HostId::from_bytes([2; 16]),
            policy_version: PolicyVersion::default(),
            service_prefixes: OverlayPrefixes::derived_from(FleetId::from_bytes([1; 16]))
                .services(),
            services: BTreeMap::new(),
            hosts: BTreeMap::new(),
        };
        Snapshot {
            catalogue: Arc::new(catalogue),
            gate: Arc::default(),
            identity: None,
        }
    }

    #[tokio::test]
    async fn a_host_with_too_many_connections_gets_no_other() {
        let (_stop, stopped) = watch::channel(false);
        let acceptor = Acceptor::new(Snapshots::new(knows_nothing()), Rc::new(Nobody), stopped);
        let (from, key) = (HostId::from_bytes([1; 16]), Digest::from_bytes([1; 32]));
        let begins = || {
            let (stream, other_end) = duplex(1024);
            let streams = Rc::clone(&acceptor).streams(stream, from, key);
            (streams.now_or_never(), other_end).0
        };
        assert_eq!(begins(), None, "it waits for what the other end says");
        let held: Vec<_> = std::iter::from_fn(|| acceptor.keys.show(key)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_KEY_MAX);
        assert_eq!(begins(), Some(()), "it is over");
        drop(held);
        assert_eq!(begins(), None);
    }
}
