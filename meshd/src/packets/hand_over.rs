//! What shards hand over to each other: queues that are bounded by number and by bytes, and a wake-up
//! only for who may be asleep.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dataplane::{Introduction, LaneMessage, Misdirected, Path, VirtioHeader};
use model::map::PeerIndex;

/// What may wait for a shard that other shards have handed over; above it is dropped and counted.
const WAITING_MAX: usize = 1024;
/// Bytes of the packets among it: each may be as large as the kernel gives them, 64 KiB.
const WAITING_BYTES_MAX: usize = 4 << 20;

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
    queue: SyncSender<Item>,
    waiting: Arc<Waiting>,
    wake: Arc<OwnedFd>,
}

/// The shard's own end.
pub(super) struct HandOverInbox {
    queue: Receiver<Item>,
    waiting: Arc<Waiting>,
}

/// With the bytes that it has of [`WAITING_BYTES_MAX`].
type Item = (HandedOver, usize);

/// What both ends know of what waits.
#[derive(Default)]
struct Waiting {
    /// Something was given since the shard took all.
    is_any: AtomicBool,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Returns whether there was room for so many bytes.
    fn reserve(&self, bytes: usize) -> bool {
        let add = |before: usize| {
            let after = before.checked_add(bytes)?;
            (after <= WAITING_BYTES_MAX).then_some(after)
        };
        // The number stands for itself; the queue orders what it is about.
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Makes the two ends of a queue to a thread that `wake` wakes.
pub(super) fn hand_over(wake: Arc<OwnedFd>) -> (HandOver, HandOverInbox) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let waiting = Arc::new(Waiting::default());
    let inbox = HandOverInbox {
        queue: receiver,
        waiting: Arc::clone(&waiting),
    };
    let way = HandOver {
        queue: sender,
        waiting,
        wake,
    };
    (way, inbox)
}

impl HandOver {
    /// Returns whether there was room.
    pub(super) fn give(&self, what: Misdirected<'_>) -> bool {
        // Asked before anything is copied: what is refused should cost little.
        let bytes = packet_bytes(&what);
        if !self.waiting.reserve(bytes) {
            return false;
        }
        if self.queue.try_send((owned(what), bytes)).is_err() {
            self.waiting.release(bytes);
            return false;
        }
        if !self.waiting.is_any.swap(true, Ordering::AcqRel) {
            // A full event counter wakes the thread just as well.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
        true
    }
}

impl HandOverInbox {
    /// Returns whether something may wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_any.load(Ordering::Relaxed)
    }

    /// Takes what waits, each in the order in which its giver gave it.
    pub(super) fn take_all(&self, mut handle: impl FnMut(HandedOver)) {
        // First, so that whoever gives from here on wakes this thread again: by exchange, so that what
        // was given before without a wake-up is seen below.
        self.waiting.is_any.swap(false, Ordering::AcqRel);
        for (handed, bytes) in self.queue.try_iter().take(WAITING_MAX) {
            self.waiting.release(bytes);
            handle(handed);
        }
    }
}

/// Returns the bytes of a packet. Messages between shards are small, and bounded by number.
fn packet_bytes(what: &Misdirected<'_>) -> usize {
    match what {
        Misdirected::Datagram { bytes, .. }
        | Misdirected::OverlayPacket { bytes, .. }
        | Misdirected::Opened { bytes, .. } => bytes.len(),
        Misdirected::Introduction(_) | Misdirected::Lane(_) => 0,
    }
}

fn owned(what: Misdirected<'_>) -> HandedOver {
    match what {
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
        assert!(!inbox.is_waiting());
        assert!(way.give(packet(&[0])), "and wakes again");
        assert!(inbox.is_waiting());
        rustix::io::read(&*wake, &mut count).unwrap();
    }

    #[test]
    fn large_packets_are_refused_by_their_bytes_until_they_were_taken() {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let (way, inbox) = hand_over(wake);
        let other_way = way.clone();
        let large = vec![0; 64 << 10];
        let fit = WAITING_BYTES_MAX / large.len();
        assert!(fit < WAITING_MAX);
        for _ in 0..2 {
            for _ in 0..fit {
                assert!(way.give(packet(&large)));
            }
            assert!(!way.give(packet(&large)));
            assert!(!other_way.give(packet(&[0])), "all givers share the room");
            assert!(way.give(packet(&[])), "what takes none of it passes");
            let mut taken = 0;
            inbox.take_all(|_| taken += 1);
            assert_eq!(taken, fit + 1);
        }
    }

    #[test]
    fn what_the_full_queue_refused_takes_no_room() {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let (way, inbox) = hand_over(wake);
        for _ in 0..WAITING_MAX {
            assert!(way.give(packet(&[])));
        }
        let large = vec![0; WAITING_BYTES_MAX];
        assert!(!way.give(packet(&large)));
        inbox.take_all(drop);
        assert!(way.give(packet(&large)));
    }
}
