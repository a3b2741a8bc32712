//! What waits for hosts to be read, in bytes: of one host, and of all together. A host that holds its
//! stream open and does not read costs a bounded amount of memory for a bounded time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use model::control::ToHost;
use model::map::MapDelta;
use model::record::Signed;

/// Bytes that may wait for one host. A single message may be larger, when nothing waits before it.
const BYTES_MAX: usize = 8 << 20;
/// How long what waits may go unread; then the host does not read.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// Bytes that may wait for all hosts before no more are let in.
const BYTES_OF_ALL_MAX: usize = 256 << 20;
/// What a message costs besides what is in it.
const MESSAGE_BYTES: usize = 256;

/// Bytes that wait for all hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Total(Arc<AtomicUsize>);

impl Total {
    /// Returns about how many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns whether so much waits that no more hosts can be served.
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) > BYTES_OF_ALL_MAX
    }
}

/// What waits for one host. Filled by the brain, emptied by the connection.
#[derive(Debug)]
pub(super) struct Backlog {
    total: Total,
    bytes: AtomicUsize,
    started: Instant,
    /// Milliseconds after `started`: when something was read, or began to wait.
    moved_millis: AtomicU64,
}

impl Backlog {
    pub(super) fn new(total: Total) -> Arc<Self> {
        Arc::new(Self {
            total,
            bytes: AtomicUsize::new(0),
            started: Instant::now(),
            moved_millis: AtomicU64::new(0),
        })
    }

    /// Takes a message in, unless the host is too far behind.
    pub(super) fn push(&self, bytes: usize, now: Instant) -> bool {
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting == 0 {
            self.moved(now);
        } else if waiting + bytes > BYTES_MAX || self.unread_for(now) > UNREAD_MAX {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total.0.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// A message was read.
    pub(super) fn pop(&self, bytes: usize, now: Instant) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.total.0.fetch_sub(bytes, Ordering::Relaxed);
        self.moved(now);
    }

    fn moved(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.started).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.moved_millis.store(millis, Ordering::Relaxed);
    }

    fn unread_for(&self, now: Instant) -> Duration {
        let moved = Duration::from_millis(self.moved_millis.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started + moved)
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let left = self.bytes.load(Ordering::Relaxed);
        self.total.0.fetch_sub(left, Ordering::Relaxed);
    }
}

/// Returns about how much memory a message takes.
pub(super) fn weight(message: &ToHost) -> usize {
    let content = match message {
        ToHost::Map(map) => map_bytes(map),
        ToHost::Welcome(welcome) => signed_bytes(&welcome.trust),
        ToHost::Certificate(Ok(chain)) => chain.iter().map(Vec::len).sum(),
        _ => 0,
    };
    MESSAGE_BYTES + content
}

fn map_bytes(map: &MapDelta) -> usize {
    let peers = map.peers.iter();
    let peers = peers.map(|peer| signed_bytes(&peer.record) + 32 * peer.endpoints.len());
    let leaves = map.policy.iter().flat_map(|slice| &slice.leaves);
    let leaves = leaves.map(|leaf| leaf.leaf.len() + 32 * leaf.path.len() + 64);
    let gone = map.tombstones.iter().map(signed_bytes);
    peers.sum::<usize>() + leaves.sum::<usize>() + gone.sum::<usize>() + 16 * map.forgotten.len()
}

fn signed_bytes(signed: &Signed) -> usize {
    signed.payload.len() + 96 * signed.signatures.len() + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_message_may_wait_and_no_second() {
        let (backlog, now) = (Backlog::new(Total::default()), Instant::now());
        assert!(backlog.push(10 * BYTES_MAX, now));
        assert!(!backlog.push(1, now));
        backlog.pop(10 * BYTES_MAX, now);
        assert!(backlog.push(1, now));
    }

    #[test]
    fn what_waits_unread_for_too_long_is_the_end() {
        let (backlog, now) = (Backlog::new(Total::default()), Instant::now());
        let late = now + 10 * UNREAD_MAX;
        assert!(backlog.push(1, late), "the clock starts with the message");
        assert!(backlog.push(1, late + UNREAD_MAX / 2));
        backlog.pop(1, late + UNREAD_MAX / 2);
        assert!(backlog.push(1, late + UNREAD_MAX), "it does read");
        assert!(!backlog.push(1, late + 2 * UNREAD_MAX));
    }

    #[test]
    fn what_is_given_up_is_no_longer_counted() {
        let total = Total::default();
        let backlog = Backlog::new(total.clone());
        assert!(backlog.push(BYTES_OF_ALL_MAX + 1, Instant::now()));
        assert!(total.is_full());
        drop(backlog);
        assert!(!total.is_full());
        assert_eq!(total.0.load(Ordering::Relaxed), 0);
    }
}
