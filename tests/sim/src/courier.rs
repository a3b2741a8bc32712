//! What shards send, deliver and hand to each other.

use std::collections::VecDeque;

use dataplane::{
    Introduction, LaneMessage, Misdirected, Outbox, Path, ProbeFate, Shard, VirtioHeader,
};
use model::map::PeerIndex;
use model::time::Now;

/// Takes what the shards of one host send and deliver.
#[derive(Default)]
pub(crate) struct Courier {
    pub(crate) datagrams: Vec<Sent>,
    pub(crate) packets: Vec<Vec<u8>>,
    /// For the shard of a number.
    pub(crate) handed: VecDeque<(u16, Handed)>,
}

/// A datagram that leaves.
pub(crate) struct Sent {
    pub(crate) via: Path,
    pub(crate) ecn: u8,
    pub(crate) bytes: Vec<u8>,
    /// Nobody on the way may make fragments of it.
    pub(crate) is_whole: bool,
}

/// What one shard gives to another.
pub(crate) enum Handed {
    Datagram(Path, u8, Vec<u8>),
    OverlayPacket(VirtioHeader, Vec<u8>),
    Introduction(Introduction),
    Lane(LaneMessage),
    Opened(PeerIndex, u8, usize, Vec<u8>),
}

impl Handed {
    fn of(what: Misdirected<'_>) -> Self {
        match what {
            Misdirected::Datagram { from, ecn, bytes } => Self::Datagram(from, ecn, bytes.to_vec()),
            Misdirected::OverlayPacket { offload, bytes } => {
                Self::OverlayPacket(offload, bytes.to_vec())
            }
            Misdirected::Introduction(introduction) => Self::Introduction(introduction),
            Misdirected::Lane(message) => Self::Lane(message),
            Misdirected::Opened {
                peer,
                ecn,
                datagram_bytes,
                bytes,
            } => Self::Opened(peer, ecn, datagram_bytes, bytes.to_vec()),
        }
    }

    /// Brings it to the shard that it is for.
    pub(crate) fn give(self, shard: &mut Shard, now: Now, out: &mut Courier) {
        match self {
            Self::Datagram(from, ecn, mut bytes) => {
                shard.handle_datagram(from, ecn, &mut bytes, now, out);
            }
            Self::OverlayPacket(offload, mut bytes) => {
                shard.handle_overlay_packet(offload, &mut bytes, now, out);
            }
            Self::Introduction(introduction) => shard.handle_introduction(introduction, now, out),
            Self::Lane(message) => shard.handle_lane(message, now, out),
            Self::Opened(peer, ecn, datagram_bytes, mut bytes) => {
                shard.handle_opened(peer, ecn, datagram_bytes, &mut bytes, now, out);
            }
        }
    }
}

impl Outbox for Courier {
    fn datagram(
        &mut self,
        via: Path,
        ecn: u8,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        self.send(via, ecn, false, written(room, write));
    }

    fn probe(
        &mut self,
        via: Path,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> ProbeFate {
        self.send(via, 0, true, written(room, write));
        ProbeFate::Sent
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.packets.extend(written(room, write));
    }

    fn hand_over(&mut self, to: u16, what: Misdirected<'_>) -> bool {
        self.handed.push_back((to, Handed::of(what)));
        true
    }
}

impl Courier {
    fn send(&mut self, via: Path, ecn: u8, is_whole: bool, bytes: Option<Vec<u8>>) {
        self.datagrams.extend(bytes.map(|bytes| Sent {
            via,
            ecn,
            bytes,
            is_whole,
        }));
    }
}

fn written(room: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; room];
    let length = write(&mut bytes);
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}
