//! Memory for a burst, lent to a shard again and again as a packet thread's is.

use std::ops::Range;

use dataplane::{Coalescer, Joins, Outbox, Path};

/// More than a burst needs here.
const BYTES: usize = 1 << 19;

/// What a shard has written.
pub(crate) struct Burst {
    pub(crate) memory: Box<[u8]>,
    filled: usize,
    pub(crate) datagrams: Vec<Range<usize>>,
    pub(crate) packets: Coalescer,
}

impl Burst {
    /// Makes one; `joins` are those of the host's device.
    pub(crate) fn new(joins: Joins) -> Self {
        Self {
            memory: vec![0; BYTES].into_boxed_slice(),
            filled: 0,
            datagrams: Vec::new(),
            packets: Coalescer::new(joins, BYTES),
        }
    }

    /// Forgets the datagrams.
    pub(crate) fn sent(&mut self) {
        self.datagrams.clear();
        self.filled = 0;
    }

    /// Gives away the packets; returns how many writes that are.
    pub(crate) fn delivered(&mut self) -> usize {
        let mut writes = 0;
        self.packets.take_all(|header, parts| {
            std::hint::black_box((header, parts));
            writes += 1;
        });
        writes
    }
}

impl Outbox for Burst {
    fn datagram(&mut self, _: Path, _: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.filled;
        let length = write(&mut self.memory[start..start + room]);
        if length > 0 {
            self.filled += length;
            self.datagrams.push(start..self.filled);
        }
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.packets.add(room, write);
    }
}
