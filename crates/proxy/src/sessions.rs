//! The streams that carry calls from host to host: TLS 1.3 and HTTP/2 over TCP of the underlay, or over
//! QUIC where only UDP passes, one stream for each request or connection. Both ends believe each
//! other by the signed records of the fleet, not by certificates alone.
//!
//! One [`Sessions`] belongs to one proxy thread and shares nothing with the others.

mod accepting;
mod addressee;
mod carried;
mod datagrams;
mod detour;
mod dialling;
mod identity;
mod manner;
mod outages;
mod pool;
mod sending;
mod transport;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use http::{Request, Response};
use model::ids::HostId;
use tokio::net::TcpSocket;

pub use accepting::{Acceptor, Arrival, Handler};
pub use addressee::Addressee;
pub(crate) use carried::{StreamPlace, Taken};
pub use datagrams::{DatagramPort, Datagrams};
pub use outages::OutageSeen;
pub(crate) use outages::Outages;
pub use transport::Transport;

use crate::body::{ProxyBody, StreamBody};
use crate::snapshot::Snapshots;
use identity::Identities;
use outages::Places;
use pool::HostPool;

/// Makes a socket for the underlay: marked, so that it is never caught itself.
pub(crate) type MakeSocket = Rc<dyn Fn(SocketAddr) -> io::Result<TcpSocket>>;

/// Why a call did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The host is none that this one knows, or nobody knows where it is. Nothing was sent.
    #[error("it is not known where the host may be reached")]
    NoAddress,
    /// This host has no certificate yet. Nothing was sent.
    #[error("this host has no certificate yet")]
    NoIdentity,
    /// No connection came about. Nothing was sent.
    #[error("{0}")]
    Connect(String),
    /// Somebody answered who is not the host of the record. Nothing was sent.
    #[error("{0}")]
    Untrusted(String),
    /// There are as many streams to the host as there may be. Nothing was sent.
    #[error("there are too many streams to the host")]
    Full,
    /// The host did not begin with the call: it can be sent again.
    #[error("the host did not take the call: {0}")]
    Refused(String),
    /// It broke, and the host may have begun.
    #[error("the stream broke: {0}")]
    Broken(String),
}

impl SessionError {
    /// Returns whether the host has surely not begun with the call.
    pub const fn is_unsent(&self) -> bool {
        !matches!(self, Self::Broken(_))
    }
}

/// How many connections a thread has to a host, over one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionsSeen {
    /// Which host.
    pub host: HostId,
    /// Over what.
    pub transport: Transport,
    /// Each carries many calls.
    pub connections: usize,
}

/// The connections of one thread to other hosts.
pub struct Sessions {
    snapshots: Arc<Snapshots>,
    make_socket: MakeSocket,
    /// `None`: this host has no QUIC, only TCP.
    datagrams: Option<Rc<Datagrams>>,
    identities: Identities,
    /// Of all threads.
    outages: Arc<Outages>,
    hosts: RefCell<HashMap<HostId, Rc<HostPool>>>,
    this: Weak<Self>,
}

impl Sessions {
    /// Begins without any connection.
    pub fn new(snapshots: Arc<Snapshots>, make_socket: MakeSocket) -> Rc<Self> {
        Self::with(snapshots, make_socket, None)
    }

    /// As [`Sessions::new`], with QUIC where TCP does not get through.
    pub fn with(
        snapshots: Arc<Snapshots>,
        make_socket: MakeSocket,
        datagrams: Option<Rc<Datagrams>>,
    ) -> Rc<Self> {
        Self::of_thread(snapshots, make_socket, datagrams, Arc::default())
    }

    /// As [`Sessions::with`], knowing with the other threads which hosts are not reached.
    pub(crate) fn of_thread(
        snapshots: Arc<Snapshots>,
        make_socket: MakeSocket,
        datagrams: Option<Rc<Datagrams>>,
        outages: Arc<Outages>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            snapshots,
            make_socket,
            datagrams,
            identities: Identities::default(),
            outages,
            hosts: RefCell::default(),
            this: this.clone(),
        })
    }

    /// Sends a request to a host on a stream of its own, and returns the head of the answer; the body
    /// comes as it is read. To drop the future or the answer's body cancels the stream. Has to run in
    /// a `LocalSet`.
    ///
    /// # Errors
    /// Says whether the host may have begun.
    pub async fn request(
        &self,
        to: HostId,
        request: Request<ProxyBody>,
    ) -> Result<Response<StreamBody>, SessionError> {
        self.connection(to).await?.request(request).await
    }

    /// Returns a connection to a host with room for a stream, for those who do it step by step.
    ///
    /// # Errors
    /// There is none. Nothing was sent.
    pub(crate) async fn connection(&self, to: HostId) -> Result<Taken, SessionError> {
        self.pool(to)?.connection(self).await
    }

    /// Closes the connections to hosts that are gone or have another key now. To be called whenever
    /// the snapshot changes.
    pub fn review(&self) {
        let snapshot = self.snapshots.current();
        let hosts = &snapshot.catalogue.hosts;
        self.hosts.borrow_mut().retain(|id, pool| {
            let key = hosts.get(id).map(|host| host.tls_key_hash);
            pool.keep_only(key);
            key.is_some()
        });
        let places = |host| hosts.get(&host).map(Places::of);
        self.outages.keep_only(places);
    }

    /// Whether a stream to the host may come about: it is this one, there is a connection, or nothing is
    /// known against making one.
    pub(crate) fn is_reachable(&self, host: HostId) -> bool {
        let snapshot = self.snapshots.current();
        let catalogue = &snapshot.catalogue;
        let is_somewhere = |host: &model::catalogue::CatalogueHost| {
            !host.streams.is_empty() || (self.datagrams.is_some() && !host.datagrams.is_empty())
        };
        let is_connected = || {
            let hosts = self.hosts.borrow();
            hosts.get(&host).is_some_and(|pool| pool.is_connected())
        };
        host == catalogue.me
            || is_connected()
            || catalogue.hosts.get(&host).is_some_and(is_somewhere) && !self.outages.contains(host)
    }

    /// Returns what tells that other hosts are reached than before: `changed().await`.
    pub(crate) fn watch_outages(&self) -> tokio::sync::watch::Receiver<u64> {
        self.outages.watch()
    }

    /// Returns the hosts with which no session comes about, as all threads know it.
    pub fn outages_seen(&self) -> Vec<OutageSeen> {
        self.outages.seen()
    }

    /// Returns the connections that there are.
    pub fn seen(&self) -> Vec<ConnectionsSeen> {
        let hosts = self.hosts.borrow();
        let seen = hosts.iter().flat_map(|(host, pool)| {
            let over = |transport| ConnectionsSeen {
                host: *host,
                transport,
                connections: pool.count(transport),
            };
            [Transport::Tcp, Transport::Quic].map(over)
        });
        seen.filter(|seen| seen.connections > 0).collect()
    }

    fn pool(&self, to: HostId) -> Result<Rc<HostPool>, SessionError> {
        if let Some(pool) = self.hosts.borrow().get(&to) {
            return Ok(Rc::clone(pool));
        }
        if !self.snapshots.current().catalogue.hosts.contains_key(&to) {
            return Err(SessionError::NoAddress);
        }
        let mut hosts = self.hosts.borrow_mut();
        let new = || HostPool::new(to, Arc::clone(&self.snapshots));
        Ok(Rc::clone(hosts.entry(to).or_insert_with(new)))
    }
}
