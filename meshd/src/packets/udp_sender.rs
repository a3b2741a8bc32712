//! The sending side of the UDP sockets: runs of datagrams, and what is done when the kernel does not
//! take one.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::dead_source::DeadSource;
use super::refused_runs::RefusedRuns;
use super::unfragmented::send_unfragmented;
use crate::linux::send_runs::{RUNS_MAX, Run, send_runs};

/// A second handle of the sockets, while receiving borrows the first.
#[derive(Debug)]
pub(super) struct UdpSender {
    v4: SendHalf,
    v6: Option<SendHalf>,
}

/// One address family.
#[derive(Debug)]
struct SendHalf {
    socket: UdpSocket,
    /// The last destination whose datagrams were refused for their size, as it seems.
    too_big: Option<SocketAddr>,
    dead: DeadSource,
    refused: RefusedRuns,
    refusals: u64,
}

/// How far the kernel took runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Those that are over, one way or the other.
    pub(super) runs: usize,
    /// Bytes of the next one that are over, too.
    pub(super) bytes: usize,
    /// Datagrams that it did not take: no route, no socket of their family.
    pub(super) failed: usize,
    /// The socket's buffer is full: the others may be sent when it has room again.
    pub(super) is_stalled: bool,
}

impl UdpSender {
    pub(super) fn new(v4: UdpSocket, v6: Option<UdpSocket>) -> Self {
        Self {
            v4: SendHalf::new(v4),
            v6: v6.map(SendHalf::new),
        }
    }

    /// Sends runs of one address family in their order, as far as the socket's buffer has room.
    pub(super) fn send_all<'a>(&mut self, runs: impl Iterator<Item = Run<'a>>) -> Sent {
        let mut runs = runs.peekable();
        let is_v4 = runs.peek().is_none_or(|run| run.to.is_ipv4());
        let half = if is_v4 {
            Some(&mut self.v4)
        } else {
            self.v6.as_mut()
        };
        let Some(half) = half else {
            return runs.fold(Sent::default(), |sent, run| Sent {
                runs: sent.runs + 1,
                failed: sent.failed + run.datagrams(),
                ..sent
            });
        };
        half.send_all(runs)
    }

    /// Waits until one of these sockets has room, and returns which do; IPv4's is the first.
    pub(super) fn wait_for_room(&self, sockets: [bool; 2], at_most: Duration) -> [bool; 2] {
        let timeout = Timespec::try_from(at_most).expect("nobody waits for long");
        let halves = [Some(&self.v4), self.v6.as_ref()];
        let asked: Vec<(usize, &SendHalf)> = (0..2)
            .filter(|family| sockets[*family])
            .filter_map(|family| Some((family, halves[family]?)))
            .collect();
        let mut polled: Vec<PollFd<'_>> = asked
            .iter()
            .map(|(_, half)| PollFd::new(&half.socket, PollFlags::OUT))
            .collect();
        let mut room = [false; 2];
        if rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout))).is_ok() {
            for ((family, _), polled) in asked.iter().zip(&polled) {
                // Also errors: sending tells them.
                room[*family] = !polled.revents().is_empty();
            }
        }
        room
    }

    #[cfg(test)]
    pub(super) fn v4_socket(&self) -> &UdpSocket {
        &self.v4.socket
    }

    /// Returns how often the kernel refused a run, since this was asked last.
    pub(super) fn take_refusals(&mut self) -> u64 {
        let halves = std::iter::once(&mut self.v4).chain(&mut self.v6);
        halves.map(|half| std::mem::take(&mut half.refusals)).sum()
    }
}

/// Sizes.
impl UdpSender {
    /// Sends one datagram that nobody may cut; without a socket of its family, it is as if lost.
    pub(super) fn send_unfragmented(&mut self, run: Run<'_>) -> io::Result<()> {
        let half = match run.to.is_ipv4() {
            true => Some(&mut self.v4),
            false => self.v6.as_mut(),
        };
        half.map_or(Ok(()), |half| {
            let source = half.dead.unless_dead(run.source, Instant::now);
            send_unfragmented(&half.socket, Run { source, ..run })
        })
    }

    /// Returns where datagrams have become too large for, as it seems, since it was asked last.
    pub(super) fn take_too_big(&mut self) -> Option<SocketAddr> {
        let of_v6 = self.v6.as_mut().and_then(|half| half.too_big.take());
        of_v6.or_else(|| self.v4.too_big.take())
    }
}

impl SendHalf {
    fn new(socket: UdpSocket) -> Self {
        Self {
            socket,
            too_big: None,
            dead: DeadSource::default(),
            refused: RefusedRuns::default(),
            refusals: 0,
        }
    }

    fn send_all<'a>(&mut self, mut runs: impl Iterator<Item = Run<'a>>) -> Sent {
        let mut all = Sent::default();
        let Some(first) = runs.next() else {
            return all;
        };
        let mut chunk = [first; RUNS_MAX];
        let mut waiting = 1;
        loop {
            let next = runs.next();
            if let Some(run) = next {
                chunk[waiting] = run;
                waiting += 1;
            }
            if waiting == RUNS_MAX || (next.is_none() && waiting > 0) {
                all.add(self.send_chunk(&mut chunk[..waiting]));
                waiting = 0;
            }
            if next.is_none() || all.is_stalled {
                return all;
            }
        }
    }

    fn send_chunk(&mut self, mut runs: &mut [Run<'_>]) -> Sent {
        let mut all = Sent::default();
        for run in &mut *runs {
            run.source = self.dead.unless_dead(run.source, Instant::now);
        }
        while let Some(first) = runs.first().copied() {
            let refused = &self.refused;
            let takes = |run: &Run<'_>| refused.takes(run, Instant::now);
            let good = runs
                .iter()
                .position(|run| !takes(run))
                .unwrap_or(runs.len());
            let sent = match good {
                0 => self.send_singly(first),
                good => match send_runs(&self.socket, &runs[..good]) {
                    Ok(sent) => {
                        self.refused.handle_taken(&runs[..sent]);
                        Sent::whole(sent, 0)
                    }
                    Err(error) if is_full(&error) => Sent::stalled(0, 0),
                    Err(error) => self.send_otherwise(first, &error),
                },
            };
            runs = &mut runs[sent.runs..];
            all.add(sent);
            if all.is_stalled {
                break;
            }
        }
        all
    }

    /// Tries what may help against the kernel's refusal.
    fn send_otherwise(&mut self, run: Run<'_>, error: &io::Error) -> Sent {
        if run.segment_size.is_none() {
            return Sent::whole(1, self.send_from_elsewhere(run, error));
        }
        match error.raw_os_error() {
            // No card on the way can finish what the kernel would cut (udp(7)).
            Some(libc::EIO) => self.handle_refused(&run, true),
            // Among others: larger than the path takes unless it is cut into fragments.
            Some(libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP) => {
                let sent = self.send_singly(run);
                // A source that is gone is refused in the same words, and that has shown now.
                if self.dead.unless_dead(run.source, Instant::now) == run.source {
                    self.handle_refused(&run, false);
                }
                return sent;
            }
            _ if is_about_source(error) => {}
            _ => return Sent::whole(1, run.datagrams()),
        }
        self.send_singly(run)
    }

    fn handle_refused(&mut self, run: &Run<'_>, whatever_size: bool) {
        self.refusals += 1;
        if !whatever_size {
            self.too_big = Some(run.to);
        }
        self.refused
            .handle_refused(run, whatever_size, Instant::now());
    }

    /// Sends one datagram from another address, when it is the source that the kernel refused: the
    /// host has moved, and the address is not its own any more. The kernel chooses another; the
    /// peer's answer tells the shard which. Returns how many failed.
    fn send_from_elsewhere(&mut self, mut run: Run<'_>, error: &io::Error) -> usize {
        if run.source.is_none() || !is_about_source(error) {
            return 1;
        }
        let refused = run.source.take();
        if send_runs(&self.socket, &[run]).is_err() {
            return 1;
        }
        self.dead.handle_refused(refused, Instant::now());
        0
    }

    /// Sends the datagrams of a run one by one.
    fn send_singly(&mut self, run: Run<'_>) -> Sent {
        let size = run.segment_size.map_or(run.bytes.len(), usize::from);
        let (mut failed, mut done) = (0, 0);
        for bytes in run.bytes.chunks(size) {
            let single = Run {
                segment_size: None,
                source: self.dead.unless_dead(run.source, Instant::now),
                bytes,
                ..run
            };
            match send_runs(&self.socket, &[single]) {
                Ok(_) => {}
                Err(error) if is_full(&error) => return Sent::stalled(done, failed),
                Err(error) => failed += self.send_from_elsewhere(single, &error),
            }
            done += bytes.len();
        }
        Sent::whole(1, failed)
    }
}

impl Sent {
    fn whole(runs: usize, failed: usize) -> Self {
        Self {
            runs,
            failed,
            ..Self::default()
        }
    }

    fn stalled(bytes: usize, failed: usize) -> Self {
        Self {
            bytes,
            failed,
            is_stalled: true,
            ..Self::default()
        }
    }

    /// Adds what came next.
    fn add(&mut self, next: Self) {
        self.runs += next.runs;
        self.bytes = next.bytes;
        self.failed += next.failed;
        self.is_stalled = next.is_stalled;
    }
}

/// What Linux says when more is under way than the socket's buffer may hold.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Run<'_> {
    fn datagrams(&self) -> usize {
        self.segment_size
            .map_or(1, |size| self.bytes.len().div_ceil(usize::from(size)))
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

/// Returns one datagram as a run.
#[cfg(test)]
pub(super) fn single(to: SocketAddr, source: Option<std::net::IpAddr>, bytes: &[u8]) -> Run<'_> {
    Run {
        to,
        source,
        ecn: 0,
        segment_size: None,
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    fn pair(loopback: IpAddr) -> (UdpSocket, UdpSender) {
        let receiver = UdpSocket::bind((loopback, 0)).unwrap();
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).ok();
        (receiver, UdpSender::new(v4, v6))
    }

    fn received(receiver: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut memory = [0; 2000];
        let mut one = || {
            let length = receiver.recv(&mut memory).unwrap();
            memory[..length].to_vec()
        };
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn a_source_address_that_is_gone_does_not_silence_the_host() {
        for (loopback, gone) in [
            (IpAddr::from(Ipv4Addr::LOCALHOST), "192.0.2.1"),
            (IpAddr::from(Ipv6Addr::LOCALHOST), "2001:db8::1"),
        ] {
            let (receiver, mut sender) = pair(loopback);
            let gone = gone.parse().ok();
            let run = Run {
                segment_size: Some(3),
                ..single(receiver.local_addr().unwrap(), gone, b"abcde")
            };
            assert_eq!(sender.send_all([run].into_iter()), Sent::whole(1, 0));
            assert_eq!(received(&receiver, 2), [&b"abc"[..], b"de"]);
            let half = match loopback {
                IpAddr::V4(_) => &sender.v4,
                IpAddr::V6(_) => sender.v6.as_ref().unwrap(),
            };
            let again = half.dead.unless_dead(gone, Instant::now);
            assert_eq!(again, None, "the next packet does not try");
            assert!(half.refused.takes(&run, Instant::now), "it was not the run");
        }
    }

    #[test]
    fn more_runs_than_one_call_takes_all_arrive_in_order() {
        let (receiver, mut sender) = pair(Ipv4Addr::LOCALHOST.into());
        let to = receiver.local_addr().unwrap();
        let contents: Vec<[u8; 1]> = (0..40).map(|number| [number]).collect();
        let runs = contents.iter().map(|bytes| single(to, None, bytes));
        assert_eq!(sender.send_all(runs), Sent::whole(40, 0));
        assert_eq!(received(&receiver, 40), contents);
    }

    #[test]
    fn what_no_socket_takes_is_counted_and_holds_nothing_up() {
        let (receiver, mut sender) = pair(Ipv4Addr::LOCALHOST.into());
        sender.v6 = None;
        let to = receiver.local_addr().unwrap();
        let nowhere = Run {
            segment_size: Some(1),
            ..single("[2001:db8::1]:9".parse().unwrap(), None, b"abc")
        };
        // Nobody may send there without SO_BROADCAST.
        let refused = single("255.255.255.255:9".parse().unwrap(), None, b"x");
        let good = single(to, None, b"good");
        assert_eq!(sender.send_all([nowhere].into_iter()), Sent::whole(1, 3));
        let sent = sender.send_all([refused, good].into_iter());
        assert_eq!(sent, Sent::whole(2, 1));
        assert_eq!(received(&receiver, 1), [b"good"]);
    }

    #[test]
    fn a_destination_that_takes_no_runs_gets_each_datagram() {
        let (receiver, mut sender) = pair(Ipv4Addr::LOCALHOST.into());
        let run = Run {
            segment_size: Some(2),
            ..single(receiver.local_addr().unwrap(), None, b"aabbc")
        };
        let now = Instant::now();
        sender.v4.refused.handle_refused(&run, true, now);
        let after = single(run.to, None, b"after");
        let sent = sender.send_all([run, after].into_iter());
        assert_eq!(sent, Sent::whole(2, 0));
        assert_eq!(received(&receiver, 4), [&b"aa"[..], b"bb", b"c", b"after"]);
    }

    #[test]
    fn a_run_that_is_refused_keeps_its_source() {
        let (receiver, mut sender) = pair(Ipv4Addr::LOCALHOST.into());
        let own = "127.0.0.7".parse().ok();
        // Larger than any path takes at once: the loopback device's MTU is 65536.
        let bytes = vec![7; 40_000];
        let run = Run {
            segment_size: Some(20_000),
            ..single(receiver.local_addr().unwrap(), own, &bytes)
        };
        let refusal = io::Error::from_raw_os_error(libc::EINVAL);
        let sent = sender.v4.send_otherwise(run, &refusal);
        assert_eq!((sent, sender.take_refusals()), (Sent::whole(1, 0), 1));
        assert!(!sender.v4.refused.takes(&run, Instant::now));
        let mut memory = vec![0; 20_000];
        for _ in 0..2 {
            let (length, from) = receiver.recv_from(&mut memory).unwrap();
            assert_eq!((length, Some(from.ip())), (20_000, own));
        }
    }
}
