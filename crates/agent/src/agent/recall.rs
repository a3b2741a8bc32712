//! What this host remembers of its fleet, told to a coordinator that asks: one that was restored
//! from a backup knows less than its hosts. All of it is signed by the fleet, so that the
//! coordinator believes nothing of this host's own.

use model::control::FromHost;
use model::map::{PolicySlice, ProvenLeaf};
use model::memory::Memory;
use model::record::Signed;

use super::Agent;
use crate::map::Map;

impl Agent {
    /// Tells everything that the newest map holds; nothing, when there is none.
    pub(super) fn tell_memory(&mut self) {
        let parts = self.staging.newest().map(parts_of).unwrap_or_default();
        for part in parts {
            self.out.send(FromHost::Memory(Box::new(part)));
        }
    }
}

fn parts_of(map: &Map) -> Vec<Memory> {
    let mut parts = Parts {
        blank: Memory {
            trust: map.trust.signed.clone(),
            record: map.own.signed.clone(),
            ..Memory::default()
        },
        full: Vec::new(),
        open: Memory::default(),
        bytes: 0,
    };
    parts.start();
    for peer in map.peers.values() {
        let signed = &peer.known.signed;
        parts.make_room(signed_bytes(signed));
        parts.open.records.push(signed.clone());
    }
    for signed in map.tombstones.signed() {
        parts.make_room(signed_bytes(signed));
        parts.open.tombstones.push(signed.clone());
    }
    let slice = &map.policy.slice;
    for leaf in slice
        .leaves
        .iter()
        .filter(|leaf| leaf_bytes(leaf) <= Memory::PART_BYTES)
    {
        parts.make_room(leaf_bytes(leaf));
        let policy = parts.open.policy.get_or_insert_with(|| PolicySlice {
            head: slice.head.clone(),
            leaves: Vec::new(),
        });
        policy.leaves.push(leaf.clone());
    }
    parts.finish()
}

/// Parts in the making.
struct Parts {
    /// What every part carries.
    blank: Memory,
    full: Vec<Memory>,
    open: Memory,
    bytes: usize,
}

impl Parts {
    fn start(&mut self) {
        self.open = self.blank.clone();
        self.bytes = 0;
    }

    /// Begins another part when this one has no room for so many bytes more.
    fn make_room(&mut self, bytes: usize) {
        if self.bytes + bytes > Memory::PART_BYTES {
            self.full.push(std::mem::take(&mut self.open));
            self.start();
        }
        self.bytes += bytes;
    }

    fn finish(mut self) -> Vec<Memory> {
        self.open.last = true;
        self.full.push(self.open);
        self.full
    }
}

/// A bound: the payload, and of each signature key id, value and framing.
fn signed_bytes(signed: &Signed) -> usize {
    const SIGNATURE: usize = 16 + 64 + 16;
    signed.payload.len() + signed.signatures.len() * SIGNATURE + 16
}

fn leaf_bytes(leaf: &ProvenLeaf) -> usize {
    const HASH: usize = 32 + 8;
    leaf.leaf.len() + leaf.path.len() * HASH + 32
}
