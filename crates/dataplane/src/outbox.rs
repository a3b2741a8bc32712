//! Memory for outgoing packets, lent by the caller.

use std::net::{IpAddr, SocketAddr};

use model::map::PeerIndex;

use crate::lanes::LaneMessage;
use crate::offload::VirtioHeader;
use crate::shard::Introduction;

/// One way to reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The peer's underlay address and UDP port.
    pub remote: SocketAddr,
    /// Our own address towards it, where a datagram told; `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
}

/// What came to one of a host's shards and is another one's.
#[derive(Debug)]
pub enum Misdirected<'a> {
    /// For [`crate::Shard::handle_datagram`], with its arguments.
    Datagram {
        /// Where it came from.
        from: Path,
        /// The ECN bits of its outer header.
        ecn: u8,
        /// All of it.
        bytes: &'a [u8],
    },
    /// For [`crate::Shard::handle_overlay_packet`], with its arguments.
    OverlayPacket {
        /// What the kernel says of it: it is as large as it came.
        offload: VirtioHeader,
        /// All of it.
        bytes: &'a [u8],
    },
    /// For [`crate::Shard::handle_introduction`].
    Introduction(Introduction),
    /// For [`crate::Shard::handle_lane`].
    Lane(LaneMessage),
    /// For [`crate::Shard::handle_opened`], with its arguments.
    Opened {
        /// Who sent it.
        peer: PeerIndex,
        /// The ECN bits of the outer header of its datagram.
        ecn: u8,
        /// The bytes of its datagram.
        datagram_bytes: usize,
        /// The packet.
        bytes: &'a [u8],
    },
}

/// What became of a datagram that no one may cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFate {
    /// It left, or was lost as any datagram may be.
    Sent,
    /// This host's own way out does not take so many bytes at once.
    TooBig,
}

/// Takes packets away. An outbox that is full does not call `write` and counts nothing; the shard
/// then counts the packet under [`crate::DropReason::OutboxFull`]. What the shard says of itself
/// (handshakes, keepalives, greetings, answers) is no packet, and is then as if lost on the way: where
/// an answer is waited for, it is said again.
pub trait Outbox {
    /// Lends `room` bytes for a datagram that leaves `via` a path, with the two ECN bits of its
    /// outer header. `write` returns how many it used; at 0 nothing is to be sent.
    fn datagram(&mut self, via: Path, ecn: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize);

    /// Lends `room` bytes for a datagram that no one may cut on its way, and sends it at once. Where
    /// nothing is ever cut, it is a datagram as any other.
    fn probe(
        &mut self,
        via: Path,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> ProbeFate {
        self.datagram(via, 0, room, write);
        ProbeFate::Sent
    }

    /// Lends `room` bytes for a packet to this host, whose checksums are whole. `write` returns how
    /// many it used; at 0 nothing is to be delivered.
    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize);

    /// Takes a packet to this host that may stay where it is: in the datagram that it came in, which
    /// nobody changes before the caller has handled its whole burst. Returns whether it was taken.
    fn deliver(&mut self, packet: &[u8]) -> bool {
        let mut is_taken = false;
        self.overlay_packet(packet.len(), |room| {
            room[..packet.len()].copy_from_slice(packet);
            is_taken = true;
            packet.len()
        });
        is_taken
    }

    /// Hands over what belongs to the shard of number `to`. Returns whether it was taken; what was
    /// not is dropped and counted. Where there is one shard, nobody asks.
    fn hand_over(&mut self, _to: u16, _what: Misdirected<'_>) -> bool {
        false
    }
}
