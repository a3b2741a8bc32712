//! The UDP sockets of the tunnels: IPv4 always, IPv6 where the machine has it, on one port.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use dataplane::{Path, Shard};
use model::time::Instant;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::admission::Admission;
use super::udp_sender::UdpSender;
use crate::drops::SocketDrops;
use crate::linux::classic_bpf::unfilter;
use crate::linux::steering::steer_by_receiver_index;

/// Asked of the kernel for each direction of each socket: bursts of a fast sender wait here.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The largest UDP payload there is, and so the largest batch that the kernel joins.
const DATAGRAM_BYTES_MAX: usize = 65535;
/// From one room for a message to the next. Not a power of two, so that messages of one datagram do
/// not all lie in the same sets of the caches.
const ROOM_BYTES: usize = 65536 + 1344;

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on UDP port {port}: {source}; is another tunnel daemon running? (another --listen-port lets two run side by side)"
)]
pub struct SocketError {
    port: u16,
    source: io::Error,
}

impl SocketError {
    /// Whether somebody else has the port.
    pub(crate) fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// The sockets of one shard.
#[derive(Debug)]
pub struct UdpSockets {
    v4: UdpQueue,
    v6: Option<UdpQueue>,
    port: u16,
}

/// Whether other sockets have the same port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shared,
}

/// One socket with its memory for received datagrams.
#[derive(Debug)]
pub(super) struct UdpQueue {
    socket: UdpSocket,
    state: UdpSocketState,
    memory: Box<[u8]>,
    admission: Admission,
}

/// Whom a datagram names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// A session of ours, whoever sent it.
    Session,
    /// None, or nobody has asked.
    Nobody,
}

impl UdpSockets {
    /// Listens on `port` of every address; 0 lets the kernel choose one.
    ///
    /// # Errors
    /// The port is taken, or IPv4 is not there.
    pub fn bind(port: u16) -> Result<Self, SocketError> {
        Self::bind_as(port, Sharing::Alone)
    }

    /// Listens on one port with so many pairs of sockets, a power of two. The kernel gives each
    /// datagram to the pair whose shard gave out the receiver index in it.
    ///
    /// # Errors
    /// As [`UdpSockets::bind`].
    pub fn bind_group(port: u16, count: u16) -> Result<Vec<Self>, SocketError> {
        // Sockets that may share a port would share it with another daemon's, too.
        let alone = Self::bind(port)?;
        if count == 1 {
            return Ok(vec![alone]);
        }
        let port = alone.port();
        drop(alone);
        let group = (0..count)
            .map(|_| Self::bind_as(port, Sharing::Shared))
            .collect::<Result<Vec<_>, _>>()?;
        for queue in group[..1].iter().flat_map(Self::descriptors) {
            if let Err(error) = steer_by_receiver_index(queue, count) {
                tracing::warn!(%error, "the kernel cannot steer datagrams to their packet threads; each is handed over");
            }
        }
        Ok(group)
    }

    fn bind_as(port: u16, sharing: Sharing) -> Result<Self, SocketError> {
        let failed = |source| SocketError { port, source };
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let v4 = UdpQueue::bind(any, sharing).map_err(failed)?;
        let port = v4.socket.local_addr().map_err(failed)?.port();
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let v6 = match UdpQueue::bind(any, sharing) {
            Ok(queue) => Some(queue),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(failed(error)),
            Err(error) => {
                tracing::info!(%error, "no IPv6 underlay on this machine");
                None
            }
        };
        Ok(Self { v4, v6, port })
    }

    /// Takes over the sockets of a shard of another daemon, which go on as they were bound.
    ///
    /// # Errors
    /// They are no UDP sockets.
    pub(crate) fn take_over(v4: OwnedFd, v6: Option<OwnedFd>) -> io::Result<Self> {
        let v4 = UdpQueue::new(v4.into())?;
        let v6 = v6.map(|socket| UdpQueue::new(socket.into())).transpose()?;
        let port = v4.socket.local_addr()?.port();
        Ok(Self { v4, v6, port })
    }

    /// Returns the sockets once more, IPv4's first.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn share(&self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let share = |queue: &UdpQueue| queue.socket.as_fd().try_clone_to_owned();
        Ok((share(&self.v4)?, self.v6.as_ref().map(share).transpose()?))
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what each socket drops.
    pub(crate) fn drops(&self) -> impl Iterator<Item = Arc<SocketDrops>> {
        let queues = std::iter::once(&self.v4).chain(&self.v6);
        queues.map(|queue| Arc::clone(queue.admission.drops()))
    }

    /// Returns when to look whether a flood goes on, also if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let queues = std::iter::once(&self.v4).chain(&self.v6);
        queues.filter_map(|queue| queue.admission.deadline()).min()
    }

    /// Looks whether there is a flood, or it goes on, when it is time; only for whoever receives here.
    pub(super) fn look_when_due(&mut self, now: Instant, shard: &Shard) {
        let sessions = || {
            shard
                .receiver_indices()
                .map(as_filtered)
                .collect::<Vec<u32>>()
        };
        for queue in self.queues_mut() {
            let socket = queue.socket.as_fd();
            queue.admission.look_when_due(socket, now, &sessions);
        }
    }

    /// Lets everybody in, because somebody else receives from here on, or did until now.
    pub(super) fn open(&mut self) {
        for queue in self.queues_mut() {
            queue.admission.open(queue.socket.as_fd());
        }
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
        let v6 = self.v6.as_ref().map(|queue| queue.socket.try_clone());
        Ok(UdpSender::new(self.v4.socket.try_clone()?, v6.transpose()?))
    }
}

impl UdpQueue {
    fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if sharing == Sharing::Shared {
            socket.set_reuse_port(true)?;
        }
        // Root may go past the administrator's bound; others get as much as it lets them.
        if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
            socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        }
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(&SockAddr::from(address))?;
        Self::new(socket.into())
    }

    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = prepare(&socket)?;
        // What another daemon was flooded with is no business of this one; nearly always there is none.
        let _ = unfilter(&socket);
        let is_v4 = socket.local_addr()?.is_ipv4();
        let drops = Arc::new(SocketDrops::from_here(&socket)?);
        Ok(Self {
            socket,
            state,
            memory: vec![0; ROOM_BYTES * BATCH_SIZE].into_boxed_slice(),
            admission: Admission::new(is_v4, drops),
        })
    }

    /// Returns whether it matters what [`UdpQueue::receive`] is told of each datagram.
    pub(super) fn is_watching(&self) -> bool {
        self.admission.is_watching()
    }

    /// Returns where the datagrams lie that were received last.
    pub(super) fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// As [`UdpQueue::memory`].
    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Receives what waits, at most as much as one system call gives, and hands out the datagrams
    /// one by one, also those that the kernel has joined. Returns whether more may wait.
    pub(super) fn receive(
        &mut self,
        mut handle: impl FnMut(Path, u8, &mut [u8]) -> Names,
    ) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let received = {
            let mut rooms = self.memory.chunks_exact_mut(ROOM_BYTES);
            let mut buffers: [_; BATCH_SIZE] = std::array::from_fn(|_| {
                let room = rooms.next().expect("as many as there are");
                IoSliceMut::new(&mut room[..DATAGRAM_BYTES_MAX])
            });
            match self
                .state
                .recv((&self.socket).into(), &mut buffers, &mut metas)
            {
                Ok(received) => received,
                // A full call may have been the last.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            }
        };
        self.admission
            .handle_received(received, received == BATCH_SIZE);
        let rooms = self.memory.chunks_exact_mut(ROOM_BYTES);
        for (room, meta) in rooms.zip(&metas[..received]) {
            hand_out(room, meta, &mut self.admission, &mut handle);
        }
        Ok(received == BATCH_SIZE)
    }
}

/// Hands out the datagrams of one message.
fn hand_out(
    room: &mut [u8],
    meta: &RecvMeta,
    admission: &mut Admission,
    handle: &mut impl FnMut(Path, u8, &mut [u8]) -> Names,
) {
    let path = Path {
        remote: canonical(meta.addr),
        source: meta.dst_ip.map(|address| address.to_canonical()),
    };
    let ecn = meta.ecn.map_or(0, |codepoint| codepoint as u8);
    let received = &mut room[..meta.len];
    // Nothing at all is a datagram, too.
    let stride = meta.stride.clamp(1, received.len().max(1));
    let count = received.len().div_ceil(stride).max(1);
    for number in 0..count {
        let end = received.len().min((number + 1) * stride);
        let datagram = &mut received[number * stride..end];
        if !admission.is_watching() {
            handle(path, ecn, datagram);
            continue;
        }
        let (named, bytes) = (receiver_index_of_data(datagram), datagram.len());
        let session = match handle(path, ecn, datagram) {
            Names::Session => named,
            Names::Nobody => None,
        };
        admission.charge(session, path.remote, bytes);
    }
}

/// As the filter of [`Admission`] sees it: four bytes in network order.
fn receiver_index_of_data(datagram: &[u8]) -> Option<u32> {
    let [4, 0, 0, 0, index @ ..] = datagram.first_chunk::<8>()? else {
        return None;
    };
    Some(u32::from_be_bytes(*index))
}

/// A receiver index, which is in little-endian order on the wire (whitepaper 5.4), as the filter of
/// [`Admission`] sees it.
fn as_filtered(index: u32) -> u32 {
    u32::from_be_bytes(index.to_le_bytes())
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

#[cfg(test)]
mod tests {
    use super::super::udp_sender::single;
    use super::*;
    use crate::linux::send_runs::join_nothing;

    #[test]
    fn datagrams_arrive_with_the_address_they_came_from() {
        let mut sockets = UdpSockets::bind(0).unwrap();
        let sender = UdpSockets::bind(0).unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
        let sent = single(to, None, b"hello");
        let mut out = sender.sender().unwrap();
        assert_eq!(out.send_all([sent].into_iter()).failed, 0);
        let mut polled = [rustix::event::PollFd::new(
            &sockets.v4.socket,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut polled, None).unwrap();
        let mut seen = Vec::new();
        sockets
            .v4
            .receive(|path, _, datagram| {
                seen.push((path.remote.port(), datagram.to_vec()));
                Names::Nobody
            })
            .unwrap();
        assert_eq!(seen, [(sender.port(), b"hello".to_vec())]);
        sockets
            .v4
            .receive(|_, _, _| panic!("nothing more was sent"))
            .unwrap();
    }

    #[test]
    fn datagrams_may_be_fragmented() {
        let sockets = UdpSockets::bind(0).unwrap();
        let v4 = sockopt::ip_mtu_discover(&sockets.v4.socket).unwrap();
        assert_eq!(v4, Ipv4PathMtuDiscovery::DONT);
        let v6 = sockopt::ipv6_mtu_discover(&sockets.v6.unwrap().socket).unwrap();
        assert_eq!(v6, Ipv6PathMtuDiscovery::DONT);
    }

    #[test]
    fn a_burst_is_received_at_once_and_in_order() {
        let mut sockets = UdpSockets::bind(0).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = (Ipv4Addr::LOCALHOST, sockets.port());
        let sent: Vec<Vec<u8>> = (0..20).map(|number| vec![number; 900]).collect();
        for datagram in &sent {
            sender.send_to(datagram, to).unwrap();
        }
        let mut seen = Vec::new();
        sockets
            .v4
            .receive(|_, _, datagram| {
                seen.push(datagram.to_vec());
                Names::Nobody
            })
            .unwrap();
        assert_eq!(seen, sent);
    }

    /// Receives so many datagrams, each with the port that it came from.
    fn received(queue: &mut UdpQueue, count: usize) -> Vec<(u16, Vec<u8>)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let mut polled = [rustix::event::PollFd::new(
                &queue.socket,
                rustix::event::PollFlags::IN,
            )];
            rustix::event::poll(&mut polled, None).unwrap();
            queue
                .receive(|path, _, datagram| {
                    seen.push((path.remote.port(), datagram.to_vec()));
                    Names::Nobody
                })
                .unwrap();
        }
        seen
    }

    #[test]
    fn runs_of_mixed_sizes_from_mixed_senders_come_apart_as_they_were() {
        let mut sockets = UdpSockets::bind(0).unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
        let senders: Vec<UdpSockets> = (0..3).map(|_| UdpSockets::bind(0).unwrap()).collect();
        let mut sent: Vec<Vec<Vec<u8>>> = vec![Vec::new(); senders.len()];
        for round in 0..4u8 {
            for (number, sender) in senders.iter().enumerate() {
                // Runs whose last is shorter or as long, one as large as they get, and single ones.
                for (size, bytes) in [
                    (700, 2000),
                    (700, 2100),
                    (1400, 64_400),
                    (9, 9),
                    (1200, 1200),
                ] {
                    let bytes: Vec<u8> = (0..bytes).map(|at| (at / size) as u8 ^ round).collect();
                    let run = crate::linux::send_runs::Run {
                        segment_size: (bytes.len() > size).then_some(size as u16),
                        ..single(to, None, &bytes)
                    };
                    let out = sender.sender().unwrap().send_all([run].into_iter());
                    assert_eq!(out.failed, 0);
                    sent[number].extend(bytes.chunks(size).map(<[u8]>::to_vec));
                }
            }
            let count = sent.iter().map(Vec::len).sum();
            let seen = received(&mut sockets.v4, count);
            assert_eq!(seen.len(), count);
            for (sender, sent) in senders.iter().zip(&mut sent) {
                let of_sender = seen.iter().filter(|(port, _)| *port == sender.port());
                assert!(of_sender.map(|(_, datagram)| datagram).eq(sent.iter()));
                sent.clear();
            }
        }
    }

    #[test]
    fn a_kernel_that_joins_nothing_gives_the_same_datagrams() {
        let mut sockets = UdpSockets::bind(0).unwrap();
        let sender = UdpSockets::bind(0).unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
        let bytes: Vec<u8> = (0..46 * 1400).map(|at| (at / 1400) as u8).collect();
        let run = crate::linux::send_runs::Run {
            segment_size: Some(1400),
            ..single(to, None, &bytes)
        };
        for is_joined in [true, false] {
            if !is_joined {
                join_nothing(&sockets.v4.socket).unwrap();
            }
            let out = sender.sender().unwrap().send_all([run].into_iter());
            assert_eq!(out.failed, 0);
            let seen = received(&mut sockets.v4, 1);
            // One call gives a whole run, or as many messages as it has room for.
            assert_eq!(seen.len(), if is_joined { 46 } else { BATCH_SIZE });
            let rest = received(&mut sockets.v4, 46 - seen.len());
            let seen = seen.iter().chain(&rest).map(|(_, datagram)| &datagram[..]);
            assert!(seen.eq(bytes.chunks(1400)), "joined: {is_joined}");
        }
    }

    #[test]
    fn empty_datagrams_and_the_largest_ones_are_datagrams() {
        let mut sockets = UdpSockets::bind(0).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // The largest that IPv4 carries: 65535 bytes less its header and UDP's.
        let sent = [vec![], vec![1; 65_507], vec![], vec![], vec![2]];
        for datagram in &sent {
            let to = (Ipv4Addr::LOCALHOST, sockets.port());
            assert_eq!(sender.send_to(datagram, to).unwrap(), datagram.len());
        }
        let seen = received(&mut sockets.v4, sent.len());
        assert!(seen.iter().map(|(_, datagram)| datagram).eq(&sent));
    }

    #[test]
    fn a_session_is_named_as_the_filter_sees_it() {
        let data = |kind| [kind, 0, 0, 0, 1, 2, 3, 4, 9];
        assert_eq!(receiver_index_of_data(&data(4)), Some(0x0102_0304));
        assert_eq!(as_filtered(0x0403_0201), 0x0102_0304);
        assert_eq!(receiver_index_of_data(&data(1)), None);
        assert_eq!(receiver_index_of_data(&data(4)[..7]), None);
        assert_eq!(receiver_index_of_data(&[4, 0, 0, 1, 1, 2, 3, 4]), None);
    }

    #[test]
    fn each_datagram_comes_to_the_socket_of_the_shard_that_it_names() {
        const COUNT: u8 = 4;
        let mut group = UdpSockets::bind_group(0, COUNT.into()).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), group[0].port());
        let named = |kind: u8, at: usize, index: u8| {
            let mut datagram = vec![0; 64];
            datagram[0] = kind;
            datagram[at..at + 4].copy_from_slice(&[index, 7, 7, 7]);
            (datagram, index % COUNT)
        };
        let data = (0..16).map(|index| named(4, 4, index));
        let responses = (0..16).map(|index| named(2, 8, index));
        let cookies = (0..16).map(|index| named(3, 4, index));
        let initiations = (0..4).map(|index| (named(1, 4, index).0, 0));
        let others = [(vec![4, 0, 0], 0), (vec![9; 40], 0)];
        let all = data.chain(responses).chain(cookies).chain(initiations);
        for (datagram, expected) in all.chain(others) {
            sender.send_to(&datagram, to).unwrap();
            let socket = &mut group[usize::from(expected)].v4;
            let mut polled = [rustix::event::PollFd::new(
                &socket.socket,
                rustix::event::PollFlags::IN,
            )];
            let patience = rustix::event::Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            let ready = rustix::event::poll(&mut polled, Some(&patience)).unwrap();
            assert_eq!(ready, 1, "{datagram:?} did not come to {expected}");
            socket
                .receive(|_, _, received| {
                    assert_eq!(received, datagram);
                    Names::Nobody
                })
                .unwrap();
        }
    }

    #[test]
    fn a_group_takes_no_port_of_another_daemon() {
        let first = UdpSockets::bind_group(0, 2).unwrap();
        assert!(UdpSockets::bind_group(first[0].port(), 2).is_err());
    }

    #[test]
    fn a_taken_port_says_what_to_try() {
        let first = UdpSockets::bind(0).unwrap();
        let message = UdpSockets::bind(first.port()).unwrap_err().to_string();
        assert!(message.contains("--listen-port"), "{message}");
    }
}
