//! A bounded table of who sends which flow. When there is no room, a handful of entries is looked at
//! and the one goes that is missed least, as in the table of flows: what is over, then what the rules
//! deny, then what nobody replied to. What is in use gives way to its own peer, and to a peer that has
//! less than its share of the table when its own has more.

use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use model::time::Instant;

use crate::flows::FlowKey;

/// Entries that are looked at to make room for one.
const LOOKS: usize = 64;
/// As a flow of UDP: how long one is remembered that both sides were heard of.
const ANSWERED_HOLDS: Duration = Duration::from_secs(180);
/// The same where nobody replied: its sender tells again before its next packet after so long.
const UNANSWERED_HOLDS: Duration = Duration::from_secs(30);

/// How an entry stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The table that allows it; `None`: none does.
    pub(crate) allowed_under: Option<u64>,
    used_at: Instant,
    is_answered: bool,
}

impl Standing {
    pub(super) const fn new(allowed_under: Option<u64>, now: Instant) -> Self {
        Self {
            allowed_under,
            used_at: now,
            is_answered: false,
        }
    }

    /// A packet of the flow passes.
    pub(crate) fn note(&mut self, is_reply: bool, now: Instant) {
        self.used_at = now;
        self.is_answered |= is_reply;
    }

    fn is_over(&self, now: Instant) -> bool {
        let holds = match self.is_answered {
            true => ANSWERED_HOLDS,
            false => UNANSWERED_HOLDS,
        };
        now.saturating_since(self.used_at) >= holds
    }
}

/// What is known of one flow.
#[derive(Clone, Debug)]
pub(crate) struct Known<T> {
    pub(crate) key: FlowKey,
    pub(crate) standing: Standing,
    pub(crate) value: T,
}

/// A bounded table.
pub(crate) struct Table<T> {
    /// Dense; a removed entry's place is taken by the last.
    entries: Vec<Known<T>>,
    positions: HashMap<FlowKey, usize, FixedState>,
    per_peer: HashMap<u32, usize, FixedState>,
    entries_max: usize,
    per_peer_max: usize,
    /// Walks over the table in even steps.
    look: u64,
}

impl<T> Table<T> {
    pub(super) fn new(entries_max: usize, per_peer_max: usize, seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            positions: HashMap::with_hasher(FixedState::with_seed(seed)),
            per_peer: HashMap::with_hasher(FixedState::with_seed(seed)),
            entries_max,
            per_peer_max,
            look: seed,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<&Known<T>> {
        Some(&self.entries[*self.positions.get(key)?])
    }

    pub(super) fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Known<T>> {
        Some(&mut self.entries[*self.positions.get(key)?])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known<T>> {
        self.entries.iter()
    }

    /// Remembers a flow, in place of one with the same key. False when there is no room.
    pub(super) fn insert(&mut self, known: Known<T>, now: Instant) -> bool {
        if let Some(position) = self.positions.get(&known.key) {
            self.entries[*position] = known;
            return true;
        }
        let peer = known.key.peer;
        if !self.make_room(peer, known.standing.allowed_under.is_some(), now) {
            return false;
        }
        *self.per_peer.entry(peer).or_default() += 1;
        self.positions.insert(known.key, self.entries.len());
        self.entries.push(known);
        true
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.remove_where(|known| known.standing.is_over(now));
    }

    pub(super) fn remove_where(&mut self, is_gone: impl Fn(&Known<T>) -> bool) {
        for position in (0..self.entries.len()).rev() {
            if is_gone(&self.entries[position]) {
                self.remove_at(position);
            }
        }
    }

    fn make_room(&mut self, peer: u32, is_allowed: bool, now: Instant) -> bool {
        let is_peer_full = self.count_of(peer) >= self.per_peer_max;
        if !is_peer_full && self.entries.len() < self.entries_max {
            return true;
        }
        let victim = self.choose_victim(peer, is_allowed, is_peer_full, now);
        victim.inspect(|it| self.remove_at(*it)).is_some()
    }

    fn choose_victim(
        &mut self,
        peer: u32,
        is_allowed: bool,
        own_only: bool,
        now: Instant,
    ) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let has_less = self.count_of(peer) < self.share(peer);
        let mut best = None;
        for _ in 0..LOOKS {
            let position = self.next_look();
            let known = &self.entries[position];
            let (class, its) = (Class::of(&known.standing, now), known.key.peer);
            let may_go = match class {
                _ if own_only && its != peer => false,
                Class::Over | Class::Denied => true,
                // What the rules deny takes nobody's place that they allow.
                _ if !is_allowed => false,
                Class::Unanswered => true,
                Class::Answered => its == peer || has_less && self.count_of(its) > self.share(peer),
            };
            let worth = (class, known.standing.used_at);
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

    fn count_of(&self, peer: u32) -> usize {
        self.per_peer.get(&peer).copied().unwrap_or_default()
    }

    /// Returns what each peer may have when all that have entries, and this one, have as many.
    fn share(&self, peer: u32) -> usize {
        let peers = self.per_peer.len() + usize::from(!self.per_peer.contains_key(&peer));
        self.entries_max / peers
    }

    fn remove_at(&mut self, position: usize) {
        let known = self.entries.swap_remove(position);
        self.positions.remove(&known.key);
        if let Some(moved) = self.entries.get(position) {
            self.positions.insert(moved.key, position);
        }
        let peer = known.key.peer;
        let count = self
            .per_peer
            .get_mut(&peer)
            .expect("every entry is counted");
        *count -= 1;
        if *count == 0 {
            self.per_peer.remove(&peer);
        }
    }
}

/// What would be lost with an entry; the least goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Over,
    Denied,
    Unanswered,
    Answered,
}

impl Class {
    fn of(standing: &Standing, now: Instant) -> Self {
        match standing {
            it if it.is_over(now) => Self::Over,
            it if it.allowed_under.is_none() => Self::Denied,
            it if !it.is_answered => Self::Unanswered,
            _ => Self::Answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::rule::ip_protocol;

    use super::*;

    fn known(peer: u32, port: u16, allowed_under: Option<u64>, now: Instant) -> Known<()> {
        Known {
            key: FlowKey {
                peer,
                local_port: 53,
                remote_port: port,
                ip_protocol: ip_protocol::UDP,
                is_ipv6: false,
            },
            standing: Standing::new(allowed_under, now),
            value: (),
        }
    }

    fn answered(peer: u32, port: u16, now: Instant) -> Known<()> {
        let mut known = known(peer, port, Some(1), now);
        known.standing.note(true, now);
        known
    }

    fn ports(table: &Table<()>, peer: u32) -> Vec<u16> {
        let its = table.iter().filter(|it| it.key.peer == peer);
        let mut ports: Vec<u16> = its.map(|it| it.key.remote_port).collect();
        ports.sort_unstable();
        ports
    }

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_full_table_takes_newcomers_for_the_oldest_of_their_peer() {
        let mut table = Table::new(8, 4, 7);
        for port in 0..100 {
            assert!(table.insert(answered(1, port, at(port.into())), at(port.into())));
        }
        assert_eq!(ports(&table, 1), [96, 97, 98, 99]);
        let mut table = Table::new(8, 8, 7);
        for port in 0..100 {
            assert!(table.insert(answered(1, port, at(port.into())), at(port.into())));
        }
        assert_eq!(ports(&table, 1), (92..100).collect::<Vec<u16>>());
    }

    #[test]
    fn denied_claims_shut_nobody_out_and_push_nobody_out() {
        let mut table = Table::new(8, 4, 7);
        for (peer, port) in [1, 2]
            .into_iter()
            .flat_map(|it| (0..4).map(move |p| (it, p)))
        {
            assert!(table.insert(known(peer, port, None, at(0)), at(0)));
        }
        for port in 0..4 {
            assert!(table.insert(answered(3, port, at(1)), at(1)));
            assert!(table.insert(answered(4, port, at(1)), at(1)));
        }
        assert_eq!((ports(&table, 3).len(), ports(&table, 4).len()), (4, 4));
        assert!(!table.insert(known(1, 9, None, at(2)), at(2)));
        assert!(
            table.insert(known(1, 9, Some(1), at(2)), at(2)),
            "its share"
        );
        assert_eq!(ports(&table, 1), [9]);
    }

    #[test]
    fn what_nobody_answers_is_over_after_thirty_seconds() {
        let mut table = Table::new(8, 8, 7);
        table.insert(known(1, 1, Some(1), at(0)), at(0));
        table.insert(answered(1, 2, at(0)), at(0));
        table.sweep(at(29_999));
        assert_eq!(ports(&table, 1), [1, 2]);
        table.sweep(at(30_000));
        assert_eq!(ports(&table, 1), [2]);
        let entry = table.get_mut(&answered(1, 2, at(0)).key).unwrap();
        entry.standing.note(false, at(60_000));
        table.sweep(at(239_999));
        assert_eq!(ports(&table, 1), [2]);
        table.sweep(at(240_000));
        assert!(table.is_empty() && table.get(&known(1, 2, None, at(0)).key).is_none());
    }
}
