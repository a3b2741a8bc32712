//! What each host needs to know: its whole map, and what changed since it was told last. Sent maps
//! are not remembered: everything has the revision of its last change, and a delta is what is later
//! than the revision that the host has.

use std::collections::BTreeSet;
use std::time::Duration;

use model::ids::{HostId, Revision};
use model::map::{MapDelta, PeerEntry, PolicySlice};
use model::store::StoreRevision;
use model::time::Now;

use crate::fleet::Fleet;
use crate::output::SessionId;
use crate::presence::HintRevision;
use crate::state::Host;

/// How soon after a change of hosts the others are told; changes within this time go together.
const TELL_CHANGES_AFTER: Duration = Duration::from_millis(20);

/// How soon hints where hosts may be reached are passed on; a storm of them goes together.
const TELL_HINTS_AFTER: Duration = Duration::from_millis(200);

/// How far a host was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// It knows everything durable up to here that concerns it.
    pub(crate) stored: StoreRevision,
    /// It knows all endpoints up to here.
    pub(crate) hints: HintRevision,
}

impl Fleet {
    /// Tells every host what it does not know yet.
    pub(crate) fn publish(&mut self, now: Now) {
        self.publish_at = None;
        for session in self.sessions.following() {
            self.tell(session, now);
        }
    }

    /// Tells every host soon that hosts changed.
    pub(crate) fn publish_changes_soon(&mut self, now: Now) {
        self.publish_within(TELL_CHANGES_AFTER, now);
    }

    /// Tells every host soon that endpoints changed.
    pub(crate) fn publish_hints_soon(&mut self, now: Now) {
        self.publish_within(TELL_HINTS_AFTER, now);
    }

    fn publish_within(&mut self, pause: Duration, now: Now) {
        let due = now.monotonic + pause;
        self.publish_at = Some(self.publish_at.map_or(due, |earlier| earlier.min(due)));
    }

    /// Tells one host what it does not know yet.
    pub(crate) fn tell(&mut self, session: SessionId, now: Now) {
        let Some((host, told)) = self.sessions.told(session) else {
            return;
        };
        let Some((delta, told)) = self.delta(host, told) else {
            return;
        };
        self.sessions.set_told(session, told);
        self.send_map(session, delta, now);
    }

    /// Returns everything that a host needs to know. `knew`: it knew something before, and has to
    /// learn who is gone.
    pub(crate) fn whole_map(&self, me: &Host, knew: bool) -> (MapDelta, Told) {
        let id = me.record.host;
        let tombstones = match knew {
            true => self
                .state
                .tombstones
                .values()
                .map(|gone| gone.signed.clone())
                .collect(),
            false => Vec::new(),
        };
        let delta = MapDelta {
            base: None,
            revision: self.state.map_revision(self.state.revision),
            record: Some(me.signed.clone()),
            peers: self
                .peers_of(me)
                .map(|peer| self.peer_entry(peer))
                .collect(),
            tombstones,
            forgotten: Vec::new(),
            policy: Some(self.slice_for(id)),
        };
        (delta, self.all_told())
    }

    /// Returns what a host does not know yet, and how far it is told then; `None`: nothing.
    ///
    /// A delta that changes only endpoints has its base as its revision: endpoints are hints, and
    /// revisions count what is durable.
    pub(crate) fn delta(&self, id: HostId, told: Told) -> Option<(MapDelta, Told)> {
        let me = self.state.hosts.get(&id)?;
        let changed = self.changed_hosts(told.stored);
        let record = changed.contains(&id).then(|| me.signed.clone());
        let tombstones: Vec<_> = self
            .state
            .tombstones_by_revision
            .range(after(told.stored)..)
            .map(|(_, gone)| self.state.tombstones[gone].signed.clone())
            .collect();
        let policy = (self.state.policy.revision > told.stored).then(|| self.slice_for(id));
        let hinted: BTreeSet<HostId> = changed
            .union(&self.presences.changed_since(told.hints).collect())
            .copied()
            .collect();
        let peers: Vec<_> = hinted
            .iter()
            .filter_map(|peer| self.state.hosts.get(peer))
            .filter(|peer| concerns(peer, me))
            .map(|peer| self.peer_entry(peer))
            .collect();
        let is_durable = record.is_some()
            || policy.is_some()
            || !tombstones.is_empty()
            || changed.iter().any(|peer| *peer != id);
        if !is_durable && peers.is_empty() {
            return None;
        }
        let stored = if is_durable {
            self.state.revision
        } else {
            told.stored
        };
        let delta = MapDelta {
            base: Some(self.state.map_revision(told.stored)),
            revision: self.state.map_revision(stored),
            record,
            peers,
            tombstones,
            forgotten: Vec::new(),
            policy,
        };
        Some((
            delta,
            Told {
                stored,
                hints: self.presences.last_change(),
            },
        ))
    }

    /// Returns from where on a host is told, when what it has is known here; else it needs a whole
    /// map. Its endpoints may be any: it is told all that are known.
    pub(crate) fn told_by(&self, have: Revision) -> Option<Told> {
        let stored = StoreRevision(have.counter);
        let is_known = have.epoch == self.state.statement.epoch
            && stored <= self.state.revision
            && stored >= self.state.pruned_through;
        is_known.then_some(Told {
            stored,
            hints: HintRevision::default(),
        })
    }

    fn all_told(&self) -> Told {
        Told {
            stored: self.state.revision,
            hints: self.presences.last_change(),
        }
    }

    fn changed_hosts(&self, since: StoreRevision) -> BTreeSet<HostId> {
        self.state
            .hosts_by_revision
            .range(after(since)..)
            .map(|(_, host)| *host)
            .collect()
    }

    fn peers_of<'a>(&'a self, me: &'a Host) -> impl Iterator<Item = &'a Host> {
        self.state
            .hosts
            .values()
            .filter(move |peer| concerns(peer, me))
    }

    fn peer_entry(&self, peer: &Host) -> PeerEntry {
        let presence = self.presences.of(peer.record.host);
        PeerEntry {
            record: peer.signed.clone(),
            endpoints: presence
                .map(|it| it.endpoints().to_vec())
                .unwrap_or_default(),
        }
    }

    /// Returns the leaves that concern a host: all of them, until an interest index knows better.
    fn slice_for(&self, _host: HostId) -> PolicySlice {
        self.state.policy.slice.clone()
    }
}

/// Returns whether a host needs to know a peer: every host every other, until an interest index
/// knows better.
fn concerns(peer: &Host, me: &Host) -> bool {
    peer.record.host != me.record.host
}

/// The lower bound of what was changed after a revision.
fn after(revision: StoreRevision) -> (StoreRevision, HostId) {
    (revision.next(), HostId::from_bytes([0; 16]))
}
