//! The sending side of the UDP sockets: runs of datagrams, and what is done when the kernel does not
//! take one.

use std::io;
use std::net::UdpSocket;
use std::time::Instant;

use super::dead_source::DeadSource;
use super::refused_runs::RefusedRuns;
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
    dead: DeadSource,
    refused: RefusedRuns,
}

impl UdpSender {
    pub(super) fn new(v4: UdpSocket, v6: Option<UdpSocket>) -> Self {
        Self {
            v4: SendHalf::new(v4),
            v6: v6.map(SendHalf::new),
        }
    }

    /// Sends runs, those of one address family in their order, and returns how many datagrams the
    /// kernel did not take: no route, no buffer, no socket of their family.
    pub(super) fn send_all<'a>(&mut self, runs: impl Iterator<Item = Run<'a>> + Clone) -> usize {
        let of_v4 = runs.clone().filter(|run| run.to.is_ipv4());
        let of_v6 = runs.filter(|run| run.to.is_ipv6());
        let failed = match &mut self.v6 {
            Some(half) => half.send_all(of_v6),
            None => of_v6.map(|run| run.datagrams()).sum(),
        };
        failed + self.v4.send_all(of_v4)
    }
}

impl SendHalf {
    fn new(socket: UdpSocket) -> Self {
        Self {
            socket,
            dead: DeadSource::default(),
            refused: RefusedRuns::default(),
        }
    }

    fn send_all<'a>(&mut self, mut runs: impl Iterator<Item = Run<'a>>) -> usize {
        let mut failed = 0;
        let Some(first) = runs.next() else {
            return failed;
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
                failed += self.send_chunk(&mut chunk[..waiting]);
                waiting = 0;
            }
            if next.is_none() {
                return failed;
            }
        }
    }

    fn send_chunk(&mut self, mut runs: &mut [Run<'_>]) -> usize {
        let mut failed = 0;
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
            let done = match good {
                0 => {
                    failed += self.send_singly(first);
                    1
                }
                good => match send_runs(&self.socket, &runs[..good]) {
                    Ok(sent) => sent,
                    Err(error) => {
                        failed += self.send_otherwise(first, &error);
                        1
                    }
                },
            };
            runs = &mut runs[done..];
        }
        failed
    }

    /// Tries what may help against the kernel's refusal.
    fn send_otherwise(&mut self, run: Run<'_>, error: &io::Error) -> usize {
        if run.segment_size.is_none() {
            return self.send_from_elsewhere(run, error);
        }
        match error.raw_os_error() {
            // No card on the way can finish what the kernel would cut (udp(7)).
            Some(libc::EIO) => self.refused.handle_refused(&run, true, Instant::now()),
            // Among others: larger than the path takes unless it is cut into fragments.
            Some(libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP) => {
                let failed = self.send_singly(run);
                // A source that is gone is refused in the same words, and that has shown now.
                if self.dead.unless_dead(run.source, Instant::now) == run.source {
                    self.refused.handle_refused(&run, false, Instant::now());
                }
                return failed;
            }
            _ if is_about_source(error) => {}
            _ => return run.datagrams(),
        }
        self.send_singly(run)
    }

    /// Sends one datagram from another address, when it is the source that the kernel refused: the
    /// host has moved, and the address is not its own any more. The kernel chooses another; the
    /// peer's answer tells the shard which.
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
    fn send_singly(&mut self, run: Run<'_>) -> usize {
        let size = run.segment_size.map_or(run.bytes.len(), usize::from);
        let mut failed = 0;
        for bytes in run.bytes.chunks(size) {
            let single = Run {
                segment_size: None,
                source: self.dead.unless_dead(run.source, Instant::now),
                bytes,
                ..run
            };
            if let Err(error) = send_runs(&self.socket, &[single]) {
                failed += self.send_from_elsewhere(single, &error);
            }
        }
        failed
    }
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
pub(super) fn single(
    to: std::net::SocketAddr,
    source: Option<std::net::IpAddr>,
    bytes: &[u8],
) -> Run<'_> {
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
            assert_eq!(sender.send_all([run].into_iter()), 0);
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
        assert_eq!(sender.send_all(runs), 0);
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
        assert_eq!(sender.send_all([nowhere, refused, good].into_iter()), 4);
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
        assert_eq!(sender.send_all([run, after].into_iter()), 0);
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
        assert_eq!(sender.v4.send_otherwise(run, &refusal), 0);
        assert!(!sender.v4.refused.takes(&run, Instant::now));
        let mut memory = vec![0; 20_000];
        for _ in 0..2 {
            let (length, from) = receiver.recv_from(&mut memory).unwrap();
            assert_eq!((length, Some(from.ip())), (20_000, own));
        }
    }
}
