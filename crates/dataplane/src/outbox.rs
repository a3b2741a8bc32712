//! Memory for outgoing packets, lent by the caller, and what goes with each packet.

use std::net::{IpAddr, SocketAddr};

use crate::shard::Introduction;

/// One way to reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The peer's underlay address and UDP port.
    pub remote: SocketAddr,
    /// Our own address towards it, where a datagram told; `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
}

/// What goes with a datagram besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramMeta {
    /// The two ECN bits of the outer header.
    pub ecn: u8,
    /// When several datagrams lie one after the other: the size of each but the last.
    pub segment_size: Option<u16>,
    /// The address to send from.
    pub source: Option<IpAddr>,
}

/// What goes with an overlay packet besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayMeta {
    /// What the kernel's offload knows of the packet; `None`: a plain packet with valid checksums.
    pub offload: Option<VirtioHeader>,
}

/// The header of a TUN device's super-packets (virtio 1.3, 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// Bit 0: the checksum is to be completed from `csum_start`.
    pub flags: u8,
    /// 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 added when ECN bits are set.
    pub gso_type: u8,
    /// Bytes of all headers.
    pub header_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum starts.
    pub csum_start: u16,
    /// Where it is stored, behind `csum_start`.
    pub csum_offset: u16,
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
    /// A plain packet for [`crate::Shard::handle_overlay_packet`].
    OverlayPacket(&'a [u8]),
    /// For [`crate::Shard::handle_introduction`].
    Introduction(Introduction),
}

/// Takes packets away. An outbox that is full does not call `write`; the shard then counts the
/// packet under [`crate::DropReason::OutboxFull`].
pub trait Outbox {
    /// Lends `room` bytes for a datagram that leaves `via` a path. `write` returns how many it
    /// used; at 0 nothing is to be sent.
    fn datagram(
        &mut self,
        via: Path,
        meta: DatagramMeta,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    );

    /// Lends `room` bytes for a packet to this host. `write` returns how many it used; at 0
    /// nothing is to be delivered.
    fn overlay_packet(
        &mut self,
        meta: OverlayMeta,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    );

    /// Hands over what belongs to the shard of number `to`. Returns whether it was taken; what was
    /// not is dropped and counted. Where there is one shard, nobody asks.
    fn hand_over(&mut self, _to: u16, _what: Misdirected<'_>) -> bool {
        false
    }
}
