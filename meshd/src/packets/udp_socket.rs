//! The UDP sockets of the tunnels: IPv4 always, IPv6 where the machine has it, on one port.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use dataplane::{DatagramMeta, Path};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Asked of the kernel for each direction of each socket: bursts of a fast sender wait here.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The largest UDP payload there is, and so the largest batch that the kernel joins.
const DATAGRAM_BYTES_MAX: usize = 65535;

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on UDP port {port}: {source}; is another tunnel daemon running? (another --listen-port lets two run side by side)"
)]
pub struct SocketError {
    port: u16,
    source: io::Error,
}

/// The sockets of one shard.
#[derive(Debug)]
pub struct UdpSockets {
    v4: UdpQueue,
    v6: Option<UdpQueue>,
    port: u16,
}

/// One socket with its memory for received datagrams.
#[derive(Debug)]
pub(super) struct UdpQueue {
    socket: UdpSocket,
    state: UdpSocketState,
    memory: Box<[u8]>,
}

impl UdpSockets {
    /// Listens on `port` of every address; 0 lets the kernel choose one.
    ///
    /// # Errors
    /// The port is taken, or IPv4 is not there.
    pub fn bind(port: u16) -> Result<Self, SocketError> {
        let failed = |source| SocketError { port, source };
        let v4 =
            UdpQueue::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).map_err(failed)?;
        let port = v4.socket.local_addr().map_err(failed)?.port();
        let v6 = match UdpQueue::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
            Ok(queue) => Some(queue),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(failed(error)),
            Err(error) => {
                tracing::info!(%error, "no IPv6 underlay on this machine");
                None
            }
        };
        Ok(Self { v4, v6, port })
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn queues_mut(&mut self) -> impl Iterator<Item = &mut UdpQueue> {
        std::iter::once(&mut self.v4).chain(self.v6.as_mut())
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.v4.socket.as_fd())
            .chain(self.v6.as_ref().map(|queue| queue.socket.as_fd()))
    }

    /// Returns a second handle for sending, while receiving borrows the queues.
    pub(super) fn sender(&self) -> io::Result<UdpSender> {
        Ok(UdpSender {
            v4: SendHalf::of(&self.v4)?,
            v6: self.v6.as_ref().map(SendHalf::of).transpose()?,
        })
    }
}

impl UdpQueue {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Root may go past the administrator's bound; others get as much as it lets them.
        if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
            socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        }
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(&SockAddr::from(address))?;
        let socket = UdpSocket::from(socket);
        let state = prepare(&socket)?;
        Ok(Self {
            socket,
            state,
            memory: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice(),
        })
    }

    /// Receives one batch that the kernel may have joined, and hands out its datagrams one by one.
    /// Returns whether there was anything.
    pub(super) fn receive(
        &mut self,
        mut handle: impl FnMut(Path, u8, &mut [u8]),
    ) -> io::Result<bool> {
        let mut meta = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(&mut self.memory)];
        match self
            .state
            .recv((&self.socket).into(), &mut buffers, &mut meta)
        {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let [meta] = meta;
        let path = Path {
            remote: canonical(meta.addr),
            source: meta.dst_ip.map(|address| address.to_canonical()),
        };
        let ecn = meta.ecn.map_or(0, |codepoint| codepoint as u8);
        let received = &mut self.memory[..meta.len];
        if received.is_empty() {
            handle(path, ecn, received);
            return Ok(true);
        }
        for datagram in received.chunks_mut(meta.stride.max(1)) {
            handle(path, ecn, datagram);
        }
        Ok(true)
    }
}

/// Makes the socket ready for batches. quinn-udp forbids fragments, as QUIC wants it; a tunnel whose
/// packets fill the interface's MTU must pass a path that is smaller, in fragments if need be.
fn prepare(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    if socket.local_addr()?.is_ipv4() {
        sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?;
    } else {
        sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?;
    }
    Ok(state)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The sending side of the sockets.
#[derive(Debug)]
pub(super) struct UdpSender {
    v4: SendHalf,
    v6: Option<SendHalf>,
}

#[derive(Debug)]
struct SendHalf {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl SendHalf {
    fn of(queue: &UdpQueue) -> io::Result<Self> {
        let socket = queue.socket.try_clone()?;
        let state = prepare(&socket)?;
        Ok(Self { socket, state })
    }

    fn send(&self, datagram: &Transmit<'_>) -> io::Result<()> {
        self.state.try_send((&self.socket).into(), datagram)
    }
}

impl UdpSender {
    /// Sends a datagram.
    ///
    /// # Errors
    /// The kernel refuses, or there is no socket of the address's family.
    pub(super) fn send(
        &mut self,
        via: Path,
        meta: DatagramMeta,
        contents: &[u8],
    ) -> io::Result<()> {
        let half = match via.remote.ip() {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => self.v6.as_mut().ok_or(io::ErrorKind::AddrNotAvailable)?,
        };
        let datagram = Transmit {
            destination: via.remote,
            ecn: EcnCodepoint::from_bits(meta.ecn),
            contents,
            segment_size: meta.segment_size.map(usize::from),
            src_ip: meta.source.or(via.source),
        };
        let sent = half.send(&datagram);
        if datagram.src_ip.is_none() || !sent.as_ref().is_err_and(is_about_source) {
            return sent;
        }
        // The host has moved: the address is not its own any more. The kernel chooses another; the
        // peer's answer tells the shard which. What quinn-udp took for a kernel that is too old
        // to mark ECN was that address, so its state starts over.
        half.state = prepare(&half.socket)?;
        half.send(&Transmit {
            src_ip: None,
            ..datagram
        })
    }
}

/// What Linux says of a source address that no interface has.
fn is_about_source(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_arrive_with_the_address_they_came_from() {
        let mut sockets = UdpSockets::bind(0).unwrap();
        let sender = UdpSockets::bind(0).unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
        let path = Path {
            remote: to,
            source: None,
        };
        sender
            .sender()
            .unwrap()
            .send(path, DatagramMeta::default(), b"hello")
            .unwrap();
        let mut polled = [rustix::event::PollFd::new(
            &sockets.v4.socket,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut polled, None).unwrap();
        let mut seen = Vec::new();
        assert!(
            sockets
                .v4
                .receive(|path, _, datagram| seen.push((path.remote.port(), datagram.to_vec())))
                .unwrap()
        );
        assert_eq!(seen, [(sender.port(), b"hello".to_vec())]);
        assert!(
            !sockets
                .v4
                .receive(|_, _, _| panic!("nothing more was sent"))
                .unwrap()
        );
    }

    #[test]
    fn a_source_address_that_is_gone_does_not_silence_the_host() {
        let receivers = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            .map(|to: IpAddr| UdpSocket::bind((to, 0)).unwrap());
        let mut sender = UdpSockets::bind(0).unwrap().sender().unwrap();
        for (receiver, gone) in receivers.iter().zip(["192.0.2.1", "2001:db8::1"]) {
            let path = Path {
                remote: receiver.local_addr().unwrap(),
                source: Some(gone.parse().unwrap()),
            };
            sender
                .send(path, DatagramMeta::default(), b"hello")
                .unwrap();
            let mut received = [0; 5];
            receiver.recv(&mut received).unwrap();
            assert_eq!(&received, b"hello");
        }
    }

    #[test]
    fn datagrams_may_be_fragmented_also_after_a_move() {
        let mut sender = UdpSockets::bind(0).unwrap().sender().unwrap();
        let discovery = |sender: &UdpSender| sockopt::ip_mtu_discover(&sender.v4.socket).unwrap();
        assert_eq!(discovery(&sender), Ipv4PathMtuDiscovery::DONT);
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let path = Path {
            remote: receiver.local_addr().unwrap(),
            source: Some("192.0.2.1".parse().unwrap()),
        };
        sender
            .send(path, DatagramMeta::default(), b"hello")
            .unwrap();
        assert_eq!(discovery(&sender), Ipv4PathMtuDiscovery::DONT);
    }

    #[test]
    fn a_taken_port_says_what_to_try() {
        let first = UdpSockets::bind(0).unwrap();
        let message = UdpSockets::bind(first.port()).unwrap_err().to_string();
        assert!(message.contains("--listen-port"), "{message}");
    }
}
