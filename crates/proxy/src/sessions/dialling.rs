//! Makes a connection to a host, over TCP or, where that does not get through, over QUIC: to the first of
//! its addresses that answers. And asks whether it is the host of the record.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::catalogue::{CatalogueHost, StreamIdentity};
use model::ids::{Digest, HostId};
use model::name::Name;
use quinn::{Connection, Endpoint};
use runtime::tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use trust::certificate::CertificateFacts;

use super::carried::{Carrier, Use};
use super::outages::Places;
use super::transport::Transport;
use super::{MakeSocket, SessionError, Sessions, datagrams, manner};
use crate::gathering::Gathering;

/// How long an address may take to answer: TRAFFIC's connect timeout. Over QUIC, whose first answer
/// comes with most of the handshake, the first datagram may be lost twice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long QUIC has where TCP was refused: most often nobody is there, and another endpoint is.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);
/// How long TLS and the first frames may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an address is waited for before the next is tried beside it: RFC 8305 5.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// How long a transport is waited for before the other is tried beside it. TCP answers in one round
/// trip, so that what is on the other side of the world still comes by it.
const OTHER_TRANSPORT_AFTER: Duration = Duration::from_millis(400);
/// Addresses that are tried.
const ADDRESSES_MAX: usize = 8;

/// In which order transports are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    TcpFirst,
    QuicFirst,
    TcpOnly,
}

/// Whom to reach, and by what to believe it.
pub(super) struct Target {
    name: Name,
    key: Digest,
    /// All that is known, of which the first few are tried.
    places: Places,
    streams: Vec<SocketAddr>,
    datagrams: Vec<SocketAddr>,
    identity: Arc<StreamIdentity>,
    connector: TlsConnector,
    make_socket: MakeSocket,
    /// `None`: this host has no QUIC.
    quic: Option<(Endpoint, quinn::ClientConfig)>,
    /// It takes one stream more.
    session: Option<Connection>,
}

/// What answered, and where; it is not believed yet.
enum Reached {
    Tcp(TcpStream, SocketAddr),
    Quic(Connection, SocketAddr),
}

/// Why what was tried did not answer, one text for each.
type Failures = Vec<String>;

impl Target {
    /// With `session`, QUIC has a connection already.
    pub(super) fn of(
        host: HostId,
        sessions: &Sessions,
        session: Option<Connection>,
    ) -> Result<Self, SessionError> {
        let snapshot = sessions.snapshots.current();
        let host = snapshot.catalogue.hosts.get(&host);
        let host = host.ok_or(SessionError::NoAddress)?;
        let CatalogueHost {
            name,
            tls_key_hash,
            streams,
            datagrams,
            ..
        } = host;
        let identity = snapshot.identity.clone().ok_or(SessionError::NoIdentity)?;
        let unusable = |error: &dyn std::fmt::Display| {
            SessionError::Connect(format!("this host's certificate cannot be used: {error}"))
        };
        let config = sessions.identities.client(&identity);
        let config = config.map_err(|error| unusable(&error))?;
        let quic = quic(sessions, &identity).map_err(|error| unusable(&error))?;
        if streams.is_empty() && (datagrams.is_empty() || quic.is_none()) {
            return Err(SessionError::NoAddress);
        }
        let some = |all: &[SocketAddr]| all.iter().take(ADDRESSES_MAX).copied().collect();
        Ok(Self {
            name: name.clone(),
            key: *tls_key_hash,
            places: Places::of(host),
            streams: some(streams),
            datagrams: some(datagrams),
            identity,
            connector: TlsConnector::from(config),
            make_socket: Rc::clone(&sessions.make_socket),
            quic,
            session,
        })
    }

    /// Returns where the host is tried.
    pub(super) const fn places(&self) -> &Places {
        &self.places
    }
}

fn quic(
    sessions: &Sessions,
    identity: &Arc<StreamIdentity>,
) -> Result<Option<(Endpoint, quinn::ClientConfig)>, rustls::Error> {
    let Some(datagrams) = &sessions.datagrams else {
        return Ok(None);
    };
    let client = sessions.identities.quic_client(identity)?;
    let server = sessions.identities.quic_server(identity)?;
    let endpoint = datagrams.endpoint(identity, &server);
    let endpoint = endpoint.inspect_err(|error| tracing::warn!(%error, "there is no QUIC"));
    Ok(endpoint.ok().map(|endpoint| (endpoint, client)))
}

/// Makes the connection; its driver runs in the thread's `LocalSet`.
pub(super) async fn dial(target: Target, order: Order) -> Result<Carrier, SessionError> {
    let reached = reach(&target, order).await?;
    let address = match reached {
        Reached::Tcp(_, address) | Reached::Quic(_, address) => address,
    };
    let shaken = timeout(HANDSHAKE_TIMEOUT, shake(&target, reached)).await;
    shaken.unwrap_or_else(|_| {
        Err(SessionError::Connect(format!(
            "{} at {address} took the connection and does not answer",
            target.name
        )))
    })
}

async fn reach(target: &Target, order: Order) -> Result<Reached, SessionError> {
    let first = match order {
        Order::TcpFirst | Order::TcpOnly => Transport::Tcp,
        Order::QuicFirst => Transport::Quic,
    };
    let (by_first, by_other) = (reach_by(first, target), reach_by(first.other(), target));
    let reached = match order {
        Order::TcpOnly => by_first.await,
        Order::TcpFirst => first_or_other(by_first, by_other, AFTER_REFUSAL).await,
        Order::QuicFirst => first_or_other(by_first, by_other, CONNECT_TIMEOUT).await,
    };
    reached.map_err(|failures| {
        SessionError::Connect(format!(
            "{} cannot be reached ({}); is its TCP port open from here, or the UDP port of its tunnels?",
            target.name,
            failures.join("; ")
        ))
    })
}

/// Waits for one, and a little later for the other beside it; if the first fails before that, for the
/// other alone, for so long.
async fn first_or_other<T>(
    first: impl Future<Output = Result<T, Failures>>,
    other: impl Future<Output = Result<T, Failures>>,
    after_failure: Duration,
) -> Result<T, Failures> {
    let (mut first, mut other) = (pin!(first), pin!(other));
    let ended = match timeout(OTHER_TRANSPORT_AFTER, &mut first).await {
        Ok(Ok(reached)) => return Ok(reached),
        Ok(Err(failures)) if failures.is_empty() => return other.await,
        Ok(Err(failures)) => {
            let other = timeout(after_failure, other).await;
            let other = other.unwrap_or_else(|_| {
                let millis = after_failure.as_millis();
                Err(vec![format!("nothing else answered within {millis} ms")])
            });
            return other.map_err(|its| [failures, its].concat());
        }
        Err(_) => tokio::select! {
            ended = &mut first => ended,
            ended = &mut other => match ended {
                Ok(reached) => return Ok(reached),
                Err(its) => return first.await.map_err(|failures| [failures, its].concat()),
            },
        },
    };
    match ended {
        Ok(reached) => Ok(reached),
        Err(failures) => other.await.map_err(|its| [failures, its].concat()),
    }
}

async fn reach_by(transport: Transport, target: &Target) -> Result<Reached, Failures> {
    match (transport, &target.quic) {
        (Transport::Tcp, _) => {
            let reached = first_of(&target.streams, "TCP", CONNECT_TIMEOUT, |address| {
                let make_socket = Rc::clone(&target.make_socket);
                async move { make_socket(address)?.connect(address).await }
            });
            let (stream, address) = reached.await?;
            Ok(Reached::Tcp(stream, address))
        }
        (Transport::Quic, None) => Err(Failures::new()),
        (Transport::Quic, Some((endpoint, config))) => {
            if let Some(session) = &target.session {
                let address = session.remote_address();
                return Ok(Reached::Quic(session.clone(), address));
            }
            let reached = first_of(&target.datagrams, "UDP", CONNECT_TIMEOUT, |address| {
                let (endpoint, config) = (endpoint.clone(), config.clone());
                let name = target.name.clone();
                async move {
                    let connecting = endpoint.connect_with(config, address, name.as_str());
                    let connecting = connecting.map_err(std::io::Error::other)?;
                    connecting.await.map_err(std::io::Error::from)
                }
            });
            let (session, address) = reached.await?;
            Ok(Reached::Quic(session, address))
        }
    }
}

/// Tries the addresses in their order, each next one a little later, until one answers.
async fn first_of<T: 'static, F>(
    addresses: &[SocketAddr],
    over: &'static str,
    at_most: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(T, SocketAddr), Failures>
where
    F: Future<Output = std::io::Result<T>> + 'static,
{
    let mut attempts = JoinSet::new();
    for (position, address) in (0_u32..).zip(addresses) {
        let (address, connecting) = (*address, connect(*address));
        attempts.spawn_local(async move {
            sleep(NEXT_ADDRESS_AFTER * position).await;
            match timeout(at_most, connecting).await {
                Ok(Ok(reached)) => Ok((reached, address)),
                Ok(Err(error)) => Err(format!("{over} {address}: {error}")),
                Err(_) => Err(format!("{over} {address}: no answer")),
            }
        });
    }
    let mut failures = Failures::new();
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(failure)) => failures.push(failure),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(failures)
}

async fn shake(target: &Target, reached: Reached) -> Result<Carrier, SessionError> {
    match reached {
        Reached::Tcp(stream, address) => {
            let broken = |error: &dyn std::fmt::Display| broken(target, address, error);
            stream.set_nodelay(true).map_err(|error| broken(&error))?;
            let name = ServerName::try_from(target.name.as_str());
            let name = name.expect("a host's name is a DNS label").to_owned();
            let stream = target.connector.connect(name, Gathering::new(stream)).await;
            let stream = stream.map_err(|error| broken(&error))?;
            let shown = tls::shown_by(stream.get_ref().1, &target.identity.roots);
            check(target, shown, address)?;
            carry(target, stream, address, None).await
        }
        Reached::Quic(session, address) => {
            let shown = datagrams::shown_by(&session, &target.identity.roots);
            check(target, shown, address)?;
            let stream = session.open_bi().await;
            let (send, receive) = stream.map_err(|error| broken(target, address, &error))?;
            carry(target, join(receive, send), address, Some(session)).await
        }
    }
}

fn broken(target: &Target, address: SocketAddr, error: &dyn std::fmt::Display) -> SessionError {
    SessionError::Connect(format!("{} at {address}: {error}", target.name))
}

/// Speaks HTTP/2 on what is believed.
async fn carry(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    address: SocketAddr,
    session: Option<Connection>,
) -> Result<Carrier, SessionError> {
    let shaken = manner::client().handshake(stream).await;
    let (streams, mut connection) = shaken.map_err(|error| broken(target, address, &error))?;
    let pings = connection.ping_pong().expect("it is taken once");
    let used = Use::new();
    let watched = Rc::clone(&used);
    let driver = spawn_local(async move {
        tokio::select! {
            biased;
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection between hosts ended");
                }
            }
            () = manner::silence(pings) => tracing::debug!(%address, "a host is silent"),
            () = disuse(&watched) => {}
        }
        watched.end();
    });
    Ok(Carrier::new(
        target.key,
        streams,
        used,
        driver.abort_handle(),
        session,
    ))
}

/// Whoever answered may be a host of the fleet, and yet not the one that is meant.
fn check(
    target: &Target,
    shown: Option<CertificateFacts>,
    address: SocketAddr,
) -> Result<(), SessionError> {
    match shown {
        Some(facts) if facts.tls_key_hash == target.key => Ok(()),
        Some(facts) => Err(SessionError::Untrusted(format!(
            "{address} answered as {}, and not with the key of {}'s record",
            facts.spiffe, target.name
        ))),
        None => Err(SessionError::Untrusted(format!(
            "{address} answered, but not as a host of this fleet"
        ))),
    }
}

/// Returns when there has been no stream for long.
async fn disuse(used: &Use) {
    loop {
        let since = used.idle_since().unwrap_or_else(tokio::time::Instant::now);
        let end = manner::idle_end(since);
        sleep_until(end).await;
        if used
            .idle_since()
            .is_some_and(|since| manner::idle_end(since) <= end)
        {
            return;
        }
    }
}
