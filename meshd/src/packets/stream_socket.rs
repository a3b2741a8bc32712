//! One proxy thread's socket for QUIC: it receives what the packet threads bring, and sends by their
//! sockets.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Sleep, sleep};

use super::stream_port::{Inbox, Received};
use super::udp_sender::UdpSender;
use crate::linux::send_runs::Run;

/// Datagrams that are sent together at most; whoever sends never has more.
const RUN_DATAGRAMS_MAX: usize = 16;
/// How long it is waited when the sockets' buffers, which are the tunnels', are full. To be told of
/// room by the kernel would mean to be told of each datagram that comes, too.
const ROOM_AFTER: Duration = Duration::from_millis(1);

/// The locks are for the signatures alone: everything here is done by one thread.
#[derive(Debug)]
pub(super) struct StreamSocket {
    inbox: Arc<Inbox>,
    queue: Mutex<Receiver<Received>>,
    sender: Mutex<UdpSender>,
    /// A buffer was full, and nobody has waited since.
    is_full: AtomicBool,
    port: u16,
}

impl StreamSocket {
    pub(super) fn new(
        sender: UdpSender,
        port: u16,
        inbox: Arc<Inbox>,
        queue: Receiver<Received>,
    ) -> Self {
        Self {
            inbox,
            queue: Mutex::new(queue),
            sender: Mutex::new(sender),
            is_full: AtomicBool::new(false),
            port,
        }
    }

    /// Returns how many came.
    fn take(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let queue = locked(&self.queue);
        let rooms = buffers.iter_mut().zip(metas);
        let mut count = 0;
        for (buffer, meta) in rooms {
            let Some(received) = self.inbox.take(&queue) else {
                break;
            };
            let length = received.bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&received.bytes[..length]);
            *meta = RecvMeta {
                addr: mapped(received.path.remote),
                len: length,
                stride: length,
                ecn: EcnCodepoint::from_bits(received.ecn),
                dst_ip: received.path.source,
            };
            count += 1;
        }
        count
    }
}

impl AsyncUdpSocket for StreamSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ip = transmit.destination.ip().to_canonical();
        let segment_size = transmit
            .segment_size
            .filter(|it| *it < transmit.contents.len());
        let run = Run {
            to: SocketAddr::new(ip, transmit.destination.port()),
            source: transmit.src_ip.map(|source| source.to_canonical()),
            ecn: transmit.ecn.map_or(0, |codepoint| codepoint as u8),
            segment_size: segment_size.and_then(|it| u16::try_from(it).ok()),
            bytes: transmit.contents,
        };
        let sent = locked(&self.sender).send_all(std::iter::once(run));
        if !sent.is_stalled {
            // What the kernel did not take at all is as if lost on the way.
            return Ok(());
        }
        self.is_full.store(true, Ordering::Relaxed);
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = self.take(buffers, metas);
        if count == 0 {
            self.inbox.reader().register(context.waker());
            // What came before that woke nobody.
            count = self.take(buffers, metas);
        }
        match count {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port))
    }

    fn max_transmit_segments(&self) -> usize {
        RUN_DATAGRAMS_MAX
    }

    /// The tunnels' datagrams may.
    fn may_fragment(&self) -> bool {
        true
    }
}

/// Waits while a buffer is full.
struct Room {
    socket: Arc<StreamSocket>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, waiting } = &mut *self;
        if waiting.is_none() && !socket.is_full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let under_way = waiting.get_or_insert_with(|| Box::pin(sleep(ROOM_AFTER)));
        ready!(under_way.as_mut().poll(context));
        *waiting = None;
        socket.is_full.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room(..)")
    }
}

/// As an IPv6 socket for both families says it, which this is to QUIC.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => address,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use dataplane::Shift;

    use super::super::stream_port::StreamPort;
    use super::super::udp_socket::UdpSockets;
    use super::*;

    #[test]
    fn datagrams_leave_from_the_tunnels_port() {
        let sockets = UdpSockets::bind(0).unwrap();
        let port = StreamPort::new(&sockets, Shift::First).unwrap();
        let open = port.open(0, 1).unwrap();
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let transmit = Transmit {
            destination: mapped(receiver.local_addr().unwrap()),
            ecn: None,
            contents: b"aabbc",
            segment_size: Some(2),
            src_ip: None,
        };
        open.socket.try_send(&transmit).unwrap();
        let mut memory = [0; 16];
        for expected in [&b"aa"[..], b"bb", b"c"] {
            let (length, from) = receiver.recv_from(&mut memory).unwrap();
            assert_eq!((&memory[..length], from.port()), (expected, sockets.port()));
        }
    }
}
