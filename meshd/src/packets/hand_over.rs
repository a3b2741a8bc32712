//! What shards hand over to each other: bounded queues, and a wake-up only for who may be asleep.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dataplane::{Introduction, LaneMessage, Misdirected, Path, VirtioHeader};
use model::map::PeerIndex;

/// What may wait for a shard that other shards have handed over; above it is dropped and counted.
const WAITING_MAX: usize = 1024;

/// What belongs to a shard and came to another one.
pub(super) enum HandedOver {
    Datagram {
        from: Path,
        ecn: u8,
        bytes: Vec<u8>,
    },
    OverlayPacket {
        offload: VirtioHeader,
        bytes: Vec<u8>,
    },
    Introduction(Introduction),
    Lane(LaneMessage),
    Opened {
        peer: PeerIndex,
        ecn: u8,
        datagram_bytes: usize,
        bytes: Vec<u8>,
    },
}

/// The way to one shard.
#[derive(Clone)]
pub(super) struct HandOver {
    queue: SyncSender<HandedOver>,
    is_waiting: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
}

/// The shard's own end.
pub(super) struct HandOverInbox {
    queue: Receiver<HandedOver>,
    is_waiting: Arc<AtomicBool>,
}

/// Makes the two ends of a queue to a thread that `wake` wakes.
pub(super) fn hand_over(wake: Arc<OwnedFd>) -> (HandOver, HandOverInbox) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let is_waiting = Arc::new(AtomicBool::new(false));
    let inbox = HandOverInbox {
        queue: receiver,
        is_waiting: Arc::clone(&is_waiting),
    };
    let way = HandOver {
        queue: sender,
        is_waiting,
        wake,
    };
    (way, inbox)
}

impl HandOver {
    /// Returns whether there was room.
    pub(super) fn give(&self, what: Misdirected<'_>) -> bool {
        let owned = match what {
            Misdirected::Datagram { from, ecn, bytes } => HandedOver::Datagram {
                from,
                ecn,
                bytes: bytes.to_vec(),
            },
            Misdirected::OverlayPacket { offload, bytes } => HandedOver::OverlayPacket {
                offload,
                bytes: bytes.to_vec(),
            },
            Misdirected::Introduction(introduction) => HandedOver::Introduction(introduction),
            Misdirected::Lane(message) => HandedOver::Lane(message),
            Misdirected::Opened {
                peer,
                ecn,
                datagram_bytes,
                bytes,
            } => HandedOver::Opened {
                peer,
                ecn,
                datagram_bytes,
                bytes: bytes.to_vec(),
            },
        };
        let is_taken = self.queue.try_send(owned).is_ok();
        if is_taken && !self.is_waiting.swap(true, Ordering::AcqRel) {
            // A full event counter wakes the thread just as well.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
        is_taken
    }
}

impl HandOverInbox {
    /// Takes what waits, each in the order in which its giver gave it.
    pub(super) fn take_all(&self, mut handle: impl FnMut(HandedOver)) {
        // First, so that whoever gives from here on wakes this thread again.
        self.is_waiting.store(false, Ordering::Release);
        for handed in self.queue.try_iter().take(WAITING_MAX) {
            handle(handed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn packet(bytes: &[u8]) -> Misdirected<'_> {
        Misdirected::OverlayPacket {
            offload: VirtioHeader::default(),
            bytes,
        }
    }

    #[test]
    fn a_full_queue_refuses_and_a_burst_wakes_once() {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let (way, inbox) = hand_over(Arc::clone(&wake));
        for number in 0..WAITING_MAX {
            assert!(way.give(packet(&[number as u8])));
        }
        assert!(!way.give(packet(&[0])));
        let mut count = [0; 8];
        rustix::io::read(&*wake, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        let mut seen = 0;
        inbox.take_all(|handed| {
            assert!(
                matches!(handed, HandedOver::OverlayPacket { bytes, .. } if bytes == [seen as u8])
            );
            seen += 1;
        });
        assert_eq!(seen, WAITING_MAX);
        assert!(way.give(packet(&[0])), "and wakes again");
        rustix::io::read(&*wake, &mut count).unwrap();
    }
}
