//! Datagrams that wait to be sent together: those of one size to one place as one run, all runs in
//! as few system calls as can be.

use dataplane::Path;

use super::udp_sender::{Sent, UdpSender};
use crate::linux::send_runs::Run;

/// Room for a few super-packets, sealed. More would only wait.
const MEMORY_BYTES: usize = 512 << 10;
/// Datagrams of a run (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes of a run: an IPv4 packet less its headers.
const RUN_BYTES_MAX: usize = 65507;

/// The datagrams, sealed.
pub(super) struct DatagramBatch {
    memory: Box<[u8]>,
    filled: usize,
    /// Those of IPv4, and of IPv6: each family has a socket of its own.
    runs: [Vec<Span>; 2],
    datagrams: usize,
}

/// What came of sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Datagrams that no socket took.
    pub(super) failed: usize,
    /// By family: its socket's buffer is full, and what it did not take still waits.
    pub(super) stalled: [bool; 2],
}

/// Where a run lies.
#[derive(Clone, Copy)]
struct Span {
    via: Path,
    ecn: u8,
    start: usize,
    end: usize,
    /// Bytes of each datagram but the last.
    size: usize,
    count: usize,
    is_open: bool,
}

impl DatagramBatch {
    pub(super) fn new() -> Self {
        Self {
            memory: vec![0; MEMORY_BYTES].into_boxed_slice(),
            filled: 0,
            runs: [Vec::new(), Vec::new()],
            datagrams: 0,
        }
    }

    /// Returns how many datagrams wait.
    pub(super) fn len(&self) -> usize {
        self.datagrams
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.memory.len() - self.filled >= bytes
    }

    /// Lends `room` bytes, which [`DatagramBatch::has_room`] must have said are there.
    pub(super) fn add(
        &mut self,
        via: Path,
        ecn: u8,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let start = self.filled;
        let length = write(&mut self.memory[start..start + room]);
        if length == 0 {
            return;
        }
        self.filled += length;
        self.datagrams += 1;
        let end = self.filled;
        let runs = &mut self.runs[usize::from(via.remote.is_ipv6())];
        match runs.last_mut() {
            Some(run) if run.takes(via, ecn, start, length) => run.grow(length),
            _ => runs.push(Span {
                via,
                ecn,
                start,
                end,
                size: length,
                count: 1,
                is_open: true,
            }),
        }
    }

    /// Sends what waits, as far as the sockets' buffers have room; nothing of a family that is `held`.
    pub(super) fn send(&mut self, sender: &mut UdpSender, held: [bool; 2]) -> Outcome {
        let mut outcome = Outcome {
            stalled: held,
            failed: 0,
        };
        for (runs, is_stalled) in self.runs.iter_mut().zip(&mut outcome.stalled) {
            if runs.is_empty() || *is_stalled {
                continue;
            }
            let memory = &self.memory;
            let sent = sender.send_all(runs.iter().map(|span| Run {
                to: span.via.remote,
                source: span.via.source,
                ecn: span.ecn,
                segment_size: (span.count > 1).then_some(span.size as u16),
                bytes: &memory[span.start..span.end],
            }));
            outcome.failed += sent.failed;
            *is_stalled = sent.is_stalled;
            keep_rest(runs, sent);
        }
        let left = self.runs.iter().flatten();
        self.datagrams = left.map(|span| span.count).sum();
        if self.datagrams == 0 {
            self.filled = 0;
        }
        outcome
    }

    /// Forgets what waits, and returns how many datagrams it was.
    pub(super) fn clear(&mut self) -> usize {
        for runs in &mut self.runs {
            runs.clear();
        }
        self.filled = 0;
        std::mem::take(&mut self.datagrams)
    }
}

/// Forgets what is over.
fn keep_rest(runs: &mut Vec<Span>, sent: Sent) {
    runs.drain(..sent.runs);
    if let Some(next) = runs.first_mut().filter(|_| sent.bytes > 0) {
        next.start += sent.bytes;
        next.count -= sent.bytes / next.size;
    }
}

impl Span {
    fn takes(&self, via: Path, ecn: u8, start: usize, length: usize) -> bool {
        self.is_open
            && self.end == start
            && self.via == via
            && self.ecn == ecn
            && length <= self.size
            && self.count < RUN_DATAGRAMS_MAX
            && self.end - self.start + length <= RUN_BYTES_MAX
    }

    fn grow(&mut self, length: usize) {
        self.end += length;
        self.count += 1;
        // Only the last of a run may be shorter.
        self.is_open = length == self.size;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::linux::interface::tests::{is_in_namespace, said_by};

    pub(in super::super) fn via(host: u8) -> Path {
        Path {
            remote: ([192, 0, 2, host], 51820).into(),
            source: None,
        }
    }

    /// The datagrams of each run after these were added.
    fn runs(datagrams: &[(u8, u8, usize)]) -> Vec<usize> {
        let mut batch = DatagramBatch::new();
        for (host, ecn, length) in datagrams {
            batch.add(via(*host), *ecn, 2000, |_| *length);
        }
        assert_eq!(
            batch.len(),
            datagrams
                .iter()
                .filter(|(_, _, length)| *length > 0)
                .count()
        );
        let runs = batch.runs.iter().flatten();
        runs.map(|run| run.count).collect()
    }

    #[test]
    fn a_run_is_of_one_size_and_one_place_and_ends_with_a_shorter_one() {
        assert_eq!(
            runs(&[(1, 0, 100), (1, 0, 100), (1, 0, 60), (1, 0, 60)]),
            [3, 1]
        );
        assert_eq!(runs(&[(1, 0, 100), (1, 0, 101)]), [1, 1]);
        assert_eq!(runs(&[(1, 0, 100), (2, 0, 100), (1, 0, 100)]), [1, 1, 1]);
        assert_eq!(runs(&[(1, 0, 100), (1, 2, 100)]), [1, 1]);
        assert_eq!(runs(&[(1, 0, 100), (1, 0, 0), (1, 0, 100)]), [2]);
    }

    #[test]
    fn a_run_is_as_long_as_the_kernel_takes_it() {
        assert_eq!(runs(&[(1, 0, 100); 70]), [64, 6]);
        assert_eq!(runs(&[(1, 0, 1452); 50]), [45, 5]);
    }

    /// A sender with next to no buffer, and a way whose other end does not answer yet.
    pub(in super::super) fn narrow() -> UdpSender {
        let way = "ip link add mesh8 type veth peer name mesh9 && ip link set mesh9 up && \
            ip address add 192.0.2.1/24 dev mesh8 && ip link set mesh8 up";
        assert_eq!(said_by("sh", &["-ec", way]), "");
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        v4.set_nonblocking(true).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&v4, 1).unwrap();
        UdpSender::new(v4, Some(v6))
    }

    pub(in super::super) fn open_way() {
        let neighbour = "ip neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev mesh8";
        assert_eq!(said_by("sh", &["-ec", neighbour]), "");
    }

    #[test]
    fn what_finds_a_full_buffer_waits_and_holds_up_only_its_own_socket() {
        if !is_in_namespace(
            "packets::datagram_batch::tests::what_finds_a_full_buffer_waits_and_holds_up_only_its_own_socket",
        ) {
            return;
        }
        let mut sender = narrow();
        let mut batch = DatagramBatch::new();
        for number in 0..40 {
            batch.add(via(2), 0, 2000, |_| 1000 - number);
        }
        let [here_v4, here_v6] = ["127.0.0.1:0", "[::1]:0"].map(|it| UdpSocket::bind(it).unwrap());
        let to = |socket: &UdpSocket| Path {
            remote: socket.local_addr().unwrap(),
            source: None,
        };
        batch.add(to(&here_v4), 0, 100, |_| 7);
        batch.add(to(&here_v6), 0, 100, |_| 8);
        let full = Outcome {
            failed: 0,
            stalled: [true, false],
        };
        assert_eq!(batch.send(&mut sender, [false; 2]), full);
        let waiting = batch.len();
        assert!((2..41).contains(&waiting), "{waiting} wait");
        let mut memory = [0; 16];
        assert_eq!(here_v6.recv(&mut memory).unwrap(), 8);
        assert_eq!(
            batch.send(&mut sender, [true, false]),
            full,
            "not even tried"
        );
        open_way();
        // Each call sends as much as there is room for.
        while batch.len() > 0 {
            wait_for_room(&sender);
            let outcome = batch.send(&mut sender, [false; 2]);
            assert_eq!(outcome.failed, 0);
        }
        assert_eq!(here_v4.recv(&mut memory).unwrap(), 7);
        assert!(batch.has_room(MEMORY_BYTES));
    }

    #[test]
    fn what_is_given_up_is_known_by_number_and_leaves_its_room() {
        if !is_in_namespace(
            "packets::datagram_batch::tests::what_is_given_up_is_known_by_number_and_leaves_its_room",
        ) {
            return;
        }
        let mut sender = narrow();
        let mut batch = DatagramBatch::new();
        // The kernel takes one run whole, however little of its buffer is left.
        for expected in [false, true] {
            for _ in 0..60 {
                batch.add(via(2), 0, 1000, |_| 900);
            }
            let outcome = batch.send(&mut sender, [false; 2]);
            assert_eq!((outcome.failed, outcome.stalled), (0, [expected, false]));
        }
        batch.add(via(3), 0, 1000, |_| 900);
        assert_eq!(batch.clear(), 61);
        assert_eq!(batch.len(), 0);
        assert!(batch.has_room(MEMORY_BYTES));
        assert_eq!(batch.send(&mut sender, [false; 2]), Outcome::default());
    }

    fn wait_for_room(sender: &UdpSender) {
        let mut polled = [rustix::event::PollFd::new(
            sender.v4_socket(),
            rustix::event::PollFlags::OUT,
        )];
        rustix::event::poll(&mut polled, None).unwrap();
    }
}
