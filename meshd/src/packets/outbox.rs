//! The shard's way out: memory lent for a packet, one system call when it is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::{DatagramMeta, Misdirected, Outbox, OverlayMeta, Path};
use tun_rs::SyncDevice;

use super::hand_over::HandOver;
use super::udp_socket::UdpSender;

/// Packets that the kernel did not take.
#[derive(Debug, Default)]
pub struct SendFailures {
    datagrams: AtomicU64,
    overlay_packets: AtomicU64,
}

impl SendFailures {
    /// Returns the datagrams that no socket took: no route, no buffer, too big for the path.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Returns the packets that the TUN device did not take.
    pub fn overlay_packets(&self) -> u64 {
        self.overlay_packets.load(Ordering::Relaxed)
    }
}

/// Writes each packet at once.
pub(super) struct DirectOutbox {
    pub(super) sender: UdpSender,
    pub(super) device: Option<Arc<SyncDevice>>,
    pub(super) failures: Arc<SendFailures>,
    pub(super) memory: Vec<u8>,
    /// The ways to all shards, by number.
    pub(super) others: Vec<HandOver>,
}

impl DirectOutbox {
    fn lend(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if self.memory.len() < room {
            self.memory.resize(room, 0);
        }
        write(&mut self.memory[..room])
    }
}

impl Outbox for DirectOutbox {
    fn datagram(
        &mut self,
        via: Path,
        meta: DatagramMeta,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let length = self.lend(room, write);
        if length > 0 && self.sender.send(via, meta, &self.memory[..length]).is_err() {
            self.failures.datagrams.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn overlay_packet(
        &mut self,
        _: OverlayMeta,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let length = self.lend(room, write);
        let taken = match &self.device {
            Some(device) if length > 0 => device.send(&self.memory[..length]).is_ok(),
            Some(_) => true,
            None => length == 0,
        };
        if !taken {
            self.failures
                .overlay_packets
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hand_over(&mut self, to: u16, what: Misdirected<'_>) -> bool {
        let way = self.others.get(usize::from(to));
        way.is_some_and(|way| way.give(what))
    }
}
