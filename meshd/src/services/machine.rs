//! This host, as the proxy asks it: who was dialled, who dialled, and sockets that are not caught.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use model::address::HostAddresses;
use model::name::Name;
use proxy::{Caller, DatagramPort, Surroundings};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::callers::Callers;
use super::units::UnitStates;
use crate::linux::conntrack;
use crate::linux::interception::OWN_MARK;
use crate::linux::late_port::choose_port_late;
use crate::packets::StreamPort;

/// The machine that the daemon runs on.
pub(crate) struct Machine {
    callers: Callers,
    /// This host's overlay addresses, once it is a member.
    own: ArcSwapOption<HostAddresses>,
    units: UnitStates,
    streams: Arc<StreamPort>,
}

impl Machine {
    /// Takes the port to which caught connections are brought, where it is told which units run, and
    /// the way of QUIC.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn new(
        intercept_port: u16,
        units: UnitStates,
        streams: Arc<StreamPort>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            streams,
            callers: Callers::new(intercept_port)?,
            own: ArcSwapOption::empty(),
            units,
        }))
    }

    /// Says so when units cannot be told on this machine.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.callers.alarm()
    }

    /// Takes which overlay addresses this host has.
    pub(crate) fn set_addresses(&self, own: Option<HostAddresses>) {
        self.own.store(own.map(Arc::new));
    }
}

impl Surroundings for Machine {
    fn original_destination(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        conntrack::original_destination(stream)
    }

    fn caller(&self, app: SocketAddr, dialled: SocketAddr) -> Caller {
        self.callers.of(app, dialled)
    }

    fn has_program(&self, app: SocketAddr, dialled: SocketAddr) -> bool {
        self.callers.are_there(app, dialled)
    }

    fn dial_local(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let own = self.own.load();
        let Some(own) = own.as_deref() else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let from: IpAddr = match to.ip() {
            IpAddr::V4(_) => own.v4.into(),
            IpAddr::V6(_) => own.v6.into(),
        };
        let socket = marked(to)?;
        // Which port it has is chosen when it is known where it goes: there are more then.
        choose_port_late(&socket)?;
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(socket)
    }

    fn dial_underlay(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        marked(to)
    }

    fn datagrams(&self, thread: usize, threads: usize) -> io::Result<Option<DatagramPort>> {
        self.streams.open(thread, threads).map(Some)
    }

    fn is_active(&self, workload: &Name) -> Option<bool> {
        self.units.is_active(workload)
    }
}

fn marked(to: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    SockRef::from(&socket).set_mark(OWN_MARK)?;
    Ok(socket)
}
