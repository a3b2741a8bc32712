//! What each host needs to know, as messages: its whole map, and what it does not know yet. Sent
//! maps are not remembered: a host is told on what it says that it has, or on what it was told last.

use std::time::Duration;

use model::ids::{HostId, Revision};
use model::map::{MapDelta, PeerEntry, PolicySlice};
use model::record::{MapHead, Signed};
use model::store::StoreRevision;
use model::time::Now;

use crate::fleet::Fleet;
use crate::news::{News, PolicyNews, later_than};
use crate::output::SessionId;
use crate::presence::Presence;
use crate::state::Host;

/// How many changes of peers are told, and how many hosts something, before whatever else there is to
/// do: so many records are some megabyte, and take some milliseconds. A policy that makes strangers of
/// all hosts, or acquaintances, is told in parts.
const CHANGES_AT_ONCE: usize = 4096;

/// What a host says that it can do when it takes what changed of the policy.
const POLICY_STEPS: &str = "policy.steps";

impl Fleet {
    /// Tells every host that something concerns what it does not know yet.
    pub(crate) fn publish(&mut self, now: Now) {
        self.publish_at = None;
        self.pass_hints_on(now);
        let mut changes: usize = 0;
        while let Some(session) = self.sessions.first_with_news() {
            if changes > CHANGES_AT_ONCE {
                return self.publish_within(Duration::ZERO, now);
            }
            changes += 1 + self.tell(session, now);
        }
    }

    /// Tells one host what it does not know yet; returns how many changes of peers that is.
    pub(crate) fn tell(&mut self, session: SessionId, now: Now) -> usize {
        let Some((host, told, news)) = self.sessions.take_news(session) else {
            return 0;
        };
        let Some(mut delta) = self.delta(host, told, &news) else {
            return 0;
        };
        if delta.base != Some(delta.revision) {
            delta.head = Some(self.map_head());
        }
        let changes = delta.peers.len() + delta.forgotten.len() + delta.tombstones.len();
        self.sessions
            .set_told(session, StoreRevision(delta.revision.counter));
        self.send_map(session, delta, now);
        changes
    }

    /// Returns the signed revision of everything that is durable; signed once for all hosts.
    pub(crate) fn map_head(&mut self) -> Signed {
        let revision = self.state.map_revision(self.state.revision);
        if let Some((_, head)) = self.map_head.as_ref().filter(|(of, _)| *of == revision) {
            return head.clone();
        }
        let head = self.authority.sign_map_head(&MapHead {
            fleet: self.state.statement.fleet,
            revision,
        });
        self.map_head = Some((revision, head.clone()));
        head
    }

    /// Returns everything that a host needs to know. `knew`: it knows something already, at most
    /// up to there, and has to learn who is gone since.
    pub(crate) fn whole_map(&self, me: &Host, knew: Option<StoreRevision>) -> MapDelta {
        let id = me.record.host;
        let tombstones = knew.map_or_else(Vec::new, |have| self.tombstones_since(have, me));
        let peers = self.state.interest.peers_of(id);
        MapDelta {
            trust: knew.map_or_else(Vec::new, |have| self.statements_since(have)),
            base: None,
            revision: self.state.map_revision(self.state.revision),
            head: None,
            record: Some(me.signed.clone()),
            peers: peers
                .iter()
                .filter_map(|peer| self.peer_entry(*peer))
                .collect(),
            tombstones,
            forgotten: Vec::new(),
            policy: Some(self.slice_for(id)),
            policy_step: None,
        }
    }

    /// Returns the tombstones of those whom a host knew: none, when it had other rules or labels
    /// once. It does without: who is not in a whole map is gone too.
    fn tombstones_since(&self, have: StoreRevision, me: &Host) -> Vec<Signed> {
        if self.had_other_peers(have, me) {
            return Vec::new();
        }
        let gone = self.state.tombstones_by_revision.range(later_than(have)..);
        gone.filter(|(_, gone)| self.connected_to_the_last(me.record.host, *gone))
            .map(|(_, gone)| self.state.tombstones[gone].signed.clone())
            .collect()
    }

    /// Returns what is new to a host that was told up to a revision; `None`: nothing is.
    ///
    /// A delta that changes only endpoints has its base as its revision: endpoints are hints, and
    /// revisions count what is durable.
    fn delta(&self, id: HostId, told: StoreRevision, news: &News) -> Option<MapDelta> {
        let me = self.state.hosts.get(&id)?;
        let base = self.state.map_revision(told);
        let mut delta = MapDelta {
            base: Some(base),
            revision: base,
            trust: match news.trust {
                true => self.statements_since(told),
                false => Vec::new(),
            },
            record: news.record.then(|| me.signed.clone()),
            ..MapDelta::default()
        };
        match &news.policy {
            PolicyNews::None => {}
            PolicyNews::Step(step) if self.takes_steps(id) => {
                delta.policy_step = Some(step.clone());
            }
            PolicyNews::Step(_) | PolicyNews::Whole => delta.policy = Some(self.slice_for(id)),
        }
        let (peers, mut changed) = (news.peers(id), Vec::new());
        for (&peer, &knows) in &peers {
            if self.state.interest.connects(id, peer) {
                changed.push(peer);
            } else if knows {
                self.take_away(peer, &mut delta);
            }
        }
        let is_durable = delta.record.is_some()
            || !delta.trust.is_empty()
            || delta.policy.is_some()
            || delta.policy_step.is_some()
            || !delta.tombstones.is_empty()
            || !delta.forgotten.is_empty()
            || !changed.is_empty();
        if is_durable {
            delta.revision = self.state.map_revision(self.state.revision);
        }
        let is_hinted =
            |peer: &&HostId| !peers.contains_key(*peer) && self.state.interest.connects(id, **peer);
        let told_of = changed.iter().chain(news.hints.iter().filter(is_hinted));
        delta.peers = told_of.filter_map(|peer| self.peer_entry(*peer)).collect();
        (is_durable || !delta.peers.is_empty()).then_some(delta)
    }

    /// A host that was removed is gone for all; one that no rule connects any more, for this one.
    fn take_away(&self, peer: HostId, delta: &mut MapDelta) {
        match self.state.tombstones.get(&peer) {
            Some(gone) => delta.tombstones.push(gone.signed.clone()),
            None => delta.forgotten.push(peer),
        }
    }

    /// Returns up to where a host knows everything that concerns it, when what it has was told by
    /// this fleet as it is known here; else it needs a whole map.
    pub(crate) fn known_up_to(&self, have: Revision) -> Option<StoreRevision> {
        let stored = StoreRevision(have.counter);
        let is_known = have.epoch == self.state.statement.epoch
            && stored <= self.state.revision
            && stored >= self.state.pruned_through;
        is_known.then_some(stored)
    }

    fn peer_entry(&self, peer: HostId) -> Option<PeerEntry> {
        let record = self.state.hosts.get(&peer)?.signed.clone();
        let presence = self.presences.of(peer);
        let endpoints = presence.map_or_else(Vec::new, |it| it.endpoints().to_vec());
        Some(PeerEntry {
            record,
            endpoints,
            stream_port: presence.and_then(Presence::stream_port),
        })
    }

    /// Returns whether a host can make a slice of the one that it has and a step.
    fn takes_steps(&self, host: HostId) -> bool {
        let features = self.presences.of(host).and_then(|it| it.features.as_ref());
        features.is_some_and(|features| features.contains(POLICY_STEPS))
    }

    /// Returns the leaves of the policy that concern a member, with their proofs.
    fn slice_for(&self, host: HostId) -> PolicySlice {
        let policy = &self.state.policy;
        let all = &policy.slice;
        let seat = self.state.interest.seat(host).cloned().unwrap_or_default();
        let leaves = policy.leaves_for(&self.state.interest, &seat);
        PolicySlice {
            head: all.head.clone(),
            leaves: leaves
                .iter()
                .filter_map(|index| all.leaves.get(*index as usize).cloned())
                .collect(),
        }
    }
}
