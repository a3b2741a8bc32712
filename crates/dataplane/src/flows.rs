//! The flows that were let through: who opened each, under which rules, and how it stands.
//!
//! Bounded twice, in all and per peer. When there is no room, a handful of entries is looked at
//! and the worst goes: what has idled out, then what nobody replied to. An established flow is
//! pushed out only by its own peer at that peer's bound, or when its peer has more than its share
//! of the table and the newcomer's has less: no peer can cut the flows of others by opening many,
//! nor keep others out by holding many.

use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use model::rule::Direction;
use model::time::Instant;
use std::hash::BuildHasher;

mod flow;
mod key;

pub use flow::Phase;
pub(crate) use flow::{ADOPTION_TIME, Flow, NO_TABLE, Seen};
pub(crate) use key::FlowKey;

/// Entries that are looked at to make room for one.
const EVICTION_LOOKS: usize = 64;
/// Entries that are looked at in one sweep.
const SWEEP_LOOKS: usize = 4096;
/// Time between two sweeps.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A bounded table of flows.
pub(crate) struct Flows {
    /// Dense; a removed entry's place is taken by the last.
    entries: Vec<Flow>,
    /// Positions in `entries`.
    positions: HashTable<u32>,
    /// Where the last flow was found: the next packet is nearly always of the same.
    last_found: usize,
    /// Flows of each peer, by index.
    per_peer: Vec<u32>,
    hasher: FixedState,
    /// Peers that have flows.
    peers: usize,
    /// Where the next sweep goes on.
    swept: usize,
    /// Walks over the table in even steps, so that neighbours of one peer hide nobody.
    look: u64,
    flows_max: usize,
    flows_per_peer_max: usize,
    /// Flows that were forgotten before their time.
    evicted: u64,
}

impl Flows {
    pub(crate) fn new(flows_max: usize, flows_per_peer_max: usize, seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            positions: HashTable::new(),
            last_found: 0,
            per_peer: Vec::new(),
            hasher: FixedState::with_seed(seed),
            peers: 0,
            swept: 0,
            look: seed,
            flows_max,
            flows_per_peer_max,
            evicted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many were forgotten before their time, to make room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns all of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.entries.iter()
    }

    /// Returns those of a peer; of one that has none at once.
    pub(crate) fn of_peer(&self, peer: u32) -> Vec<Flow> {
        match self.per_peer.get(peer as usize) {
            Some(1..) => {
                let its = self.entries.iter().filter(|flow| flow.key.peer == peer);
                its.copied().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns a flow that has not idled out.
    #[inline]
    pub(crate) fn find_mut(&mut self, key: &FlowKey, now: Instant) -> Option<&mut Flow> {
        let is_last = |flow: &Flow| flow.key == *key;
        if !self.entries.get(self.last_found).is_some_and(is_last) {
            self.last_found = self.position(key)?;
        }
        let flow = &mut self.entries[self.last_found];
        (!flow.is_idle(now)).then_some(flow)
    }

    /// Remembers a flow, in place of one with the same key. False when there is no room.
    pub(crate) fn insert(&mut self, flow: Flow, now: Instant) -> bool {
        if let Some(position) = self.position(&flow.key) {
            self.entries[position] = flow;
            return true;
        }
        if !self.make_room(flow.key.peer, now) {
            return false;
        }
        let position = u32::try_from(self.entries.len()).expect("flows are bounded by u32");
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.positions
            .insert_unique(hasher.hash_one(flow.key), position, |position| {
                hasher.hash_one(entries[*position as usize].key)
            });
        let count = self.count_of(flow.key.peer);
        *count += 1;
        let is_first = *count == 1;
        self.peers += usize::from(is_first);
        self.entries.push(flow);
        true
    }

    pub(crate) fn remove(&mut self, key: &FlowKey) {
        if let Some(position) = self.position(key) {
            self.remove_at(position);
        }
    }

    /// Forgets every flow of a peer.
    pub(crate) fn remove_peer(&mut self, peer: u32) {
        if *self.count_of(peer) > 0 {
            self.remove_where(|flow| flow.key.peer == peer);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.remove_where(|_| true);
    }

    /// Forgets some of the flows that have idled out; called often enough, all of them.
    pub(crate) fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEEP_LOOKS.min(self.entries.len()) {
            if self.swept >= self.entries.len() {
                self.swept = 0;
            }
            match self.entries.get(self.swept) {
                // Another flow takes this place: it is looked at next.
                Some(flow) if flow.is_idle(now) => self.remove_at(self.swept),
                Some(_) => self.swept += 1,
                None => return,
            }
        }
    }

    fn make_room(&mut self, peer: u32, now: Instant) -> bool {
        let is_peer_full = *self.count_of(peer) as usize >= self.flows_per_peer_max;
        let is_full = self.entries.len() >= self.flows_max;
        if !is_peer_full && !is_full {
            return true;
        }
        let Some(victim) = self.choose_victim(peer, is_peer_full, now) else {
            return false;
        };
        self.evicted += u64::from(!self.entries[victim].is_idle(now));
        self.remove_at(victim);
        true
    }

    fn choose_victim(&mut self, peer: u32, own_only: bool, now: Instant) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let has_less = self.has_less_than_share(peer);
        let mut best: Option<(Worth, usize)> = None;
        for _ in 0..EVICTION_LOOKS {
            let position = self.next_look();
            let flow = self.entries[position];
            let worth = Worth::of(&flow, now);
            let may_go = match own_only {
                true => flow.key.peer == peer,
                false if worth.class < Class::Established => true,
                false => has_less && self.has_more_than_share(flow.key.peer),
            };
            if may_go && best.is_none_or(|(least, _)| worth < least) {
                best = Some((worth, position));
            }
        }
        best.map(|(_, position)| position)
    }

    /// Multiples of the golden ratio fall evenly (Weyl's sequence).
    fn next_look(&mut self) -> usize {
        self.look = self.look.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(self.look) * self.entries.len() as u128) >> 64) as usize
    }

    fn has_less_than_share(&mut self, peer: u32) -> bool {
        let count = *self.count_of(peer) as usize;
        let peers = self.peers + usize::from(count == 0);
        count < self.flows_max / peers.max(1)
    }

    fn has_more_than_share(&mut self, peer: u32) -> bool {
        *self.count_of(peer) as usize > self.flows_max / self.peers.max(1)
    }

    #[inline]
    fn position(&self, key: &FlowKey) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let found = self
            .positions
            .find(hash, |at| self.entries[*at as usize].key == *key)?;
        Some(*found as usize)
    }

    fn remove_where(&mut self, mut gone: impl FnMut(&Flow) -> bool) {
        let mut position = self.entries.len();
        while position > 0 {
            position -= 1;
            if gone(&self.entries[position]) {
                self.remove_at(position);
            }
        }
    }

    fn remove_at(&mut self, position: usize) {
        let flow = self.entries[position];
        self.unlink(&flow.key, position);
        let count = self.count_of(flow.key.peer);
        *count -= 1;
        let is_last = *count == 0;
        self.peers -= usize::from(is_last);
        self.entries.swap_remove(position);
        if let Some(moved) = self.entries.get(position).map(|flow| flow.key) {
            let hash = self.hasher.hash_one(moved);
            let before = self.entries.len() as u32;
            let at = self.positions.find_mut(hash, |at| *at == before);
            *at.expect("every entry has a position") = position as u32;
        }
    }

    fn unlink(&mut self, key: &FlowKey, position: usize) {
        let hash = self.hasher.hash_one(key);
        let entry = self
            .positions
            .find_entry(hash, |at| *at as usize == position);
        let Ok(entry) = entry else {
            unreachable!("every entry has a position");
        };
        entry.remove();
    }

    fn count_of(&mut self, peer: u32) -> &mut u32 {
        let index = peer as usize;
        if index >= self.per_peer.len() {
            self.per_peer.resize(index + 1, 0);
        }
        &mut self.per_peer[index]
    }
}

/// What would be lost with a flow; the least goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    class: Class,
    last_seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Idle,
    Unreplied,
    Ending,
    Established,
}

impl Worth {
    fn of(flow: &Flow, now: Instant) -> Self {
        let class = match flow.phase {
            _ if flow.is_idle(now) => Class::Idle,
            Phase::Opening => Class::Unreplied,
            Phase::Answered | Phase::Closing => Class::Ending,
            Phase::Established => Class::Established,
        };
        Self {
            class,
            last_seen: flow.last_seen,
        }
    }
}

/// Returns the other way.
pub(crate) const fn reverse(direction: Direction) -> Direction {
    match direction {
        Direction::Outbound => Direction::Inbound,
        Direction::Inbound => Direction::Outbound,
    }
}

#[cfg(test)]
mod tests;
