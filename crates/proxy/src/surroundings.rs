//! What the proxy asks of the machine that it runs on: who was dialled before a connection was
//! caught, who dialled, and sockets that are not caught again. `meshd` answers; tests do too.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use model::name::Name;
use policy::Process;
use tokio::net::{TcpSocket, TcpStream};

use crate::sessions::DatagramPort;

/// The machine, as one proxy sees it. Every call is made on a proxy thread and must be quick.
pub trait Surroundings: Send + Sync + 'static {
    /// Returns where the program meant to connect to before the connection was caught.
    ///
    /// # Errors
    /// The kernel does not know, as when nobody caught the connection.
    fn original_destination(&self, stream: &TcpStream) -> io::Result<SocketAddr>;

    /// Returns the process of this host that opened the connection from `app` to `dialled`.
    fn caller(&self, app: SocketAddr, dialled: SocketAddr) -> Caller;

    /// Returns whether a program still has its end of the connection that it opened from `app` to
    /// `dialled`, be it that it only listens there; and where that cannot be told.
    fn has_program(&self, app: SocketAddr, dialled: SocketAddr) -> bool;

    /// Returns a socket for a connection to a program of this host, not connected yet: it is bound
    /// to the overlay address of this host in the family of `to`, and marked so that it is not
    /// caught.
    ///
    /// # Errors
    /// The kernel gives no socket, or not this address.
    fn dial_local(&self, to: SocketAddr) -> io::Result<TcpSocket>;

    /// Returns a socket for a connection to another host's daemon, marked, not connected yet.
    ///
    /// # Errors
    /// The kernel gives no socket.
    fn dial_underlay(&self, to: SocketAddr) -> io::Result<TcpSocket>;

    /// Returns what one of so many proxy threads sends and gets datagrams of QUIC by; `None`: there is
    /// nothing but TCP here. Called once, in the thread's runtime.
    ///
    /// # Errors
    /// There are no descriptors left.
    fn datagrams(&self, _thread: usize, _threads: usize) -> io::Result<Option<DatagramPort>> {
        Ok(None)
    }

    /// Returns whether the systemd unit of a workload is active on this host; `None`: nobody knows.
    fn is_active(&self, _workload: &Name) -> Option<bool> {
        None
    }
}

/// Who opened a connection on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// This process.
    Process {
        /// Its systemd unit.
        unit: Option<String>,
        /// The name of its user, where it has one.
        user: Option<String>,
        /// Its user's number.
        uid: u32,
    },
    /// Nobody knows, as when the process is gone already.
    Unknown,
}

impl Caller {
    /// Returns the process as policy asks for it; `None`: unknown.
    pub fn process(&self) -> Option<Process<'_>> {
        match self {
            Self::Process { unit, user, uid } => Some(Process {
                unit: unit.as_deref(),
                user: user.as_deref(),
                uid: *uid,
            }),
            Self::Unknown => None,
        }
    }
}

/// The sockets that a proxy accepts on, one list per proxy thread (`SO_REUSEPORT`).
#[derive(Debug, Default)]
pub struct Listeners {
    /// For each thread: connections of this host's programs that were caught on their way out.
    pub outgoing: Vec<Vec<StdListener>>,
    /// For each thread: sessions of other hosts.
    pub streams: Vec<Vec<StdListener>>,
}
