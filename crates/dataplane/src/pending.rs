//! Packets to a peer that wait for a session. Bounded; the oldest goes first.

use std::collections::VecDeque;

/// The waiting packets of one peer.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// How many packets of one peer may wait, and how large they may be together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingLimits {
    pub(crate) packets: usize,
    pub(crate) bytes: usize,
}

impl Pending {
    /// Adds a packet and returns how many older ones had to go; `None`: it does not fit at all.
    pub(crate) fn push(&mut self, packet: &[u8], limits: PendingLimits) -> Option<usize> {
        if packet.len() > limits.bytes || limits.packets == 0 {
            return None;
        }
        let mut gone = 0;
        while self.packets.len() >= limits.packets || self.bytes + packet.len() > limits.bytes {
            self.pop();
            gone += 1;
        }
        self.bytes += packet.len();
        self.packets.push_back(packet.to_vec());
        Some(gone)
    }

    /// Takes the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PendingLimits = PendingLimits {
        packets: 3,
        bytes: 100,
    };

    #[test]
    fn the_oldest_packets_make_room() {
        let mut pending = Pending::default();
        for byte in 0..3 {
            assert_eq!(pending.push(&[byte; 20], LIMITS), Some(0));
        }
        assert_eq!(pending.push(&[3; 20], LIMITS), Some(1), "too many");
        assert_eq!(
            pending.push(&[4; 80], LIMITS),
            Some(2),
            "too large together"
        );
        assert_eq!(pending.push(&[5; 101], LIMITS), None);
        assert_eq!(pending.pop().unwrap()[0], 3);
        assert_eq!(pending.bytes(), 80);
        assert_eq!(pending.pop().unwrap()[0], 4);
        assert_eq!(
            (pending.pop(), pending.bytes(), pending.len()),
            (None, 0, 0)
        );
    }
}
