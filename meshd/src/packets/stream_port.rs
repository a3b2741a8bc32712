//! QUIC on the port of the tunnels: what packet threads bring to the threads of the proxy, over bounded
//! queues that lose what does not fit. Whether a datagram is QUIC's is for `proxy` to say.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use dataplane::{DropReason, Path, Shift};
use futures_util::task::AtomicWaker;
use model::time::Instant;
use proxy::{Addressee, DatagramPort};

use super::stream_socket::StreamSocket;
use super::udp_sender::UdpSender;
use super::udp_socket::UdpSockets;

/// Datagrams that may wait for one proxy thread: 3 MB.
const WAITING_MAX: usize = 2048;
/// Bytes of a datagram. What QUIC says it takes is 1472 of them.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1472;
/// What one packet thread passes on each second; what is above is a flood.
const DATAGRAMS_PER_SECOND: u32 = 250_000;
/// The same of those that may begin a connection: what a proxy thread can answer.
const FIRSTS_PER_SECOND: u32 = 2_000;
/// Datagrams that pass at once when there were few before.
const BURST: u32 = 2_000;

/// What the packet threads and the proxy know of each other.
#[derive(Debug)]
pub(crate) struct StreamPort {
    /// By proxy thread. Empty as long as there is no proxy.
    inboxes: ArcSwap<Vec<Option<Arc<Inbox>>>>,
    v4: OwnedFd,
    v6: Option<OwnedFd>,
    port: u16,
    shift: Shift,
}

/// The way to one proxy thread.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: SyncSender<Received>,
    waiting: AtomicUsize,
    reader: AtomicWaker,
}

/// A datagram that waits.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) path: Path,
    pub(super) ecn: u8,
    pub(super) bytes: Vec<u8>,
}

impl StreamPort {
    /// Begins without a proxy. What the proxy sends goes out by these sockets.
    pub(super) fn new(sockets: &UdpSockets, shift: Shift) -> io::Result<Arc<Self>> {
        let (v4, v6) = sockets.share()?;
        Ok(Arc::new(Self {
            inboxes: ArcSwap::default(),
            v4,
            v6,
            port: sockets.port(),
            shift,
        }))
    }

    /// Returns what one of so many proxy threads sends and receives by, instead of whoever had its
    /// place before.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn open(&self, thread: usize, threads: usize) -> io::Result<DatagramPort> {
        let (inbox, queue) = Inbox::new();
        let socket = StreamSocket::new(self.sender()?, self.port, Arc::clone(&inbox), queue);
        self.inboxes.rcu(|inboxes| {
            let mut inboxes = Vec::clone(inboxes);
            inboxes.resize(threads, None);
            inboxes[thread] = Some(Arc::clone(&inbox));
            inboxes
        });
        Ok(DatagramPort {
            socket: Arc::new(socket),
            is_second: self.shift == Shift::Second,
        })
    }

    fn sender(&self) -> io::Result<UdpSender> {
        let share = |socket: &OwnedFd| Ok::<_, io::Error>(UdpSocket::from(socket.try_clone()?));
        let v6 = self.v6.as_ref().map(share).transpose()?;
        Ok(UdpSender::new(share(&self.v4)?, v6))
    }
}

impl Inbox {
    fn new() -> (Arc<Self>, Receiver<Received>) {
        let (queue, receiver) = sync_channel(WAITING_MAX);
        let inbox = Self {
            queue,
            waiting: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
        };
        (Arc::new(inbox), receiver)
    }

    /// Returns whether there was room; `None`: nobody reads here any more.
    fn give(&self, path: Path, ecn: u8, datagram: &[u8]) -> Option<bool> {
        // Asked before anything is copied: what is refused should cost little.
        if self.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return Some(false);
        }
        let received = Received {
            path,
            ecn,
            bytes: datagram.to_vec(),
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let given = self.queue.try_send(received);
        if let Err(error) = given {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let is_full = matches!(error, std::sync::mpsc::TrySendError::Full(_));
            return is_full.then_some(false);
        }
        self.reader.wake();
        Some(true)
    }

    /// Takes one that waits.
    pub(super) fn take(&self, queue: &Receiver<Received>) -> Option<Received> {
        let received = queue.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(received)
    }

    /// Who is woken when something comes.
    pub(super) const fn reader(&self) -> &AtomicWaker {
        &self.reader
    }
}

/// One packet thread's way to the proxy.
pub(super) struct StreamGate {
    port: Arc<StreamPort>,
    datagrams: Allowance,
    firsts: Allowance,
}

impl StreamGate {
    pub(super) fn new(port: Arc<StreamPort>, now: Instant) -> Self {
        Self {
            port,
            datagrams: Allowance::new(DATAGRAMS_PER_SECOND, now),
            firsts: Allowance::new(FIRSTS_PER_SECOND, now),
        }
    }

    /// Returns whether a datagram belongs to a connection of the daemon that had this port before,
    /// or comes after.
    pub(super) fn is_others(&self, addressee: Addressee) -> bool {
        let is_second = self.port.shift == Shift::Second;
        addressee
            .is_of_second()
            .is_some_and(|of_second| of_second != is_second)
    }

    /// Passes a datagram on, and returns what came of it; `None`: there is nobody whom it is for.
    pub(super) fn give(
        &mut self,
        addressee: Addressee,
        path: Path,
        ecn: u8,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Result<(), DropReason>> {
        let inboxes = self.port.inboxes.load();
        if inboxes.is_empty() || datagram.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        let inbox = inboxes[addressee.thread(inboxes.len())].as_ref()?;
        let is_within = self.datagrams.take(now) && (!addressee.begins() || self.firsts.take(now));
        let has_room = is_within && inbox.give(path, ecn, datagram)?;
        Some(match has_room {
            true => Ok(()),
            false => Err(DropReason::StreamsFull),
        })
    }
}

/// So many each second, and a few at once.
struct Allowance {
    per_second: u32,
    left: u32,
    filled_at: Instant,
}

impl Allowance {
    const fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second,
            left: BURST,
            filled_at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let has_any = self.left > 0;
        self.left -= u32::from(has_any);
        has_any
    }

    fn fill(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / self.per_second;
        let since = now.saturating_since(self.filled_at);
        let more = since.as_nanos() / each.as_nanos();
        if more == 0 {
            return;
        }
        let room = BURST - self.left;
        match u32::try_from(more) {
            Ok(more) if more < room => {
                self.left += more;
                self.filled_at += each * more;
            }
            _ => {
                self.left = BURST;
                self.filled_at = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path {
            remote: "192.0.2.1:51820".parse().unwrap(),
            source: None,
        }
    }

    /// Of a connection that stands, or one that may begin.
    fn datagram(begins: bool) -> Vec<u8> {
        match begins {
            false => vec![0x40; 60],
            true => {
                let mut first = vec![0xc0, 0, 0, 0, 1, 8];
                first.resize(1200, 0);
                first
            }
        }
    }

    fn gate(shift: Shift) -> (Arc<StreamPort>, StreamGate, Instant) {
        let sockets = UdpSockets::bind(0).unwrap();
        let port = StreamPort::new(&sockets, shift).unwrap();
        let now = Instant::from_start(Duration::from_secs(1));
        (Arc::clone(&port), StreamGate::new(port, now), now)
    }

    fn give(gate: &mut StreamGate, bytes: &[u8], now: Instant) -> Option<Result<(), DropReason>> {
        let addressee = Addressee::of(bytes).unwrap();
        gate.give(addressee, path(), 0, bytes, now)
    }

    #[test]
    fn who_has_no_proxy_passes_nothing_on() {
        let (port, mut gate, now) = gate(Shift::First);
        assert_eq!(give(&mut gate, &datagram(false), now), None);
        let open = port.open(0, 1).unwrap();
        assert_eq!(give(&mut gate, &datagram(false), now), Some(Ok(())));
        let large = vec![0x40; DATAGRAM_BYTES_MAX + 1];
        assert_eq!(give(&mut gate, &large, now), None);
        drop(open);
        assert_eq!(give(&mut gate, &datagram(false), now), None);
    }

    #[test]
    fn each_proxy_thread_gets_its_own() {
        let (port, mut gate, now) = gate(Shift::First);
        let _second = port.open(1, 2).unwrap();
        let (mut of_first, mut of_second) = (datagram(false), datagram(false));
        of_first[1] = 2;
        of_second[1] = 3;
        assert_eq!(give(&mut gate, &of_first, now), None, "it is not there");
        assert_eq!(give(&mut gate, &of_second, now), Some(Ok(())));
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (port, mut gate, mut now) = gate(Shift::First);
        let _open = port.open(0, 1).unwrap();
        for _ in 0..WAITING_MAX {
            now += Duration::from_millis(1);
            assert_eq!(give(&mut gate, &datagram(false), now), Some(Ok(())));
        }
        now += Duration::from_millis(1);
        let full = Some(Err(DropReason::StreamsFull));
        assert_eq!(give(&mut gate, &datagram(false), now), full);
    }

    #[test]
    fn an_allowance_is_used_up_and_comes_back_in_time() {
        let mut now = Instant::from_start(Duration::from_secs(1));
        let mut allowance = Allowance::new(FIRSTS_PER_SECOND, now);
        let taken =
            |allowance: &mut Allowance, now| (0..10_000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, now), BURST as usize);
        now += Duration::from_millis(10);
        assert_eq!(taken(&mut allowance, now), 20);
        now += Duration::from_secs(3600);
        assert_eq!(taken(&mut allowance, now), BURST as usize);
        let mut total = 0;
        for _ in 0..10_000 {
            now += Duration::from_micros(100);
            total += usize::from(allowance.take(now));
        }
        assert_eq!(total, FIRSTS_PER_SECOND as usize);
    }

    #[test]
    fn connections_of_the_other_daemon_are_told_apart() {
        for (shift, is_others) in [
            (Shift::First, [false, true]),
            (Shift::Second, [true, false]),
        ] {
            let (_, gate, _) = gate(shift);
            for (first_of_id, is_others) in [0x01, 0x81].into_iter().zip(is_others) {
                let mut bytes = datagram(false);
                bytes[1] = first_of_id;
                assert_eq!(gate.is_others(Addressee::of(&bytes).unwrap()), is_others);
                // A server's first answer to whoever of the two has begun.
                let mut bytes = datagram(true);
                bytes[6] = first_of_id;
                assert_eq!(gate.is_others(Addressee::of(&bytes).unwrap()), is_others);
                bytes[5] = 20;
                assert!(!gate.is_others(Addressee::of(&bytes).unwrap()), "anybody's");
            }
        }
    }
}
