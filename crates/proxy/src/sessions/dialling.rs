//! Makes a connection to a host: TCP to the first of its addresses that answers, TLS, and the question
//! whether it is the host of the record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::catalogue::{CatalogueHost, StreamIdentity};
use model::ids::{Digest, HostId};
use model::name::Name;
use runtime::tls;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::carried::{Carrier, Use};
use super::{MakeSocket, SessionError, Sessions, manner};

/// How long an address may take to answer: TRAFFIC's connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long TLS and the first frames may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an address is waited for before the next is tried beside it: RFC 8305 5.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Addresses that are tried.
const ADDRESSES_MAX: usize = 8;

/// Whom to reach, and by what to believe it.
pub(super) struct Target {
    name: Name,
    key: Digest,
    addresses: Vec<SocketAddr>,
    identity: Arc<StreamIdentity>,
    connector: TlsConnector,
    make_socket: MakeSocket,
}

impl Target {
    pub(super) fn of(host: HostId, sessions: &Sessions) -> Result<Self, SessionError> {
        let snapshot = sessions.snapshots.current();
        let CatalogueHost {
            name,
            tls_key_hash,
            streams,
            ..
        } = snapshot
            .catalogue
            .hosts
            .get(&host)
            .ok_or(SessionError::NoAddress)?;
        let identity = snapshot.identity.clone().ok_or(SessionError::NoIdentity)?;
        if streams.is_empty() {
            return Err(SessionError::NoAddress);
        }
        let config = sessions.identities.client(&identity).map_err(|error| {
            SessionError::Connect(format!("this host's certificate cannot be used: {error}"))
        })?;
        Ok(Self {
            name: name.clone(),
            key: *tls_key_hash,
            addresses: streams.iter().take(ADDRESSES_MAX).copied().collect(),
            identity,
            connector: TlsConnector::from(config),
            make_socket: Rc::clone(&sessions.make_socket),
        })
    }
}

/// Makes the connection; its driver runs in the thread's `LocalSet`.
pub(super) async fn dial(target: Target) -> Result<Carrier, SessionError> {
    let (stream, address) = reach(&target).await?;
    let shaken = timeout(HANDSHAKE_TIMEOUT, shake(&target, stream, address)).await;
    shaken.unwrap_or_else(|_| {
        Err(SessionError::Connect(format!(
            "{} at {address} took the connection and does not answer",
            target.name
        )))
    })
}

/// Tries the addresses in their order, each next one a little later, until one answers.
async fn reach(target: &Target) -> Result<(TcpStream, SocketAddr), SessionError> {
    let mut attempts = JoinSet::new();
    for (position, address) in (0_u32..).zip(&target.addresses) {
        let (address, make_socket) = (*address, Rc::clone(&target.make_socket));
        attempts.spawn_local(async move {
            sleep(NEXT_ADDRESS_AFTER * position).await;
            let connecting = async { make_socket(address)?.connect(address).await };
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(stream)) => Ok((stream, address)),
                Ok(Err(error)) => Err(format!("{address}: {error}")),
                Err(_) => Err(format!("{address}: no answer")),
            }
        });
    }
    let mut failures = Vec::new();
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(failure)) => failures.push(failure),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(SessionError::Connect(format!(
        "{} cannot be reached ({}); is its TCP port open from here?",
        target.name,
        failures.join("; ")
    )))
}

async fn shake(
    target: &Target,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<Carrier, SessionError> {
    let broken = |error: &dyn std::fmt::Display| {
        SessionError::Connect(format!("{} at {address}: {error}", target.name))
    };
    stream.set_nodelay(true).map_err(|error| broken(&error))?;
    let name = ServerName::try_from(target.name.as_str()).expect("a host's name is a DNS label");
    let name = name.to_owned();
    let stream = target.connector.connect(name, stream).await;
    let stream = stream.map_err(|error| broken(&error))?;
    check(target, &stream, address)?;
    let shaken = manner::client().handshake(stream).await;
    let (streams, mut connection) = shaken.map_err(|error| broken(&error))?;
    let pings = connection.ping_pong().expect("it is taken once");
    let used = Use::new();
    let watched = Rc::clone(&used);
    let driver = spawn_local(async move {
        tokio::select! {
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
    ))
}

/// Whoever answered may be a host of the fleet, and yet not the one that is meant.
fn check(
    target: &Target,
    stream: &TlsStream<TcpStream>,
    address: SocketAddr,
) -> Result<(), SessionError> {
    let facts = tls::shown_by(stream.get_ref().1, &target.identity.roots);
    match facts {
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
