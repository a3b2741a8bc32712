//! Who is at the TLS port, and who came in vain.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::strangers::Strangers;

/// Counts of one port.
#[derive(Debug, Default)]
pub struct Census {
    connections: AtomicUsize,
    without_place: AtomicU64,
    without_handshake: AtomicU64,
    pub(super) strangers: Strangers,
}

impl Census {
    /// Returns the connections that there are.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns those of them that the program has not let in as a member's.
    pub fn strangers(&self) -> usize {
        self.strangers.count()
    }

    /// Returns how many were closed at once, because there was no place for them.
    pub fn without_place(&self) -> u64 {
        self.without_place.load(Ordering::Relaxed)
    }

    /// Returns how many TLS handshakes failed.
    pub fn without_handshake(&self) -> u64 {
        self.without_handshake.load(Ordering::Relaxed)
    }

    pub(super) fn set_connections(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
    }

    pub(super) fn add_without_place(&self) {
        self.without_place.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_without_handshake(&self) {
        self.without_handshake.fetch_add(1, Ordering::Relaxed);
    }
}
