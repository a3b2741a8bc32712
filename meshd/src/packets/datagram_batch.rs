//! Datagrams that wait to be sent together: those of one size to one place as one run, all runs in
//! as few system calls as can be.

use dataplane::Path;

use super::udp_sender::UdpSender;
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
    runs: Vec<Span>,
    datagrams: usize,
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
            runs: Vec::new(),
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
        match self.runs.last_mut() {
            Some(run) if run.takes(via, ecn, length) => run.grow(length),
            _ => self.runs.push(Span {
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

    /// Sends everything, and returns how many datagrams no socket took.
    pub(super) fn send(&mut self, sender: &mut UdpSender) -> usize {
        if self.runs.is_empty() {
            return 0;
        }
        let memory = &self.memory;
        let failed = sender.send_all(self.runs.iter().map(|span| Run {
            to: span.via.remote,
            source: span.via.source,
            ecn: span.ecn,
            segment_size: (span.count > 1).then_some(span.size as u16),
            bytes: &memory[span.start..span.end],
        }));
        self.runs.clear();
        self.filled = 0;
        self.datagrams = 0;
        failed
    }
}

impl Span {
    fn takes(&self, via: Path, ecn: u8, length: usize) -> bool {
        self.is_open
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
mod tests {
    use super::*;

    fn via(host: u8) -> Path {
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
        batch.runs.iter().map(|run| run.count).collect()
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
}
